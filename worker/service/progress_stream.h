// A server stream that tells how an operation on an epoch gets on, and ends with its result.
#ifndef MUSTER_WORKER_SERVICE_PROGRESS_STREAM_H_
#define MUSTER_WORKER_SERVICE_PROGRESS_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"
#include "worker/engine/epoch_operation.h"
#include "worker/service/wire_control.h"

namespace muster {

// `Response` is a oneof of `progress` and `result`. Progress within one phase is told as fast as
// the client reads it, the newest only; the beginning of a phase is always told. The operation goes
// on when the client has gone. Lives until the call is over and the operation has let go of its
// watcher.
template <typename Response>
class ProgressStream final : public grpc::ServerWriteReactor<Response> {
 public:
  // The reactor of a new call, and what watches the operation for it.
  static std::pair<grpc::ServerWriteReactor<Response>*, EpochWatcher> Start() {
    const auto stream = std::make_shared<ProgressStream>();
    {
      absl::MutexLock lock(&stream->mu_);
      stream->self_ = stream;
    }
    return {
        stream.get(),
        {.on_progress = [stream](const Progress& progress) { stream->Tell(progress); },
         .on_done =
             [stream](const absl::StatusOr<EpochOutcome>& result) { stream->TellResult(result); }}};
  }

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    waiting_.pop_front();
    if (!ok) gone_ = true;
    Next();
  }
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    gone_ = true;
    Next();
  }
  void OnDone() override ABSL_LOCKS_EXCLUDED(mu_) {
    std::shared_ptr<ProgressStream> self;
    absl::MutexLock lock(&mu_);
    self.swap(self_);
  }

 private:
  void Tell(const Progress& progress) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (gone_) return;
    // The first is in flight while there is a write.
    const bool replaceable = waiting_.size() > (writing_ ? 1 : 0) &&
                             waiting_.back().progress().phase() == progress.phase;
    if (!replaceable) waiting_.emplace_back();
    *waiting_.back().mutable_progress() = ToWire(progress);
    Next();
  }
  void TellResult(const absl::StatusOr<EpochOutcome>& result) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (result.ok()) ToWire(*result, &waiting_.emplace_back());
    result_ = result.status();
    Next();
  }

  // Writes what waits, one message after the other, and then finishes.
  void Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_ || finished_) return;
    if (gone_) {
      finished_ = true;
      this->Finish(grpc::Status::CANCELLED);
    } else if (!waiting_.empty()) {
      writing_ = true;
      this->StartWrite(&waiting_.front());
    } else if (result_.has_value()) {
      finished_ = true;
      this->Finish(ToGrpc(*result_));
    }
  }

  absl::Mutex mu_;
  std::shared_ptr<ProgressStream> self_ ABSL_GUARDED_BY(mu_);  // until OnDone
  std::deque<Response> waiting_ ABSL_GUARDED_BY(mu_);          // to be written, in order
  std::optional<absl::Status> result_ ABSL_GUARDED_BY(mu_);    // once there is one
  bool writing_ ABSL_GUARDED_BY(mu_) = false;                  // waiting_.front()
  bool gone_ ABSL_GUARDED_BY(mu_) = false;                     // the client
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_PROGRESS_STREAM_H_
