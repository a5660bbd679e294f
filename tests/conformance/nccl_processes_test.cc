#include "tests/conformance/backend.h"
#include "tests/conformance/nccl_rank.h"

namespace muster::testing {
namespace {

// Sixteen processes that talk through sockets on one GPU are slow, and show nothing that five do
// not.
constexpr int kMostRanks = 5;
const ConformanceBackend kNccl("Nccl", RanksAs::kProcesses, MakeNcclRank, kMostRanks);

}  // namespace
}  // namespace muster::testing
