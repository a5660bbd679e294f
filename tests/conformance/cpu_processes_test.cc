#include "tests/conformance/backend.h"
#include "tests/conformance/cpu_rank.h"

namespace muster::testing {
namespace {

const ConformanceBackend kCpu("Cpu", RanksAs::kProcesses, MakeCpuRank);

}  // namespace
}  // namespace muster::testing
