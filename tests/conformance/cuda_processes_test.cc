#include "tests/conformance/backend.h"
#include "tests/conformance/cuda_rank.h"

namespace muster::testing {
namespace {

const ConformanceBackend kCuda("Cuda", RanksAs::kProcesses, MakeCudaRank);

}  // namespace
}  // namespace muster::testing
