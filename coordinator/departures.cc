#include "coordinator/departures.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/error.h"
#include "base/text.h"

namespace muster {
namespace {

// Of the time that a worker has, what handing its rank over may take.
constexpr double kShareOfHandover = 0.8;
// An attempt fails by other workers, of which there may be more.
constexpr int kMostAttempts = 3;
// The worker hears that it may leave before its own time is over.
constexpr double kShareOfFarewell = 0.1;
constexpr absl::Duration kLongestFarewell = absl::Milliseconds(500);
constexpr absl::Duration kShortestDrain = absl::Milliseconds(1);

absl::Status Ending(const RankPlacement& rank, Epoch epoch, const std::string& obstacle) {
  return MakeError(
      absl::StatusCode::kUnavailable,
      absl::StrCat(NamedRank(rank), " is ending", obstacle.empty() ? "" : " and ", obstacle),
      {.reason = ErrorReason::kWrongState,
       .epoch = epoch,
       .ranks = {rank.rank},
       .workers = {rank.worker_id},
       .retriable = true});
}

}  // namespace

void Departures::Begin(const Candidate& worker, absl::Duration time_left) {
  const auto known = departures_.find(worker.worker_id);
  if (known != departures_.end() && known->second.worker.incarnation == worker.incarnation) return;
  host_.SetDrained(worker);
  const absl::Time now = ports_.clock.Now();
  Departure& departure = departures_[worker.worker_id];
  const absl::Duration farewell = std::min(kLongestFarewell, time_left * kShareOfFarewell);
  departure = {.worker = worker,
               .deadline = now + time_left - farewell,
               .latest = now + time_left * kShareOfHandover};
  Emit(departure);
}

void Departures::Emit(const Departure& departure) {
  const std::string& id = departure.worker.worker_id;
  Event event{.kind = EventKind::kWorkerLeaving,
              .worker_id = id,
              .message = absl::StrCat("worker ", id, " is leaving")};
  if (Replica* replica = ReplicaOf(departure); replica != nullptr) {
    const Replica::Place place = *replica->PlaceOf(id, departure.worker.incarnation);
    event.replica = replica->status().replica;
    event.epoch = place.epoch;
    event.rank = place.rank;
    event.phase = place.phase;
    absl::StrAppend(&event.message, " and hands rank ", place.rank.value(), " (", place.phase,
                    ") over");
  }
  ports_.events.Append(std::move(event));
}

Departures::Stage Departures::Forget(const std::string& worker_id, Incarnation incarnation) {
  const auto found = departures_.find(worker_id);
  if (found == departures_.end() || found->second.worker.incarnation != incarnation) {
    return Stage::kStayed;
  }
  const bool told = found->second.told;
  departures_.erase(found);
  return told ? Stage::kLeft : Stage::kLeaving;
}

void Departures::Advance() {
  for (auto& [id, departure] : departures_) {
    if (departure.told || departure.starting) continue;
    if (!host_.Occupied(id)) {
      LetGo(departure);
    } else if (Replica* replica = ReplicaOf(departure); replica != nullptr) {
      Advance(departure, *replica);
    }
  }
}

Replica* Departures::ReplicaOf(const Departure& departure) {
  const Candidate& worker = departure.worker;
  for (Replica* replica : host_.Replicas()) {
    const auto place = replica->PlaceOf(worker.worker_id, worker.incarnation);
    if (place.has_value() && !place->phase.empty()) return replica;
  }
  return nullptr;
}

void Departures::Advance(Departure& departure, Replica& replica) {
  const ReplicaState state = replica.status().state;
  if (state == ReplicaState::kForming) return EndEpoch(departure, replica);
  if (state != ReplicaState::kServing || replica.ending()) return;
  if (replica.PreparesNext()) {
    if (!Late(departure) && !replica.Prepares(departure.worker.worker_id)) return;
    const absl::Status why =
        MakeError(absl::StatusCode::kUnavailable,
                  absl::StrCat("worker ", departure.worker.worker_id, " is ending"),
                  {.reason = ErrorReason::kWrongState, .workers = {departure.worker.worker_id}});
    // What takes effect already is waited for.
    return replica.CancelResize(why).IgnoreError();
  }
  if (!Obstacle(departure, replica).empty()) return EndEpoch(departure, replica);
  if (!replica.Resizing() && !operations_.busy()) StartDrain(departure);
}

std::string Departures::Obstacle(const Departure& departure, const Replica& replica) const {
  const Topology& topology = *replica.status().topology;
  if (topology.ranks.front().worker_id == departure.worker.worker_id) return "leads the epoch";
  if (Leaves(topology.ranks.front())) return "so is the leader";
  if (!departure.refusal.ok()) {
    return absl::StrCat("nobody can take over: ", departure.refusal.message());
  }
  if (departure.attempts == kMostAttempts) {
    return absl::StrCat(kMostAttempts, " attempts to hand over have failed");
  }
  return Late(departure) ? "was not handed over in time" : "";
}

bool Departures::Leaves(const RankPlacement& rank) const {
  const auto found = departures_.find(rank.worker_id);
  return found != departures_.end() && found->second.worker.incarnation == rank.incarnation;
}

void Departures::StartDrain(Departure& departure) {
  const Candidate& worker = departure.worker;
  ++departure.attempts;
  departure.starting = true;
  departure.operation_id = absl::StrFormat("leave-%s-%x-%d", worker.worker_id,
                                           worker.incarnation.value(), departure.attempts);
  operations_.Start(
      {.id = departure.operation_id,
       .kind = OperationKind::kDrainWorker,
       .worker_id = worker.worker_id,
       .timeout = departure.latest - ports_.clock.Now()},
      [this, ports = &ports_, id = departure.operation_id](const absl::Status& started) {
        ports->deliver([&] { TakeStart(id, started); });
      });
}

void Departures::TakeStart(const std::string& operation_id, const absl::Status& started) {
  for (auto& [id, departure] : departures_) {
    if (departure.operation_id != operation_id) continue;
    departure.starting = false;
    if (started.ok()) continue;
    if (DetailOf(started).reason == ErrorReason::kOperationRunning) {
      --departure.attempts;
    } else {
      departure.refusal = started;
    }
  }
}

void Departures::EndEpoch(Departure& departure, Replica& replica) {
  const Candidate& worker = departure.worker;
  const Replica::Place place = *replica.PlaceOf(worker.worker_id, worker.incarnation);
  const RankPlacement& rank =
      replica.status().topology->ranks[static_cast<size_t>(place.rank.value())];
  const bool forming = replica.status().state == ReplicaState::kForming;
  const std::string obstacle = forming ? "" : Obstacle(departure, replica);
  departure.outcome = absl::StrCat("epoch ", place.epoch.value(), " ended with it");
  // Before it served, whoever is missed is waited for.
  if (!forming) host_.FitShape(replica);
  replica.End(Ending(rank, place.epoch, obstacle),
              std::max(kShortestDrain, departure.deadline - ports_.clock.Now()));
}

void Departures::LetGo(Departure& departure) {
  departure.told = true;
  std::string outcome = departure.outcome;
  const auto operation = operations_.Find(departure.operation_id);
  if (operation.has_value() && !operation->replicas.empty()) {
    const ReplicaResize& resize = operation->replicas.front();
    // Others may have yet to give back.
    const bool moved =
        resize.stage == ResizeStage::kReleasing || resize.stage == ResizeStage::kDone;
    if (moved) outcome = DescribeChange(resize.from, resize.to, resize.note);
  }
  ports_.membership.LetGo(departure.worker.worker_id, departure.worker.incarnation, outcome);
}

}  // namespace muster
