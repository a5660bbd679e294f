// Workers that were asked to end, and what becomes of their ranks first.
#ifndef MUSTER_COORDINATOR_DEPARTURES_H_
#define MUSTER_COORDINATOR_DEPARTURES_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/operations.h"
#include "coordinator/replica.h"

namespace muster {

// The fleet, as departures change it. Called under the owner's lock.
class DepartureHost {
 public:
  virtual ~DepartureHost() = default;
  virtual std::vector<Replica*> Replicas() = 0;
  // Whether it has a rank, or has yet to give back what it holds of one.
  virtual bool Occupied(const std::string& worker_id) = 0;
  // From now on the worker gets no rank until its process is started again.
  virtual void SetDrained(const Candidate& worker) = 0;
  // The replica is to be formed again without those that leave: with a smaller cp where they are
  // missed.
  virtual void FitShape(Replica& replica) = 0;
};

// A worker that leaves gets no rank any more. The rank that it has is drained, as an operator would
// have it: a standby takes it, or cp shrinks. A change of shape that counts on the worker is rolled
// back first; one that takes effect already, or leaves it out, is waited for. Where that cannot be,
// since the worker leads, nobody fits, or time runs out, the epoch ends in order and the replica is
// formed again. Once the worker holds nothing it is told so. Not thread-safe: its owner holds one
// lock over every call and over what `deliver` runs.
class Departures {
 public:
  // What a worker that is gone was.
  enum class Stage { kStayed, kLeaving, kLeft };

  // All outlive this.
  Departures(Operations& operations, const Formation::Ports& ports, DepartureHost& host)
      : operations_(operations), ports_(ports), host_(host) {}

  // The worker ends in `time_left` at the latest. Nothing new for one that leaves already.
  void Begin(const Candidate& worker, absl::Duration time_left);
  // That process is gone.
  Stage Forget(const std::string& worker_id, Incarnation incarnation);
  // Goes on as far as the fleet has got; to be called after every change of it.
  void Advance();

 private:
  struct Departure {
    Candidate worker;
    absl::Time deadline;  // when what is in flight must be answered
    absl::Time latest;    // of handing the rank over
    int attempts = 0;
    std::string operation_id;  // of the newest attempt
    bool starting = false;     // whether that has begun is to be told
    absl::Status refusal;      // why nobody can take the rank over
    std::string outcome;       // what became of the rank
    bool told = false;
  };

  bool Late(const Departure& departure) const { return ports_.clock.Now() >= departure.latest; }
  void Emit(const Departure& departure);
  // The replica in which the worker has a rank now; null when there is none.
  Replica* ReplicaOf(const Departure& departure);
  void Advance(Departure& departure, Replica& replica);
  void StartDrain(Departure& departure);
  void TakeStart(const std::string& operation_id, const absl::Status& started);
  void EndEpoch(Departure& departure, Replica& replica);
  // Why the rank goes to nobody, in words; empty when it can.
  std::string Obstacle(const Departure& departure, const Replica& replica) const;
  bool Leaves(const RankPlacement& rank) const;
  void LetGo(Departure& departure);

  Operations& operations_;
  const Formation::Ports& ports_;
  DepartureHost& host_;
  std::map<std::string, Departure> departures_;  // by worker id
};

}  // namespace muster

#endif  // MUSTER_COORDINATOR_DEPARTURES_H_
