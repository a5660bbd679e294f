#ifndef MUSTER_TESTS_CONFORMANCE_NCCL_RANK_H_
#define MUSTER_TESTS_CONFORMANCE_NCCL_RANK_H_

#include <memory>

#include "absl/status/statusor.h"
#include "tests/conformance/backend.h"

namespace muster::testing {

// A CUDA device and collectives over NCCL. Ranks are processes, which share the GPUs that there
// are.
absl::StatusOr<std::unique_ptr<RankBackend>> MakeNcclRank(const RankOptions& options);

}  // namespace muster::testing

#endif  // MUSTER_TESTS_CONFORMANCE_NCCL_RANK_H_
