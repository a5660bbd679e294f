#include "coordinator/change_signal.h"

#include <utility>

namespace muster {

ChangeSignal::Subscription::Subscription(Subscription&& other) noexcept
    : signal_(std::exchange(other.signal_, nullptr)), id_(other.id_) {}

ChangeSignal::Subscription& ChangeSignal::Subscription::operator=(Subscription&& other) noexcept {
  std::swap(signal_, other.signal_);
  std::swap(id_, other.id_);
  return *this;
}

ChangeSignal::Subscription::~Subscription() {
  if (signal_ != nullptr) signal_->Unsubscribe(id_);
}

ChangeSignal::Subscription ChangeSignal::Subscribe(std::function<void()> on_change) {
  absl::MutexLock lock(&mu_);
  subscribers_.emplace(++last_id_, std::move(on_change));
  return Subscription(this, last_id_);
}

void ChangeSignal::Notify() {
  absl::MutexLock lock(&mu_);
  for (auto& [id, on_change] : subscribers_) on_change();
}

void ChangeSignal::Unsubscribe(uint64_t id) {
  absl::MutexLock lock(&mu_);
  subscribers_.erase(id);
}

}  // namespace muster
