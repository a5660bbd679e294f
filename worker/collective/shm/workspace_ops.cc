#include "worker/collective/shm/workspace_ops.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace muster {
namespace {

absl::Status CheckRow(const CollectiveStamp& stamp, uint64_t row_bytes, uint64_t slab_bytes) {
  if (row_bytes <= slab_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(stamp.DebugString(), " needs ", row_bytes,
                                                 " bytes of workspace per token; it has ",
                                                 slab_bytes));
}

const void* Advance(const void* data, int64_t bytes) {
  return data == nullptr ? nullptr : static_cast<const std::byte*>(data) + bytes;
}
void* Advance(void* data, int64_t bytes) {
  return data == nullptr ? nullptr : static_cast<std::byte*>(data) + bytes;
}

}  // namespace

absl::Status CheckOp(const FusedAllReduceRmsNorm& op, uint64_t slab_bytes) {
  if (op.tokens <= 0 || op.hidden <= 0 || op.partial == nullptr || op.weight == nullptr ||
      op.norm_out == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("all-reduce-rms-norm of ", op.tokens, " x ",
                                                   op.hidden, " lacks a size or an operand"));
  }
  return CheckRow(StampOf(op), SlabRowBytes(op), slab_bytes);
}

absl::Status CheckOp(const CpCombine& op, int ranks, uint64_t slab_bytes) {
  if (op.tokens <= 0 || op.heads <= 0 || op.head_dim <= 0 || op.partial == nullptr ||
      op.lse == nullptr || op.out == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("cp-combine of ", op.tokens, " x ", op.heads,
                                                   " x ", op.head_dim,
                                                   " lacks a size or an operand"));
  }
  if (int64_t{op.heads} * op.head_dim % ranks != 0) {
    return absl::InvalidArgumentError(absl::StrCat("cp-combine of ", op.heads, " heads x ",
                                                   op.head_dim, " cannot be cut into slices for ",
                                                   ranks, " ranks"));
  }
  return CheckRow(StampOf(op), SlabRowBytes(op), slab_bytes);
}

CollectiveStamp StampOf(const FusedAllReduceRmsNorm& op) {
  return {.op = CollectiveOp::kAllReduceRmsNorm,
          .dtype = op.dtype,
          .rows = static_cast<uint32_t>(op.tokens),
          .row_bytes = static_cast<uint64_t>(op.hidden) * SizeOf(op.dtype)};
}

CollectiveStamp StampOf(const CpCombine& op) {
  return {.op = CollectiveOp::kCpCombine,
          .dtype = op.dtype,
          .rows = static_cast<uint32_t>(op.tokens),
          .row_bytes = SlabRowBytes(op)};
}

FusedAllReduceRmsNorm SliceOf(const FusedAllReduceRmsNorm& op, int64_t begin, int64_t count) {
  const int64_t bytes = begin * op.hidden * static_cast<int64_t>(SizeOf(op.dtype));
  FusedAllReduceRmsNorm slice = op;
  slice.partial = Advance(op.partial, bytes);
  slice.residual_in = Advance(op.residual_in, bytes);
  slice.residual_out = Advance(op.residual_out, bytes);
  slice.norm_out = Advance(op.norm_out, bytes);
  slice.tokens = static_cast<int>(count);
  return slice;
}

uint64_t SlabRowBytes(const FusedAllReduceRmsNorm& op) {
  return static_cast<uint64_t>(op.hidden) * sizeof(float);
}

uint64_t SlabRowBytes(const CpCombine& op) {
  return static_cast<uint64_t>(op.heads) * (static_cast<uint64_t>(op.head_dim) + 1) * sizeof(float);
}

}  // namespace muster
