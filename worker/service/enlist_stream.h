#ifndef MUSTER_WORKER_SERVICE_ENLIST_STREAM_H_
#define MUSTER_WORKER_SERVICE_ENLIST_STREAM_H_

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/muster/v1/membership.pb.h"
#include "worker/service/membership_client.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace muster {

// One Enlist call from its start to its end.
class EnlistStream {
 public:
  // Borrows all. `untold` are the expiries that the coordinator may not have heard of when the
  // stream before ended, and in the end those of this one.
  EnlistStream(const std::shared_ptr<grpc::Channel>& coordinator, const WorkerProfile& profile,
               const MembershipCallbacks& callbacks, std::vector<ExpiryReport>& untold);
  ~EnlistStream();

  // Enlists, then sends heartbeats and hands on notices until the stream ends. Once. Never OK: why
  // it ended, UNAVAILABLE when the coordinator ended it without an error.
  absl::Status Run();
  // Ends Run at once, before it began too. From any thread.
  void Cancel() { context_.TryCancel(); }
  // Has the next heartbeat sent now. From any thread.
  void Wake() ABSL_LOCKS_EXCLUDED(wake_mu_);

  // Whether the coordinator took the worker in.
  bool welcomed() const { return interval_ > absl::ZeroDuration(); }

 private:
  using Stream = grpc::ClientAsyncReaderWriter<v1::EnlistRequest, v1::EnlistResponse>;
  // What the completion queue says is done.
  enum class Event : intptr_t { kStarted = 1, kRead, kWritten, kFinished, kWoken };

  static void* TagOf(Event event) { return reinterpret_cast<void*>(event); }
  void OnEvent(Event event, bool ok);
  void OnDeadline();
  // Whether events are to come; none does once this was false.
  bool Expects() ABSL_LOCKS_EXCLUDED(wake_mu_);
  void OnMessage();
  void Write(v1::EnlistRequest request);
  // If one is due and can be written.
  void SendHeartbeat();
  void Read();
  // Asks for the status; nothing can be read any more.
  void Finish();
  absl::Status EndStatus() const;

  const std::shared_ptr<grpc::Channel>& coordinator_;
  const WorkerProfile& profile_;
  const MembershipCallbacks& callbacks_;
  std::vector<ExpiryReport>& untold_;

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<Stream> stream_;

  absl::Mutex wake_mu_;
  grpc::Alarm alarm_ ABSL_GUARDED_BY(wake_mu_);
  bool waking_ ABSL_GUARDED_BY(wake_mu_) = false;  // an event of the alarm is to come
  bool over_ ABSL_GUARDED_BY(wake_mu_) = false;

  // The thread of Run only.
  v1::EnlistRequest request_;
  v1::EnlistResponse response_;
  grpc::Status status_;
  absl::Duration interval_;  // of heartbeats; 0 until welcome
  absl::Time deadline_;      // of the welcome, then of the next heartbeat; by Clock::Real
  bool welcome_missed_ = false;
  bool due_ = false;  // a heartbeat
  bool writing_ = false;
  bool finishing_ = false;
  int pending_ = 0;  // events to come, but for that of the alarm
};

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_ENLIST_STREAM_H_
