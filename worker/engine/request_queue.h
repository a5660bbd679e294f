// What schedulers ask of a leader, on its way to the engine.
#ifndef MUSTER_WORKER_ENGINE_REQUEST_QUEUE_H_
#define MUSTER_WORKER_ENGINE_REQUEST_QUEUE_H_

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/takeover.h"
#include "worker/engine/batch.h"
#include "worker/engine/client_leases.h"
#include "worker/engine/retry_record.h"
#include "worker/engine/sequence_table.h"

namespace muster {

using ForwardAnswer = absl::StatusOr<std::shared_ptr<const ForwardResult>>;

// One caller of a Forward. Both are called on any thread and must not call the queue.
struct ForwardCall {
  // Exactly once.
  std::function<void(const ForwardAnswer&)> done;
  // OK as long as the caller waits; or why it does not any more. Not called after `done`.
  std::function<absl::Status()> still_wanted = [] { return absl::OkStatus(); };
};

// Sequences of a client that are to be given back.
struct FreeOrder {
  std::string client_id;
  std::vector<std::string> sequence_ids;
  bool all = false;  // instead of a list
  std::optional<Epoch> expected_epoch;
};

// Requests of one replica, in the order in which they came, and what is known of those who make
// them: answers for retries, and leases. Thread-safe; Next and Answer belong to the thread that
// runs the steps.
class RequestQueue {
 public:
  struct Options {
    Epoch epoch;  // that serves at first
    int max_waiting = 256;
    absl::Duration client_lease = absl::Minutes(10);
    RetryRecord::Limits retries;
    const Clock* clock = &Clock::Real();
  };
  template <typename Result>
  using Done = std::function<void(const absl::StatusOr<Result>&)>;

  struct Forward {
    ForwardBatch batch;
    uint64_t body = 0;  // digest; only where the request has an id
    absl::Time arrived;
    std::vector<ForwardCall> calls;  // the first, and retries that came meanwhile; under the lock
  };
  struct Free {
    FreeOrder order;
    Done<int> done;  // how many were held
  };
  struct Fork {
    ForkOrder order;
    Done<Forked> done;
  };
  struct Describe {
    Done<CacheSummary> done;
  };
  // Clients whose lease is over.
  struct Expired {
    std::vector<std::string> clients;
  };
  // Somebody has something else to do there.
  struct Interruption {};
  using Work = std::variant<std::shared_ptr<Forward>, Free, Fork, Describe, Expired, Interruption>;

  explicit RequestQueue(const Options& options)
      : options_(options),
        leases_(options.client_lease),
        record_(options.retries),
        epoch_(options.epoch) {}

  // Queues a request that is well formed, or answers it at once: with a refusal, or as before where
  // it is a retry. A retry of one that is on its way waits for the same answer. Every call renews
  // the client's lease. FAILED_PRECONDITION (STALE_EPOCH), INVALID_ARGUMENT (REQUEST_ID_REUSED),
  // RESOURCE_EXHAUSTED (QUEUE_FULL), UNAVAILABLE (not open); the reason of Stop.
  void Push(ForwardBatch batch, ForwardCall call) ABSL_LOCKS_EXCLUDED(mu_);
  void Push(FreeOrder order, Done<int> done) ABSL_LOCKS_EXCLUDED(mu_);
  void Push(ForkOrder order, Done<Forked> done) ABSL_LOCKS_EXCLUDED(mu_);
  void Push(Done<CacheSummary> done) ABSL_LOCKS_EXCLUDED(mu_);

  // A sign of life, which is nothing from somebody who never had a request; and one that lasts
  // until LetGo.
  void Renew(const std::string& client) ABSL_LOCKS_EXCLUDED(mu_);
  void Hold(const std::string& client) ABSL_LOCKS_EXCLUDED(mu_);
  void LetGo(const std::string& client) ABSL_LOCKS_EXCLUDED(mu_);

  // Next returns an Interruption before all other work, once.
  void Interrupt() ABSL_LOCKS_EXCLUDED(mu_);

  // The next piece of work: waits for one. The reason of Stop.
  absl::StatusOr<Work> Next() ABSL_LOCKS_EXCLUDED(mu_);
  // OK unless all callers have given up: the reason of the first. It must then not be run, and who
  // asks again makes a new request.
  absl::Status StillWanted(const Forward& request) ABSL_LOCKS_EXCLUDED(mu_);
  // Answers all callers; results are kept for retries.
  void Answer(const Forward& request, const ForwardAnswer& answer) ABSL_LOCKS_EXCLUDED(mu_);
  void Answer(const Free& request, const absl::StatusOr<int>& freed) ABSL_LOCKS_EXCLUDED(mu_);
  void Answer(const Fork& request, const absl::StatusOr<Forked>& forked) ABSL_LOCKS_EXCLUDED(mu_);
  void Answer(const Describe& request, const absl::StatusOr<CacheSummary>& summary)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Another epoch serves from now on: who expects this one, waiting or to come, is refused.
  void Serve(Epoch epoch) ABSL_LOCKS_EXCLUDED(mu_);
  Epoch epoch() const ABSL_LOCKS_EXCLUDED(mu_);

  // Lets requests in.
  void Open() ABSL_LOCKS_EXCLUDED(mu_);
  // Lets none in any more, and waits until those in flight are answered. DEADLINE_EXCEEDED.
  absl::Status Drain(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);
  // Answers all that wait, and all that come later, with `reason`. The first reason stays, and is
  // returned.
  absl::Status Stop(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);

  // OK until Stop: its reason.
  absl::Status stopped() const ABSL_LOCKS_EXCLUDED(mu_);
  int waiting() const ABSL_LOCKS_EXCLUDED(mu_);
  // The same, and the one that runs.
  int in_flight() const ABSL_LOCKS_EXCLUDED(mu_);
  // Clients that have a lease.
  int clients() const ABSL_LOCKS_EXCLUDED(mu_);
  const Options& options() const { return options_; }

 private:
  // No retry joins it any more.
  void Forget(const Forward& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // OK, or why nothing is let in.
  absl::Status CheckEpoch(std::optional<Epoch> expected) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckOpen() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Stale(Epoch expected) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes those out of the queue that expect an epoch which does not serve.
  std::vector<Work> TakeStale() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Refuse(std::vector<Work> waiting, const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mu_);
  // The answer when there is one at once; none when the request is queued or has joined another,
  // and `call` is taken.
  std::optional<ForwardAnswer> Admit(ForwardBatch& batch, uint64_t body, ForwardCall& call)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The same for a request that names itself, where it is known already.
  std::optional<ForwardAnswer> Recognise(const ForwardBatch& batch, uint64_t body,
                                         ForwardCall& call, bool& joined)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  template <typename Request, typename Order, typename Result>
  void PushOrder(Order order, Done<Result> done) ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  const Options options_;

  mutable absl::Mutex mu_;
  std::deque<Work> queue_ ABSL_GUARDED_BY(mu_);
  ClientLeases leases_ ABSL_GUARDED_BY(mu_);
  RetryRecord record_ ABSL_GUARDED_BY(mu_);
  // Of requests that name themselves, until they are answered: by client and request id.
  absl::flat_hash_map<std::pair<std::string, std::string>, std::shared_ptr<Forward>> in_flight_
      ABSL_GUARDED_BY(mu_);
  Epoch epoch_ ABSL_GUARDED_BY(mu_);
  bool interrupted_ ABSL_GUARDED_BY(mu_) = false;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
  bool busy_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status stopped_ ABSL_GUARDED_BY(mu_);

  // Whether Next would find something, for those who look without the lock.
  std::atomic<bool> ready_{false};
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_REQUEST_QUEUE_H_
