#ifndef MUSTER_WORKER_SERVICE_MEMBERSHIP_CLIENT_H_
#define MUSTER_WORKER_SERVICE_MEMBERSHIP_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "base/topology.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace muster {

class EnlistStream;

// What a worker says of itself.
struct WorkerProfile {
  std::string worker_id;
  Incarnation incarnation;
  std::string address;  // "host:port" of its services
  DeviceReport device;
  ModelSpec model;
  std::string build;
  std::string local_address;  // "unix:PATH" of the same services; may be empty
  std::string domain;         // whose workers can open each other's memory
};

// Called on the client's thread, one at a time; heartbeats wait meanwhile, so each returns within
// milliseconds. None may call Stop().
struct MembershipCallbacks {
  // Grows whenever the worker gets on with anything.
  std::function<uint64_t()> progress;
  // Of every epoch that the worker holds.
  std::function<std::vector<EpochReport>()> reports;
  // The same, and of each replica the newest epoch that the worker has known, if it holds it no
  // more: sent when it enlists.
  std::function<std::vector<EpochReport>()> history;
  // Of the epochs that serve, and the highest term seen: sent when it enlists.
  std::function<std::vector<Topology>()> serving = [] { return std::vector<Topology>(); };
  std::function<Term()> term = [] { return Term(); };
  // Clients that lost their sequences since the last call, at most ExpiryOutbox::kMost. They are
  // told to the coordinator once, by the next stream if this one breaks before.
  std::function<std::vector<ExpiryReport>()> take_expiries;
  // How long until this worker ends, once it was asked to.
  std::function<std::optional<absl::Duration>()> leaving = [] {
    return std::optional<absl::Duration>();
  };
  // Enlisted, for the first time or again; a higher term is another coordinator.
  std::function<void(Term)> on_welcome;
  // It is enlisted no more; it goes on trying.
  std::function<void()> on_parted = [] {};
  // The coordinator knows that it is leaving, and that it holds nothing any more; what has become
  // of its rank, for people.
  std::function<void(const std::string&)> on_may_leave = [](const std::string&) {};
  // The coordinator gave the epoch up: end every wait on it.
  std::function<void(ReplicaIndex, Epoch, const absl::Status&)> on_epoch_aborted;
  // Enlisting would never help: ALREADY_EXISTS, INVALID_ARGUMENT, PERMISSION_DENIED or
  // UNAUTHENTICATED (by this worker's certificate), or UNIMPLEMENTED (no coordinator listens
  // there). The last call.
  std::function<void(const absl::Status&)> on_refused;
};

// Keeps this worker enlisted: sends heartbeats at the coordinator's interval whatever the rest of
// the worker does, hands on its notices, and enlists again when it was lost, at least every second,
// for ever. Thread-safe.
class MembershipClient {
 public:
  // Starts at once. What `callbacks` use must live until Stop() has returned.
  MembershipClient(std::shared_ptr<grpc::Channel> coordinator, WorkerProfile profile,
                   MembershipCallbacks callbacks);
  // As Stop().
  ~MembershipClient();
  MembershipClient(const MembershipClient&) = delete;
  MembershipClient& operator=(const MembershipClient&) = delete;

  // Sends a heartbeat now, if it is enlisted.
  void SendHeartbeat() ABSL_LOCKS_EXCLUDED(mu_);

  // Ends the stream, which the coordinator takes as the worker's end. Returns within a second; no
  // callback runs afterwards.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // One stream from start to end, OK when it was ended by Stop; `*welcomed` says whether the
  // coordinator took the worker in.
  absl::Status Enlist(bool* welcomed) ABSL_LOCKS_EXCLUDED(mu_);
  // False when Stop was called before `delay` had passed.
  bool Wait(absl::Duration delay) ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const std::shared_ptr<grpc::Channel> coordinator_;
  const WorkerProfile profile_;
  const MembershipCallbacks callbacks_;

  // The client's thread only.
  std::vector<ExpiryReport> untold_;  // taken, and perhaps not heard

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  EnlistStream* stream_ ABSL_GUARDED_BY(mu_) = nullptr;

  absl::Mutex join_mu_;
  std::thread thread_ ABSL_GUARDED_BY(join_mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_MEMBERSHIP_CLIENT_H_
