#include "worker/engine/shm_step_ring.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "worker/device/cpu/shm_segment.h"
#include "worker/engine/shm_ring_memory.h"

namespace muster {
namespace {

absl::Status Gone(absl::string_view who) {
  return MakeError(absl::StatusCode::kUnavailable, absl::StrCat(who, " left the relay of steps"),
                   {.reason = ErrorReason::kRankLost});
}

class LeaderRing final : public StepRing {
 public:
  LeaderRing(ShmSegment segment, const StepRingBackend::Options& options)
      : segment_(std::move(segment)),
        ring_(ShmRingMemory::Format(segment_.data(), options.followers, options.message_bytes)) {}
  ~LeaderRing() override { ring_.Abort(Gone("the leader")); }

  absl::Status Push(absl::string_view bytes, absl::Duration timeout) override {
    return ring_.Push(bytes, timeout);
  }
  absl::Status AwaitTaken(absl::Duration timeout) override { return ring_.AwaitTaken(timeout); }
  absl::Status Pop(std::string&) override {
    return absl::FailedPreconditionError("the leader stamps the steps, it reads none");
  }
  void Abort(const absl::Status& reason) override { ring_.Abort(reason); }
  std::string Handle() const override { return segment_.handle().Encode(); }
  void StopExporting() override { segment_.StopExporting(); }

 private:
  ShmSegment segment_;
  ShmRingMemory ring_;
};

class FollowerRing final : public StepRing {
 public:
  FollowerRing(ShmMapping mapping, const ShmRingMemory& ring, int index)
      : mapping_(std::move(mapping)), ring_(ring), index_(index) {}
  ~FollowerRing() override { ring_.Abort(Gone(absl::StrCat("follower ", index_))); }

  absl::Status Push(absl::string_view, absl::Duration) override {
    return absl::FailedPreconditionError("only the leader stamps steps");
  }
  absl::Status AwaitTaken(absl::Duration) override {
    return absl::FailedPreconditionError("only the leader stamps steps");
  }
  absl::Status Pop(std::string& bytes) override { return ring_.Pop(bytes); }
  void Abort(const absl::Status& reason) override { ring_.Abort(reason); }
  std::string Handle() const override { return ""; }
  void StopExporting() override {}

 private:
  ShmMapping mapping_;
  ShmRingMemory ring_;
  const int index_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StepRing>> ShmStepRingBackend::Create(const Options& options,
                                                                     Ledger& ledger) {
  if (options.followers < 1 || options.followers > ShmRingMemory::kMaxFollowers) {
    return absl::InvalidArgumentError(absl::StrCat("a ring of steps for ", options.followers,
                                                   " followers; it serves 1 to ",
                                                   ShmRingMemory::kMaxFollowers));
  }
  MUSTER_ASSIGN_OR_RETURN(
      ShmSegment segment,
      ShmSegment::Create(ShmRingMemory::BytesFor(options.message_bytes), "relay", device_, ledger));
  return std::make_unique<LeaderRing>(std::move(segment), options);
}

absl::StatusOr<std::unique_ptr<StepRing>> ShmStepRingBackend::Open(absl::string_view handle,
                                                                   int index) {
  MUSTER_ASSIGN_OR_RETURN(const ShmHandle decoded, ShmHandle::Decode(handle));
  MUSTER_ASSIGN_OR_RETURN(ShmMapping mapping, ShmMapping::Open(decoded));
  MUSTER_ASSIGN_OR_RETURN(ShmRingMemory ring,
                          ShmRingMemory::Attach(mapping.data(), decoded.bytes, index));
  return std::make_unique<FollowerRing>(std::move(mapping), ring, index);
}

}  // namespace muster
