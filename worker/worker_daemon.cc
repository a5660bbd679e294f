#include "worker/worker_daemon.h"

#include <atomic>
#include <csignal>
#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/listen_address.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "base/tls_news.h"
#include "base/unix_socket.h"
#include "base/version.h"
#include "worker/advertised_address.h"
#include "worker/service/coordinator_channel.h"
#include "worker/service/grpc_rendezvous.h"
#include "worker/service/inference_service.h"
#include "worker/service/trace_service.h"
#include "worker/service/worker_control_service.h"

namespace muster {
namespace {

// What answers that are on their way may take when the worker stops.
constexpr absl::Duration kGrace = absl::Milliseconds(300);

Incarnation RandomIncarnation() {
  absl::BitGen random;
  return Incarnation(absl::Uniform<uint64_t>(absl::IntervalClosed, random, 1,
                                             std::numeric_limits<uint64_t>::max()));
}

// Of KV blocks, unless the operator says otherwise. A GPU is the ranks' own, up to the fraction
// that they may take; a processor's memory is everybody's.
constexpr uint64_t kCpuKvMemory = uint64_t{512} << 20;
constexpr int kGpuSparePercent = 1;
// New tokens of a step: matrix units want many rows.
constexpr int kGpuMaxRows = 2048;

EpochContext::Options ContextOptions(const WorkerOptions& options, const DeviceReport& device,
                                     std::shared_ptr<EngineCounters> counters,
                                     std::shared_ptr<SpanRing> spans) {
  EpochContext::Options context = {.fusion = options.fusion ? Fusion::kFused : Fusion::kUnfused,
                                   .graphs = options.graphs,
                                   .client_lease = options.client_lease,
                                   .counters = std::move(counters),
                                   .spans = std::move(spans)};
  if (device.kind == "cpu") {
    context.kv_memory = options.kv_memory.value_or(kCpuKvMemory);
  } else {
    context.limits.max_rows = kGpuMaxRows;
    context.kv_memory = options.kv_memory.value_or(device.total_bytes);
    context.spare_percent = kGpuSparePercent;
  }
  return context;
}

// "unix:PATH", or nothing.
std::string LocalAddress(const WorkerOptions& options) {
  return options.unix_socket.empty() ? "" : UnixAddress(options.unix_socket);
}

// What a phase that begins sets off, once: see WorkerOptions::fault.
std::function<void(const Progress&)> FaultOf(const WorkerOptions& options) {
  if (!options.fault.has_value()) return [](const Progress&) {};
  return [fault = *options.fault,
          done = std::make_shared<std::atomic<bool>>(false)](const Progress& progress) {
    if (progress.phase != fault.phase || done->exchange(true)) return;
    // At once: the thread that raises it goes on no further.
    raise(fault.action == Fault::Action::kKill ? SIGKILL : SIGSTOP);
  };
}

absl::Status ExplainRefusal(const absl::Status& status, const std::string& coordinator) {
  if (absl::IsUnimplemented(status)) {
    return absl::UnimplementedError(
        absl::StrCat("what listens at ", coordinator, " is no coordinator of this version"));
  }
  return Annotate(status, absl::StrCat("the coordinator at ", coordinator, " refused this worker"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerDaemon>> WorkerDaemon::Start(
    const WorkerOptions& options, std::shared_ptr<const TlsCredentials> tls, ModelSource model,
    std::unique_ptr<EngineBackend> backend, OnUseless on_useless) {
  auto daemon = absl::WrapUnique(new WorkerDaemon(options, std::move(tls), std::move(model),
                                                  std::move(backend), std::move(on_useless)));
  MUSTER_RETURN_IF_ERROR(daemon->Listen());
  daemon->ObserveHealth();
  MUSTER_RETURN_IF_ERROR(daemon->ListenForAdmin());
  daemon->Enlist();
  return daemon;
}

WorkerDaemon::WorkerDaemon(const WorkerOptions& options, std::shared_ptr<const TlsCredentials> tls,
                           ModelSource model, std::unique_ptr<EngineBackend> backend,
                           OnUseless on_useless)
    : options_(options),
      tls_(std::move(tls)),
      tls_news_(tls_ == nullptr ? nullptr : LogTlsNews(options.tls, tls_->identity())),
      model_(std::move(model)),
      incarnation_(RandomIncarnation()),
      coordinator_(ConnectCoordinator(options.coordinator, tls_.get())),
      backend_(std::move(backend)),
      on_useless_(std::move(on_useless)),
      health_({.stall_timeout = options.stall_timeout}),
      epochs_({.worker_id = options.worker_id,
               .incarnation = incarnation_,
               .context = ContextOptions(options, backend_->device().Report(), counters_, spans_)},
              {.model = model_,
               .backend = *backend_,
               .make_rendezvous =
                   [this](ReplicaIndex replica, Epoch epoch) {
                     return std::make_unique<GrpcRendezvous>(
                         coordinator_, RendezvousCaller{replica, epoch, incarnation_},
                         rendezvous_counters_);
                   },
               .listener = Listener()}) {}

WorkerDaemon::~WorkerDaemon() { Stop(); }

EpochListener WorkerDaemon::Listener() {
  return {.on_progress = FaultOf(options_),
          .on_activated = [this](ReplicaIndex replica,
                                 Epoch epoch) { health_.EpochActivated(replica, epoch); },
          .on_ended =
              [this](ReplicaIndex replica, Epoch epoch) {
                health_.EpochEnded(replica, epoch);
                CheckDevice();
              },
          .on_client_expired =
              [this](ReplicaIndex replica, Epoch epoch, const ClientExpiry& expiry) {
                expiries_.Put({.replica = replica,
                               .epoch = epoch,
                               .client_id = expiry.client_id,
                               .lease = expiry.lease,
                               .sequences = expiry.sequences,
                               .kv_blocks = static_cast<uint64_t>(expiry.kv_blocks)});
              }};
}

void WorkerDaemon::CheckDevice() {
  if (const absl::Status lost = backend_->CheckDevice(); !lost.ok()) BeUseless(lost);
}

void WorkerDaemon::BeUseless(const absl::Status& reason) {
  if (useless_.exchange(true)) return;
  departure_.End();
  on_useless_(reason);
}

absl::Status WorkerDaemon::Listen() {
  MUSTER_ASSIGN_OR_RETURN(const ListenAddress listen, ParseListenAddress(options_.listen));
  MUSTER_ASSIGN_OR_RETURN(
      server_, WorkerServer::Start(
                   listen,
                   {MakeInferenceService(epochs_),
                    MakeWorkerControlService(options_.worker_id, incarnation_, epochs_,
                                             [this] { return backend_->Measure(model_.dtype); }),
                    MakeTraceService(spans_)},
                   options_.unix_socket, tls_.get()));
  health_.Attach(server_->health());
  const std::string local = LocalAddress(options_);
  Logger().Info("listening on ", server_->address().ToString(), local.empty() ? "" : " and ", local,
                " with ", model_.spec.name, " in ", model_.spec.dtype);
  if (tls_ != nullptr) Logger().Info("mutual TLS as ", tls_->identity().ToUri());
  if (tls_ != nullptr || IsLoopback(server_->address())) return absl::OkStatus();
  Logger().Warning("INSECURE: plaintext on ", server_->address().ToString(),
                   ": whoever reaches this port can read and change everything");
  return absl::OkStatus();
}

void WorkerDaemon::Enlist() {
  membership_.emplace(
      coordinator_,
      WorkerProfile{.worker_id = options_.worker_id,
                    .incarnation = incarnation_,
                    .address = AdvertisedAddress(server_->address(), options_.coordinator),
                    .device = backend_->device().Report(),
                    .model = model_.spec,
                    .build = kVersion,
                    .local_address = LocalAddress(options_),
                    .domain = options_.domain},
      MembershipCallbacks{
          .progress = [this] { return epochs_.progress(); },
          .reports = [this] { return epochs_.Reports(); },
          .history = [this] { return epochs_.History(); },
          .serving = [this] { return epochs_.ServingTopologies(); },
          .term = [this] { return epochs_.term(); },
          .take_expiries = [this] { return expiries_.Take(); },
          .leaving = [this] { return departure_.time_left(); },
          .on_welcome =
              [this](Term term) {
                Logger().Info("enlisted at ", options_.coordinator, ", term ", term.value());
                epochs_.NoteTerm(term);
                health_.Enlisted(true);
                departure_.OnEnlisted();
              },
          .on_parted =
              [this] {
                health_.Enlisted(false);
                departure_.OnParted();
              },
          .on_may_leave = [this](const std::string& message) { departure_.OnMayLeave(message); },
          .on_epoch_aborted =
              [this](ReplicaIndex replica, Epoch epoch, const absl::Status& reason) {
                epochs_.Abort(replica, epoch, reason);
              },
          .on_refused =
              [this](const absl::Status& status) {
                BeUseless(ExplainRefusal(status, options_.coordinator));
              }});
}

void WorkerDaemon::Stop() {
  if (membership_.has_value()) membership_->Stop();
  epochs_.Close(MakeError(
      absl::StatusCode::kUnavailable, absl::StrCat("worker ", options_.worker_id, " is ending"),
      {.reason = ErrorReason::kWrongState, .workers = {options_.worker_id}, .retriable = true}));
  if (server_ != nullptr) server_->Stop(kGrace);
}

}  // namespace muster
