#include "worker/collective/collective_stamp.h"

#include "absl/strings/str_cat.h"

namespace muster {

const char* CollectiveOpName(CollectiveOp op) {
  switch (op) {
    case CollectiveOp::kNone:
      return "nothing";
    case CollectiveOp::kBarrier:
      return "barrier";
    case CollectiveOp::kAllReduce:
      return "all-reduce";
    case CollectiveOp::kAllGather:
      return "all-gather";
    case CollectiveOp::kReduceScatter:
      return "reduce-scatter";
    case CollectiveOp::kBroadcast:
      return "broadcast";
    case CollectiveOp::kAllReduceRmsNorm:
      return "all-reduce-rms-norm";
    case CollectiveOp::kCpCombine:
      return "cp-combine";
  }
  return "unknown";
}

std::string CollectiveStamp::DebugString() const {
  if (op == CollectiveOp::kNone || op == CollectiveOp::kBarrier) return CollectiveOpName(op);
  std::string text =
      absl::StrCat(CollectiveOpName(op), " of ", rows, " x ", row_bytes, " bytes ", Name(dtype));
  if (op == CollectiveOp::kBroadcast) absl::StrAppend(&text, " from group rank ", root);
  return text;
}

}  // namespace muster
