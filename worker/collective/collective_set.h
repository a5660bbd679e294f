#ifndef MUSTER_WORKER_COLLECTIVE_COLLECTIVE_SET_H_
#define MUSTER_WORKER_COLLECTIVE_COLLECTIVE_SET_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/collective/collective_backend.h"
#include "worker/collective/collective_tally.h"
#include "worker/collective/group.h"
#include "worker/collective/rendezvous.h"
#include "worker/collective/workspace_plan.h"
#include "worker/device/device.h"

namespace muster {

// How the collectives of a group run.
struct FusionReport {
  GroupKind kind;
  int ranks = 0;
  bool fused = false;   // all-reduce, residual and norm are one operation, as is the CP combine
  std::string why_not;  // "single_rank", "flag" or "nccl"; empty when fused
};

// All that one rank of one epoch computes collectively with: built together with its peers in
// Warmup, sealed from then on. Two sets, of two epochs, live in one process without touching each
// other. The destructor waits for nobody.
class CollectiveSet {
 public:
  struct Options {
    Fusion fusion = Fusion::kFused;
    // Called as each phase begins, on the thread of Warmup: "warmup/probe", "warmup/vote",
    // "warmup/allocate", "warmup/exchange", "warmup/open", "warmup/barrier", "warmup/self-test",
    // "warmup/acknowledge".
    std::function<void(absl::string_view phase)> on_phase = [](absl::string_view) {};
    // Runs what computes on the devices of all ranks, on the thread of Warmup and at the same point
    // on all ranks: for a set that is built beside another one that serves.
    std::function<absl::Status(absl::FunctionRef<absl::Status()>)> exclusively =
        [](absl::FunctionRef<absl::Status()> run) { return run(); };
  };

  // `groups`: of this rank, at most one of a kind; the first has all ranks of the others. All
  // references outlive the set.
  CollectiveSet(std::vector<Group> groups, CollectiveBackend& backend, Device& device,
                Rendezvous& rendezvous, Ledger& ledger, Options options);
  ~CollectiveSet();

  // Once, on all ranks of the first group together, with the same uses. One rank's failure fails
  // all at once, with each rank's numbers; nothing is then kept. RESOURCE_EXHAUSTED, UNAVAILABLE
  // (memory of a peer cannot be opened), FAILED_PRECONDITION (sealed already; ranks disagree),
  // INTERNAL (self-test), and the errors of Rendezvous and Communicator.
  absl::Status Warmup(const std::vector<CollectiveUse>& uses, absl::Duration timeout);
  bool sealed() const { return sealed_; }

  // What Warmup built, owned by the set. FAILED_PRECONDITION when there is no such group or Warmup
  // has not succeeded: nothing is made here. The groups of equal ranks share one sequence.
  absl::StatusOr<Workspace*> workspace(GroupKind kind) const;
  absl::StatusOr<Communicator*> communicator(GroupKind kind) const;

  // Of all that its workspaces and communicators enqueued.
  const CollectiveTally& tally() const { return tally_; }
  // By group, once sealed.
  std::vector<FusionReport> fusion() const;

  // Over the layouts of all workspaces that this rank shares, for the agreement of ranks; equal on
  // the ranks of the first group. 0 until sealed.
  uint64_t layout_digest() const { return layout_digest_; }

  // Fails the collectives of all ranks, now and later, Warmup's among them. Any thread.
  void Abort(const absl::Status& reason);

  // As the destructor, but that Abort may still come. Nothing that was built may be in use.
  void GiveBack();

 private:
  struct Member {  // the use of an endpoint by one kind of group
    Group group;
    size_t endpoint;  // index of plans_ and endpoints_
    std::unique_ptr<Workspace> workspace;
    std::unique_ptr<Communicator> communicator;
  };

  absl::Status RunPhases(const std::vector<CollectiveUse>& uses);
  absl::Status Probe();
  absl::Status Vote(const absl::Status& probed);
  void MakeMembers();
  absl::Status ExchangeAndOpen();
  // `lists`: of every rank of the first group, its handles by endpoint.
  absl::Status Open(const std::vector<std::string>& lists);
  absl::Status SelfTest(const std::vector<CollectiveUse>& uses);
  // What of it runs on the devices; the bytes from which each endpoint reduces in two shots.
  absl::StatusOr<std::vector<uint64_t>> TestAndMeasure(const std::vector<CollectiveUse>& uses);
  absl::StatusOr<std::vector<uint64_t>> TestAndMeasure(const std::vector<CollectiveUse>& uses,
                                                       Stream& stream);
  absl::Status AgreeOnTwoShotBytes(const std::vector<uint64_t>& measured);
  absl::Status Acknowledge();

  void EnterPhase(absl::string_view phase);
  // Tells the other ranks of a failure that only this one knows of.
  absl::Status FailOthers(const absl::Status& status);
  // Every rank of the first group contributes `value` for the current phase.
  absl::StatusOr<std::vector<std::string>> Gather(absl::string_view value);
  // Of lists gathered with one entry per endpoint: the entries of the ranks of endpoint `index`.
  absl::StatusOr<std::vector<std::string>> EntriesOf(size_t index,
                                                     const std::vector<std::string>& lists) const;
  const Group& GroupOf(size_t endpoint) const;
  CollectiveEndpoint& Endpoint(size_t index) const;

  // Constant after construction.
  const std::vector<Group> groups_;
  CollectiveBackend& backend_;
  Device& device_;
  Rendezvous& rendezvous_;
  Ledger& ledger_;
  const Options options_;

  // Thread of Warmup only; constant once sealed.
  bool started_ = false;
  bool sealed_ = false;
  std::string phase_;
  absl::Time deadline_;
  uint64_t layout_digest_ = 0;
  std::vector<WorkspacePlan> plans_;

  CollectiveTally tally_;  // of the thread that enqueues

  mutable absl::Mutex mu_;
  absl::Status aborted_ ABSL_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<CollectiveEndpoint>> endpoints_ ABSL_GUARDED_BY(mu_);
  std::vector<Member> members_;  // as plans_; after endpoints_, which it uses
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_COLLECTIVE_SET_H_
