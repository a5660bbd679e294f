#ifndef MUSTER_COORDINATOR_SERVICE_OPERATION_STREAM_H_
#define MUSTER_COORDINATOR_SERVICE_OPERATION_STREAM_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/fleet.h"
#include "coordinator/service/operation_messages.h"
#include "coordinator/service/watch_stream.h"

namespace muster {

// Whether an operation has begun: told by one thread, asked by another.
class OperationStart {
 public:
  void Set(const absl::Status& started) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    started_ = started;
  }
  std::optional<absl::Status> Get() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return started_;
  }

 private:
  mutable absl::Mutex mu_;
  std::optional<absl::Status> started_ ABSL_GUARDED_BY(mu_);
};

// Tells of one operation from its start to its end, and nothing twice in a row.
template <typename Response>
class OperationSource {
 public:
  OperationSource(const Fleet& fleet, std::string id, std::shared_ptr<OperationStart> start)
      : fleet_(fleet), id_(std::move(id)), start_(std::move(start)) {}

  absl::StatusOr<WatchStep> operator()(Response* response) {
    const std::optional<absl::Status> started = start_->Get();
    if (!started.has_value()) return WatchStep::kNothingYet;
    if (!started->ok()) return *started;
    const std::optional<Operation> operation = fleet_.FindOperation(id_);
    if (ended_ || !operation.has_value()) return WatchStep::kEnd;
    *response->mutable_operation() = ToWire(*operation);
    ended_ = operation->state != OperationState::kRunning;
    std::string written = response->SerializeAsString();
    if (written == last_) return WatchStep::kNothingYet;
    last_ = std::move(written);
    return WatchStep::kMessage;
  }

 private:
  const Fleet& fleet_;
  const std::string id_;
  const std::shared_ptr<OperationStart> start_;
  std::string last_;
  bool ended_ = false;  // and told so
};

// Starts the operation that `request` asks for, or joins it, and streams it. The operation goes on
// when the caller leaves.
template <typename Response>
grpc::ServerWriteReactor<Response>* StreamOperation(
    Fleet& fleet, ChangeSignal& stopping, const absl::StatusOr<OperationRequest>& request) {
  auto start = std::make_shared<OperationStart>();
  if (request.ok()) {
    fleet.StartOperation(*request, [start](const absl::Status& status) { start->Set(status); });
  } else {
    start->Set(request.status());
  }
  return new WatchStream<Response>(
      OperationSource<Response>(fleet, request.ok() ? request->id : "", start),
      fleet.operation_changes(), stopping);
}

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_OPERATION_STREAM_H_
