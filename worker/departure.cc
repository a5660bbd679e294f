#include "worker/departure.h"

#include <algorithm>

namespace muster {
namespace {

constexpr absl::Duration kStep = absl::Milliseconds(10);

}  // namespace

void Departure::Begin(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  deadline_ = clock_.Now() + timeout;
}

std::optional<absl::Duration> Departure::time_left() const {
  absl::MutexLock lock(&mu_);
  if (!deadline_.has_value()) return std::nullopt;
  return std::max(absl::ZeroDuration(), *deadline_ - clock_.Now());
}

void Departure::OnEnlisted() {
  absl::MutexLock lock(&mu_);
  enlisted_ = true;
}

void Departure::OnParted() {
  absl::MutexLock lock(&mu_);
  enlisted_ = false;
}

void Departure::OnMayLeave(const std::string& message) {
  absl::MutexLock lock(&mu_);
  may_leave_ = true;
  message_ = message;
}

void Departure::End() {
  absl::MutexLock lock(&mu_);
  ended_ = true;
}

Departure::Outcome Departure::Await(const std::function<bool()>& holds_nothing) {
  absl::Time alone_since = absl::InfiniteFuture();
  while (true) {
    const bool nothing = holds_nothing();
    const absl::Time now = clock_.Now();
    absl::MutexLock lock(&mu_);
    if (ended_) return Outcome::kCutShort;
    if (may_leave_) return Outcome::kReleased;
    if (now >= *deadline_) return nothing ? Outcome::kAlone : Outcome::kTimeout;
    const bool alone = nothing || !enlisted_;
    alone_since = alone ? std::min(alone_since, now) : absl::InfiniteFuture();
    if (nothing && !enlisted_) return Outcome::kAlone;
    if (now - alone_since >= kPatience) return Outcome::kAlone;
    const auto news = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return ended_ || may_leave_; };
    mu_.AwaitWithTimeout(absl::Condition(&news), std::min(kStep, *deadline_ - now));
  }
}

std::string Departure::message() const {
  absl::MutexLock lock(&mu_);
  return message_;
}

}  // namespace muster
