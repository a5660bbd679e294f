#ifndef MUSTER_COORDINATOR_SERVICE_WATCH_STREAM_H_
#define MUSTER_COORDINATOR_SERVICE_WATCH_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/wire_status.h"
#include "coordinator/change_signal.h"

namespace muster {

// What a source has for its watcher.
enum class WatchStep { kMessage, kNothingYet, kEnd };

// A server stream that asks its source for the next message at its start, after every write and
// after every change; changes during a write are one. Deletes itself when the call is over.
template <typename Response>
class WatchStream : public grpc::ServerWriteReactor<Response> {
 public:
  // Fills in the message, or says that there is none; an error ends the call. Called by one thread
  // at a time, with a lock of the stream held; must not block.
  using Source = std::function<absl::StatusOr<WatchStep>(Response*)>;

  // `changes` and `stopping` outlive the call; a notification of `stopping` ends it as UNAVAILABLE.
  WatchStream(Source source, ChangeSignal& changes, ChangeSignal& stopping)
      : source_(std::move(source)) {
    changes_ = changes.Subscribe([this] { OnChange(); });
    stopping_ =
        stopping.Subscribe([this] { End(absl::UnavailableError("the coordinator is stopping")); });
    OnChange();
  }

 private:
  void OnChange() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (!writing_) Advance();
  }

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    ok ? Advance() : EndLocked(absl::CancelledError("the watcher is gone"));
  }

  void OnCancel() override { End(absl::CancelledError("the watcher is gone")); }

  void OnDone() override { delete this; }

  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (ended_) return;
    response_.Clear();
    const absl::StatusOr<WatchStep> step = source_(&response_);
    if (!step.ok()) return EndLocked(step.status());
    switch (*step) {
      case WatchStep::kMessage:
        writing_ = true;
        return this->StartWrite(&response_);
      case WatchStep::kNothingYet:
        return;
      case WatchStep::kEnd:
        return EndLocked(absl::OkStatus());
    }
  }

  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    EndLocked(status);
  }

  void EndLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!std::exchange(ended_, true)) this->Finish(ToGrpc(status));
  }

  const Source source_;

  absl::Mutex mu_;
  Response response_ ABSL_GUARDED_BY(mu_);  // gRPC's while `writing_`
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;

  // Destroyed first: afterwards nothing calls.
  ChangeSignal::Subscription changes_;
  ChangeSignal::Subscription stopping_;
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_WATCH_STREAM_H_
