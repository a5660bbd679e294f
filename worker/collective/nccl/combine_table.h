#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_COMBINE_TABLE_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_COMBINE_TABLE_H_

#include "absl/status/status.h"
#include "worker/collective/nccl/collectives_bench.h"

namespace muster {

// The CP combine by tokens, fused and over NCCL, in Markdown; `copy_speed` is PeerCopySpeed().
// DATA_LOSS names a result that is wrong.
absl::Status PrintCombineTable(CollectivesBench& bench, double copy_speed);

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_COMBINE_TABLE_H_
