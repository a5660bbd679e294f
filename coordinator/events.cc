#include "coordinator/events.h"

#include <algorithm>
#include <utility>

#include "base/logging.h"

namespace muster {
namespace {

bool IsBad(EventKind kind) {
  return kind == EventKind::kWorkerLost || kind == EventKind::kPlanRefused ||
         kind == EventKind::kEpochFailed || kind == EventKind::kRolledBack;
}

void LogEvent(const Event& event) {
  LogSubject subject{.replica = event.replica, .rank = event.rank, .worker = event.worker_id};
  if (event.epoch != Epoch()) subject.epoch = event.epoch;
  LogLine(IsBad(event.kind) ? LogLevel::kWarning : LogLevel::kInfo, subject, event.message);
}

}  // namespace

void EventLog::Append(Event event) {
  LogEvent(event);
  counters_.events[static_cast<size_t>(event.kind)].Add();
  {
    absl::MutexLock lock(&mu_);
    event.sequence = ++last_sequence_;
    event.time = clock_.Now();
    events_.push_back(std::move(event));
    if (events_.size() > capacity_) events_.pop_front();
  }
  changes_.Notify();
}

std::vector<Event> EventLog::Read(uint64_t from, size_t limit) const {
  absl::MutexLock lock(&mu_);
  const uint64_t oldest = last_sequence_ - events_.size() + 1;
  const uint64_t skipped = std::min<uint64_t>(from > oldest ? from - oldest : 0, events_.size());
  const size_t count = std::min(limit, events_.size() - static_cast<size_t>(skipped));
  const auto begin = events_.begin() + static_cast<ptrdiff_t>(skipped);
  return {begin, begin + static_cast<ptrdiff_t>(count)};
}

std::vector<Event> EventLog::ReadNewest(size_t limit) const {
  absl::MutexLock lock(&mu_);
  return {events_.end() - static_cast<ptrdiff_t>(std::min(limit, events_.size())), events_.end()};
}

}  // namespace muster
