// A coordinator on a loopback port, for the tests of its services.
#ifndef MUSTER_COORDINATOR_SERVICE_SERVICE_TEST_SUPPORT_H_
#define MUSTER_COORDINATOR_SERVICE_SERVICE_TEST_SUPPORT_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "base/wire_status.h"
#include "base/wire_topology.h"
#include "coordinator/service/coordinator_server.h"
#include "coordinator/test_fleet.h"
#include "proto/muster/v1/membership.grpc.pb.h"

namespace muster {

// Whether `happens` becomes true; a test that fails waits half a minute.
template <typename Happens>
bool Eventually(const Happens& happens) {
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (!happens()) {
    if (absl::Now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

inline std::shared_ptr<grpc::Channel> ConnectTo(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// Workers enlist through `fleet`, or over the wire.
struct ServedFleet {
  explicit ServedFleet(const ParallelConfig& config) : fleet(config) {
    server = CoordinatorServer::Start({.listen = {.host = "127.0.0.1", .port = 0},
                                       .heartbeat_interval = absl::Milliseconds(300)},
                                      fleet.coordinator())
                 .value();
    channel = ConnectTo(server->address().ToString());
  }

  TestFleet fleet;
  std::unique_ptr<CoordinatorServer> server;
  std::shared_ptr<grpc::Channel> channel;
};

// A worker's side of one Enlist call.
class EnlistedWorker {
 public:
  EnlistedWorker(const std::shared_ptr<grpc::Channel>& coordinator,
                 const v1::Enlistment& enlistment)
      : stub_(v1::Membership::NewStub(coordinator)), stream_(stub_->Enlist(&context_)) {
    v1::EnlistRequest request;
    *request.mutable_enlistment() = enlistment;
    stream_->Write(request);
  }
  ~EnlistedWorker() { context_.TryCancel(); }

  // The next message; an empty one when there is none.
  v1::EnlistResponse Read() {
    v1::EnlistResponse response;
    if (!stream_->Read(&response)) response.Clear();
    return response;
  }
  bool Heartbeat(const v1::Heartbeat& heartbeat) {
    v1::EnlistRequest request;
    *request.mutable_heartbeat() = heartbeat;
    return Write(request);
  }
  bool Write(const v1::EnlistRequest& request) { return stream_->Write(request); }
  void Leave() { stream_->WritesDone(); }
  void Cancel() { context_.TryCancel(); }
  // How the call ended.
  absl::Status End() { return FromGrpc(stream_->Finish()); }

 private:
  grpc::ClientContext context_;
  const std::unique_ptr<v1::Membership::Stub> stub_;
  const std::unique_ptr<grpc::ClientReaderWriter<v1::EnlistRequest, v1::EnlistResponse>> stream_;
};

inline v1::Enlistment EnlistmentOf(const WorkerInfo& worker) {
  v1::Enlistment wire;
  wire.set_worker_id(worker.worker_id);
  wire.set_incarnation(worker.incarnation.value());
  wire.set_address(worker.address);
  *wire.mutable_device() = ToWire(worker.device);
  *wire.mutable_model() = ToWire(worker.model);
  wire.set_build(worker.build);
  return wire;
}

}  // namespace muster

#endif  // MUSTER_COORDINATOR_SERVICE_SERVICE_TEST_SUPPORT_H_
