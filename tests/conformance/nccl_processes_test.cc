#include "tests/conformance/backend.h"
#include "tests/conformance/nccl_rank.h"

namespace muster::testing {
namespace {

const ConformanceBackend kNccl("Nccl", RanksAs::kProcesses, MakeNcclRank);

}  // namespace
}  // namespace muster::testing
