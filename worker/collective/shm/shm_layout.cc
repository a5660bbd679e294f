#include "worker/collective/shm/shm_layout.h"

#include <algorithm>
#include <cstring>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/error.h"

namespace muster {

void ShmStamp::Store(const CollectiveStamp& stamp) {
  what_.store(uint64_t{static_cast<uint8_t>(stamp.op)} << 56 |
                  uint64_t{static_cast<uint8_t>(stamp.dtype)} << 48 | uint64_t{stamp.root} << 32 |
                  stamp.rows,
              std::memory_order_relaxed);
  row_bytes_.store(stamp.row_bytes, std::memory_order_relaxed);
}

CollectiveStamp ShmStamp::Load() const {
  const uint64_t what = what_.load(std::memory_order_relaxed);
  return {.op = static_cast<CollectiveOp>(what >> 56),
          .dtype = static_cast<DType>(what >> 48 & 0xFF),
          .root = static_cast<uint16_t>(what >> 32 & 0xFFFF),
          .rows = static_cast<uint32_t>(what),
          .row_bytes = row_bytes_.load(std::memory_order_relaxed)};
}

void ShmAbort::Raise(const absl::Status& reason) {
  uint32_t state = kClear;
  if (!state_.compare_exchange_strong(state, kWriting)) {
    // The writer may have died between its two stores; its text is then not to be had.
    for (int i = 0; i < 10 && state_.load() == kWriting; ++i) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    state = kWriting;
    state_.compare_exchange_strong(state, kReasonLost);
    return;
  }
  const ErrorDetail detail = DetailOf(reason);
  code_ = static_cast<uint32_t>(reason.code());
  error_reason_ = static_cast<uint32_t>(detail.reason);
  culprit_count_ = static_cast<uint32_t>(std::min<size_t>(detail.ranks.size(), kMaxShmRanks));
  for (uint32_t i = 0; i < culprit_count_; ++i) culprits_[i] = detail.ranks[i].value();
  const size_t length = std::min(reason.message().size(), kTextBytes - 1);
  std::memcpy(text_, reason.message().data(), length);
  text_[length] = '\0';
  state = kWriting;
  state_.compare_exchange_strong(state, kRaised);
}

absl::Status ShmAbort::Reason() const {
  if (state_.load(std::memory_order_acquire) != kRaised) {
    return absl::AbortedError("a rank that is gone aborted the group");
  }
  ErrorDetail detail;
  detail.reason = static_cast<ErrorReason>(error_reason_);
  for (uint32_t i = 0; i < std::min<uint32_t>(culprit_count_, kMaxShmRanks); ++i) {
    detail.ranks.push_back(GlobalRank(culprits_[i]));
  }
  const bool known = code_ >= 1 && code_ <= 16;
  return MakeError(known ? static_cast<absl::StatusCode>(code_) : absl::StatusCode::kAborted,
                   absl::string_view(text_, strnlen(text_, kTextBytes)), detail);
}

}  // namespace muster
