#ifndef MUSTER_TESTS_CONFORMANCE_CUDA_RANK_H_
#define MUSTER_TESTS_CONFORMANCE_CUDA_RANK_H_

#include <memory>

#include "absl/status/statusor.h"
#include "tests/conformance/backend.h"

namespace muster::testing {

// A CUDA device and its collectives. Ranks share the GPUs that there are.
absl::StatusOr<std::unique_ptr<RankBackend>> MakeCudaRank(const RankOptions& options);

}  // namespace muster::testing

#endif  // MUSTER_TESTS_CONFORMANCE_CUDA_RANK_H_
