// A coordinator for tests of the worker's side: real gRPC, and answers that the test chooses.
#ifndef MUSTER_WORKER_SERVICE_FAKE_COORDINATOR_H_
#define MUSTER_WORKER_SERVICE_FAKE_COORDINATOR_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/muster/v1/membership.grpc.pb.h"
#include "proto/muster/v1/rendezvous.grpc.pb.h"

namespace muster {

// Holds every AllGather until the test answers it. Thread-safe.
class FakeRendezvous : public v1::Rendezvous::CallbackService {
 public:
  ~FakeRendezvous() override;

  grpc::ServerUnaryReactor* AllGather(grpc::CallbackServerContext* context,
                                      const v1::AllGatherRequest* request,
                                      v1::AllGatherResponse* response) override;

  // The first `count` requests, waiting until they are there.
  std::vector<v1::AllGatherRequest> AwaitRequests(size_t count);
  // Answers all that wait: each with the values of all, in group rank order.
  void Complete();
  // Answers all that wait, and all that come later, with `status`.
  void FailAll(const absl::Status& status);

 private:
  struct Call {
    grpc::ServerUnaryReactor* reactor;
    v1::AllGatherResponse* response;
  };

  absl::Mutex mu_;
  std::vector<v1::AllGatherRequest> requests_ ABSL_GUARDED_BY(mu_);
  std::vector<Call> waiting_ ABSL_GUARDED_BY(mu_);
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
};

// Welcomes every worker with `term` and a heartbeat interval of a millisecond, unless told to
// refuse. Thread-safe.
class FakeMembership : public v1::Membership::Service {
 public:
  explicit FakeMembership(uint64_t term = 1) : term_(term) {}

  grpc::Status Enlist(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::EnlistResponse, v1::EnlistRequest>* stream) override;

  void Refuse(const absl::Status& status);
  // Of heartbeats of workers that enlist from now on.
  void SetInterval(absl::Duration interval);
  // The enlistment that came last, waiting for the first.
  v1::Enlistment AwaitEnlistment();
  // The heartbeat that came last, waiting until there are `count`.
  v1::Heartbeat AwaitHeartbeats(int count);
  // The clients that were told to have lost their sequences, in all heartbeats, waiting until
  // there are `count`.
  std::vector<std::string> AwaitExpiries(size_t count);
  // Reads nothing of the next stream after its welcome, until Interrupt ends it with UNAVAILABLE.
  void HoldNextStream();
  void Interrupt();
  // To the worker that is enlisted.
  void Send(const v1::EnlistResponse& notice);
  // Waits until a worker's stream has ended.
  void AwaitEnd();

 private:
  const uint64_t term_;

  absl::Mutex mu_;
  absl::Status refusal_ ABSL_GUARDED_BY(mu_);
  absl::Duration interval_ ABSL_GUARDED_BY(mu_) = absl::Milliseconds(1);
  grpc::ServerReaderWriter<v1::EnlistResponse, v1::EnlistRequest>* stream_ ABSL_GUARDED_BY(mu_) =
      nullptr;
  std::vector<v1::Enlistment> enlistments_ ABSL_GUARDED_BY(mu_);
  v1::Heartbeat heartbeat_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> expired_ ABSL_GUARDED_BY(mu_);
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  int heartbeats_ ABSL_GUARDED_BY(mu_) = 0;
  int ended_ ABSL_GUARDED_BY(mu_) = 0;
};

// A server of `service` on a loopback port, until it is destroyed.
class FakeServer {
 public:
  // Port 0: any free one.
  explicit FakeServer(grpc::Service& service, int port = 0);
  ~FakeServer();

  int port() const { return port_; }
  std::string address() const;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_FAKE_COORDINATOR_H_
