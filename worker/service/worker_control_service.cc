#include "worker/service/worker_control_service.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "base/wire_status.h"
#include "base/wire_takeover.h"
#include "base/wire_topology.h"
#include "proto/muster/v1/worker_control.grpc.pb.h"
#include "worker/engine/worker_epochs.h"
#include "worker/service/progress_stream.h"
#include "worker/service/wire_control.h"

namespace muster {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

ServerUnaryReactor* Finish(ServerUnaryReactor* reactor, const absl::Status& status) {
  reactor->Finish(ToGrpc(status));
  return reactor;
}

// More rows than any step has.
constexpr uint32_t kMostRows = 1 << 30;

// A call that has only an outcome.
EpochWatcher FinishWith(ServerUnaryReactor* reactor) {
  return {.on_done = [reactor](const absl::StatusOr<EpochOutcome>& result) {
    Finish(reactor, result.status());
  }};
}

// Measures the device when it is asked to, away from gRPC's threads. Whoever asks meanwhile is
// refused rather than left waiting: a measurement beside another would find half of everything.
class DeviceMeasurement {
 public:
  using OnDone = std::function<void(const absl::StatusOr<DeviceSpeed>&)>;

  explicit DeviceMeasurement(MeasureDevice measure) : measure_(std::move(measure)) {}
  ~DeviceMeasurement() {
    absl::MutexLock lock(&mu_);
    if (thread_.joinable()) thread_.join();
  }

  void Start(OnDone on_done) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    if (running_) {
      return on_done(absl::UnavailableError(
          "this device is being measured for somebody else; try again in a second"));
    }
    // The former one has nothing left to do.
    if (thread_.joinable()) thread_.join();
    running_ = true;
    thread_ = std::thread([this, on_done = std::move(on_done)] {
      const absl::StatusOr<DeviceSpeed> speed = measure_();
      running_ = false;
      on_done(speed);
    });
  }

 private:
  const MeasureDevice measure_;
  std::atomic<bool> running_{false};
  absl::Mutex mu_;
  std::thread thread_ ABSL_GUARDED_BY(mu_);
};

class WorkerControlService final : public v1::WorkerControl::CallbackService {
 public:
  WorkerControlService(const std::string& worker_id, Incarnation incarnation, WorkerEpochs& epochs,
                       muster::MeasureDevice measure)
      : worker_id_(worker_id),
        incarnation_(incarnation),
        epochs_(epochs),
        measurement_(std::move(measure)) {}

  ServerUnaryReactor* Assign(CallbackServerContext* context, const v1::AssignRequest* request,
                             v1::AssignResponse*) override {
    return Finish(context->DefaultReactor(), TakeRank(*request));
  }

  grpc::ServerWriteReactor<v1::LoadResponse>* Load(CallbackServerContext*,
                                                   const v1::LoadRequest* request) override {
    auto [reactor, watcher] = ProgressStream<v1::LoadResponse>::Start();
    Run(EpochCommand::kLoad, FromWire(request->header()), kLongestControlTimeout,
        std::move(watcher));
    return reactor;
  }

  grpc::ServerWriteReactor<v1::WarmupResponse>* Warmup(CallbackServerContext*,
                                                       const v1::WarmupRequest* request) override {
    auto [reactor, watcher] = ProgressStream<v1::WarmupResponse>::Start();
    Run(EpochCommand::kWarmup, FromWire(request->header()),
        TimeoutFromWire(request->timeout(), kLongestControlTimeout), std::move(watcher));
    return reactor;
  }

  grpc::ServerWriteReactor<v1::CaptureResponse>* Capture(
      CallbackServerContext*, const v1::CaptureRequest* request) override {
    auto [reactor, watcher] = ProgressStream<v1::CaptureResponse>::Start();
    Run(EpochCommand::kCapture, FromWire(request->header()),
        TimeoutFromWire(request->timeout(), kLongestControlTimeout), std::move(watcher));
    return reactor;
  }

  grpc::ServerWriteReactor<v1::ActivateResponse>* Activate(
      CallbackServerContext*, const v1::ActivateRequest* request) override {
    auto [reactor, watcher] = ProgressStream<v1::ActivateResponse>::Start();
    // What takes over from nothing waits for nobody.
    absl::StatusOr<absl::Duration> timeout = kLongestControlTimeout;
    if (request->from_epoch() != 0) {
      timeout = TimeoutFromWire(request->timeout(), kLongestControlTimeout);
    }
    Run(EpochCommand::kActivate, FromWire(*request), timeout, std::move(watcher));
    return reactor;
  }

  ServerUnaryReactor* Drain(CallbackServerContext* context, const v1::DrainRequest* request,
                            v1::DrainResponse* response) override {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    Run(EpochCommand::kDrain, FromWire(request->header()),
        TimeoutFromWire(request->timeout(), kLongestControlTimeout),
        {.on_done = [reactor, response](const absl::StatusOr<EpochOutcome>& result) {
          if (result.ok()) response->set_sequences(static_cast<uint32_t>(result->sequences));
          Finish(reactor, result.status());
        }});
    return reactor;
  }

  ServerUnaryReactor* Release(CallbackServerContext* context, const v1::ReleaseRequest* request,
                              v1::ReleaseResponse*) override {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    Run(EpochCommand::kRelease, FromWire(*request), kLongestControlTimeout, FinishWith(reactor));
    return reactor;
  }

  ServerUnaryReactor* GetStatus(CallbackServerContext* context, const v1::GetStatusRequest*,
                                v1::GetStatusResponse* response) override {
    response->set_worker_id(worker_id_);
    response->set_incarnation(incarnation_.value());
    for (const EpochStatus& status : epochs_.Statuses()) ToWire(status, response->add_epochs());
    return Finish(context->DefaultReactor(), absl::OkStatus());
  }

  ServerUnaryReactor* DescribeCache(CallbackServerContext* context,
                                    const v1::DescribeCacheRequest* request,
                                    v1::DescribeCacheResponse* response) override {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    const auto serving = ServingOf(request->header());
    if (!serving.ok()) return Finish(reactor, serving.status());
    (*serving)->engine().Describe(
        [reactor, response, serving = *serving](absl::StatusOr<CacheSummary> summary) {
          if (summary.ok()) {
            summary->block_bytes = static_cast<uint64_t>(serving->captured.block_bytes);
            summary->copy_bytes_per_second = serving->captured.copy_rate;
            ToWire(*summary, response);
          }
          Finish(reactor, summary.status());
        });
    return reactor;
  }

  ServerUnaryReactor* MeasureDevice(CallbackServerContext* context, const v1::MeasureDeviceRequest*,
                                    v1::MeasureDeviceResponse* response) override {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    measurement_.Start([reactor, response](const absl::StatusOr<DeviceSpeed>& speed) {
      if (speed.ok()) {
        response->set_read_bytes_per_second(speed->read_bytes_per_second);
        response->set_matrix_flops_per_second(speed->matrix_flops_per_second);
      }
      Finish(reactor, speed.status());
    });
    return reactor;
  }

 private:
  absl::Status TakeRank(const v1::AssignRequest& request) {
    MUSTER_ASSIGN_OR_RETURN(const EpochCall call, FromWire(request.header()));
    MUSTER_ASSIGN_OR_RETURN(const Topology topology, FromWire(request.topology()));
    // Within the topology or not, it fits an int: what does not is outside all the more.
    const uint32_t most = static_cast<uint32_t>(topology.ranks.size());
    RankOrder order{.topology = topology,
                    .rank = GlobalRank(static_cast<int>(std::min(request.rank(), most))),
                    .reserve_bytes = request.reserve_bytes()};
    for (const uint32_t rows : request.buckets()) {
      order.buckets.push_back(static_cast<int>(std::min(rows, kMostRows)));
    }
    if (request.has_predecessor()) {
      MUSTER_ASSIGN_OR_RETURN(order.predecessor, FromWire(request.predecessor()));
    }
    return epochs_.Assign(call, order);
  }

  // The epoch that the header names, where it serves and is led from here.
  absl::StatusOr<std::shared_ptr<const ServingEpoch>> ServingOf(
      const v1::ControlHeader& header) const {
    MUSTER_ASSIGN_OR_RETURN(const EpochCall call, FromWire(header));
    MUSTER_ASSIGN_OR_RETURN(auto serving, epochs_.Serving());
    const Epoch epoch = serving->engine().queue().epoch();
    if (epoch == call.epoch) return serving;
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("epoch ", call.epoch.value(), " does not serve; epoch ",
                                  epoch.value(), " does"),
                     {.reason = ErrorReason::kStaleEpoch, .epoch = epoch});
  }

  void Run(EpochCommand command, const absl::StatusOr<EpochCall>& call,
           const absl::StatusOr<absl::Duration>& timeout, EpochWatcher watcher) {
    if (!call.ok()) return watcher.on_done(call.status());
    if (!timeout.ok()) return watcher.on_done(timeout.status());
    epochs_.Run(command, *call, *timeout, std::move(watcher));
  }

  const std::string worker_id_;
  const Incarnation incarnation_;
  WorkerEpochs& epochs_;
  DeviceMeasurement measurement_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeWorkerControlService(const std::string& worker_id,
                                                        Incarnation incarnation,
                                                        WorkerEpochs& epochs,
                                                        MeasureDevice measure) {
  return std::make_shared<WorkerControlService>(worker_id, incarnation, epochs, std::move(measure));
}

}  // namespace muster
