#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NORM_TABLE_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NORM_TABLE_H_

#include "absl/status/status.h"
#include "worker/collective/nccl/collectives_bench.h"

namespace muster {

// All-reduce, residual and norm by hidden size and tokens, in every way there is, in Markdown;
// `copy_speed` is PeerCopySpeed(). DATA_LOSS names a result that is wrong.
absl::Status PrintNormTable(CollectivesBench& bench, double copy_speed);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NORM_TABLE_H_
