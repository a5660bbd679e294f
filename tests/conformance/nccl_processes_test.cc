#include "tests/conformance/backend.h"
#include "tests/conformance/nccl_rank.h"

namespace muster::testing {
namespace {

// Its communicators take seconds to form where ranks share a GPU; more of them show nothing new.
constexpr int kMostRanks = 3;
const ConformanceBackend kNccl("Nccl", RanksAs::kProcesses, MakeNcclRank, kMostRanks);

}  // namespace
}  // namespace muster::testing
