#ifndef MUSTER_TESTS_CONFORMANCE_CPU_RANK_H_
#define MUSTER_TESTS_CONFORMANCE_CPU_RANK_H_

#include <memory>

#include "absl/status/statusor.h"
#include "tests/conformance/backend.h"

namespace muster::testing {

// A CPU device and collectives over shared memory.
absl::StatusOr<std::unique_ptr<RankBackend>> MakeCpuRank(const RankOptions& options);

}  // namespace muster::testing

#endif  // MUSTER_TESTS_CONFORMANCE_CPU_RANK_H_
