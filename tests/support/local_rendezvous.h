// The meeting place of ranks that live in one process, and what can go wrong with one.
#ifndef MUSTER_TESTS_SUPPORT_LOCAL_RENDEZVOUS_H_
#define MUSTER_TESTS_SUPPORT_LOCAL_RENDEZVOUS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "worker/collective/rendezvous.h"

namespace muster::testing {

// Where the ranks of any number of epochs meet; epochs know nothing of each other. Thread-safe.
class LocalRendezvousBoard {
 public:
  LocalRendezvousBoard() = default;
  LocalRendezvousBoard(const LocalRendezvousBoard&) = delete;
  LocalRendezvousBoard& operator=(const LocalRendezvousBoard&) = delete;

  // As a coordinator that finds the rank's stream broken: UNAVAILABLE for whoever waits or will
  // wait in an epoch. `why` follows "rank 2 is lost: ".
  void Lose(GlobalRank rank, absl::string_view why);

 private:
  friend class LocalRendezvous;

  // One key of one group.
  struct Gather {
    std::map<GlobalRank, std::string> values;
    absl::Status failure;  // of a member whose patience ended: nobody completes it any more
  };
  struct EpochState {
    absl::Status failure;
    std::map<std::pair<GroupId, std::string>, Gather> gathers;
  };
  struct Arrival {
    Epoch epoch;
    const Group& group;
    absl::string_view key;
    absl::string_view value;
    absl::Duration timeout;
    const absl::Status& cancelled;  // of this rank, guarded by mu_
  };

  absl::StatusOr<std::vector<std::string>> AllGather(const Arrival& arrival);
  void Fail(Epoch epoch, const absl::Status& reason);

  // Why nobody may meet there any more.
  absl::Status FailureOf(const EpochState& state) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Await(const Arrival& arrival, const EpochState& state, Gather& gather)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  absl::CondVar changed_;
  std::map<Epoch, EpochState> epochs_ ABSL_GUARDED_BY(mu_);
  absl::Status lost_ ABSL_GUARDED_BY(mu_);
};

// One rank's side of one epoch. Errors name the key, the group and the ranks: "all-gather 'handles'
// of CP[1,3]: rank 3 is missing after 1s". `board` outlives it.
class LocalRendezvous final : public Rendezvous {
 public:
  LocalRendezvous(LocalRendezvousBoard& board, Epoch epoch) : board_(board), epoch_(epoch) {}

  // ALREADY_EXISTS when this rank has used the key before.
  absl::StatusOr<std::vector<std::string>> AllGather(const Group& group, absl::string_view key,
                                                     absl::string_view value,
                                                     absl::Duration timeout) override;
  void Fail(const Group& group, const absl::Status& reason) override;
  void Cancel(const absl::Status& reason) override;

 private:
  LocalRendezvousBoard& board_;
  const Epoch epoch_;
  absl::Status cancelled_ ABSL_GUARDED_BY(board_.mu_);
};

// Another rendezvous, with one fault. `inner` outlives it. Thread-safe.
class FaultyRendezvous final : public Rendezvous {
 public:
  enum class Fault {
    kFails,         // the call returns `status` at once; the rank does not arrive
    kNeverArrives,  // the call waits as long as any other; the rank does not arrive
    kLosesAnswer,   // the rank arrives, but gets `status` instead of the values
    kAlters,        // the rank arrives with `value` instead of its own
  };
  struct Plan {
    Fault fault = Fault::kFails;
    std::string key;  // that is hit; empty: any
    int call = 1;     // that is hit, counted from 1 over the calls with `key`
    absl::Status status = absl::InternalError("injected fault");
    std::string value;
  };

  FaultyRendezvous(Rendezvous& inner, Plan plan) : inner_(inner), plan_(std::move(plan)) {}

  absl::StatusOr<std::vector<std::string>> AllGather(const Group& group, absl::string_view key,
                                                     absl::string_view value,
                                                     absl::Duration timeout) override;
  void Fail(const Group& group, const absl::Status& reason) override { inner_.Fail(group, reason); }
  void Cancel(const absl::Status& reason) override { inner_.Cancel(reason); }

 private:
  bool Hits(absl::string_view key);

  Rendezvous& inner_;
  const Plan plan_;
  absl::Mutex mu_;
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace muster::testing

#endif  // MUSTER_TESTS_SUPPORT_LOCAL_RENDEZVOUS_H_
