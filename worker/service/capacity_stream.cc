#include "worker/service/capacity_stream.h"

#include <grpcpp/alarm.h>

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/wire_status.h"
#include "base/wire_time.h"
#include "worker/service/wire_inference.h"

namespace muster {
namespace {

constexpr absl::Duration kShortestPause = absl::Milliseconds(10);

class CapacityStream final : public CapacityReactor {
 public:
  static CapacityStream* Start(std::shared_ptr<const ServingEpoch> serving,
                               const std::string& client_id) {
    auto stream = std::make_shared<CapacityStream>(serving, client_id);
    stream->self_ = stream;
    stream->watcher_ = std::make_shared<Engine::CapacityWatcher>(
        [weak = std::weak_ptr<CapacityStream>(stream)](const absl::Status& end) {
          if (const auto self = weak.lock()) self->OnChange(end);
        });
    if (!client_id.empty()) serving->engine().queue().Hold(client_id);
    serving->engine().WatchCapacity(stream->watcher_);
    stream->OnChange(absl::OkStatus());
    return stream.get();
  }

  CapacityStream(std::shared_ptr<const ServingEpoch> serving, std::string client_id)
      : client_id_(std::move(client_id)), serving_(std::move(serving)) {}

 private:
  void OnChange(const absl::Status& end) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (!end.ok()) return End(end);
    changed_ = true;
    WriteNext();
  }
  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    ok ? WriteNext() : End(absl::CancelledError("the watcher is gone"));
  }
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    End(absl::CancelledError("the watcher is gone"));
  }
  void OnDone() override { self_.reset(); }

  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (ended_ || writing_ || pausing_ || !changed_) return;
    const absl::Time now = Clock::Real().Now();
    if (now < next_) {
      pausing_ = true;
      // The alarm keeps its function for as long as it lives, so that must not keep the stream.
      alarm_.Set(DeadlineAfter(next_ - now), [weak = std::weak_ptr<CapacityStream>(self_)](bool) {
        if (const auto self = weak.lock()) self->OnPauseOver();
      });
      return;
    }
    changed_ = false;
    writing_ = true;
    next_ = now + kShortestPause;
    CapacityToWire(*serving_, response_.mutable_capacity());
    StartWrite(&response_);
  }
  void OnPauseOver() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    pausing_ = false;
    WriteNext();
  }
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (std::exchange(ended_, true)) return;
    if (!client_id_.empty()) serving_->engine().queue().LetGo(client_id_);
    serving_.reset();
    Finish(ToGrpc(status));
  }

  const std::string client_id_;
  std::shared_ptr<CapacityStream> self_;              // until OnDone
  std::shared_ptr<Engine::CapacityWatcher> watcher_;  // of the engine

  absl::Mutex mu_;
  std::shared_ptr<const ServingEpoch> serving_ ABSL_GUARDED_BY(mu_);  // null once it has ended
  v1::WatchCapacityResponse response_ ABSL_GUARDED_BY(mu_);           // gRPC's while `writing_`
  absl::Time next_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  bool changed_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool pausing_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Alarm alarm_;
};

class Refusal final : public CapacityReactor {
 public:
  explicit Refusal(const absl::Status& status) { Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

CapacityReactor* StartCapacityStream(std::shared_ptr<const ServingEpoch> serving,
                                     const std::string& client_id) {
  return CapacityStream::Start(std::move(serving), client_id);
}

CapacityReactor* RefuseCapacityStream(const absl::Status& status) { return new Refusal(status); }

}  // namespace muster
