#ifndef MUSTER_COORDINATOR_SERVICE_PHASE_STREAM_H_
#define MUSTER_COORDINATOR_SERVICE_PHASE_STREAM_H_

#include <grpcpp/support/client_callback.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "base/wire_takeover.h"
#include "base/wire_topology.h"
#include "coordinator/service/worker_call.h"
#include "coordinator/worker_client.h"
#include "proto/muster/v1/worker_control.pb.h"

namespace muster {

// What each phase's result says. INVALID_ARGUMENT names the field, its value and the limit.
absl::StatusOr<PhaseResult> ResultFromWire(const v1::LoadResult& wire);
absl::StatusOr<PhaseResult> ResultFromWire(const v1::WarmupResult& wire);
absl::StatusOr<PhaseResult> ResultFromWire(const v1::CaptureResult& wire);
absl::StatusOr<PhaseResult> ResultFromWire(const v1::ActivateResult& wire);

// A call that streams its progress, then its result: Load, Warmup, Capture or Activate.
// Deletes itself at its end, after `on_done` has run.
template <typename Request, typename Response>
class PhaseStream : public grpc::ClientReadReactor<Response> {
 public:
  // How the call ended, and, when that is OK, its result or what is wrong with it.
  using OnDoneCall = std::function<void(const grpc::Status&, absl::StatusOr<PhaseResult>)>;

  PhaseStream(std::unique_ptr<WorkerCall> call, Request request,
              WorkerClient::OnProgress on_progress, OnDoneCall on_done)
      : call_(std::move(call)),
        request_(std::move(request)),
        on_progress_(std::move(on_progress)),
        on_done_(std::move(on_done)) {}

  // `method` is that of `control` which starts the call.
  template <typename Control, typename Method>
  void Start(Control* control, Method method) {
    (control->*method)(call_->context(), &request_, this);
    this->StartRead(&response_);
    this->StartCall();
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (absl::Status status = Take(); !status.ok()) {
      result_ = status;
      malformed_ = true;
      call_->context()->TryCancel();
      return;
    }
    this->StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    on_done_(malformed_ ? grpc::Status::OK : status, std::move(result_));
    delete this;
  }

  absl::Status Take() {
    if (response_.has_progress()) {
      MUSTER_ASSIGN_OR_RETURN(const Progress progress, FromWire(response_.progress()));
      on_progress_(progress);
    } else if (response_.has_result()) {
      result_ = ResultFromWire(response_.result());
      return result_.status();
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<WorkerCall> call_;
  const Request request_;
  const WorkerClient::OnProgress on_progress_;
  const OnDoneCall on_done_;

  // One callback at a time.
  Response response_;
  bool malformed_ = false;  // and cancelled by this side
  absl::StatusOr<PhaseResult> result_ = absl::InternalError("it ended without a result");
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_PHASE_STREAM_H_
