#include "tests/conformance/backend.h"
#include "tests/conformance/cpu_rank.h"

namespace muster::testing {
namespace {

const ConformanceBackend kCpu("Cpu", RanksAs::kThreads, MakeCpuRank);

}  // namespace
}  // namespace muster::testing
