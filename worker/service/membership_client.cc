#include "worker/service/membership_client.h"

#include <grpcpp/channel.h>

#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "base/logging.h"
#include "worker/service/enlist_stream.h"

namespace muster {
namespace {

constexpr absl::Duration kFirstDelay = absl::Milliseconds(50);
constexpr absl::Duration kLongestDelay = absl::Milliseconds(800);

bool IsPermanent(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kUnimplemented:
      return true;
    default:
      return false;
  }
}

}  // namespace

MembershipClient::MembershipClient(std::shared_ptr<grpc::Channel> coordinator,
                                   WorkerProfile profile, MembershipCallbacks callbacks)
    : coordinator_(std::move(coordinator)),
      profile_(std::move(profile)),
      callbacks_(std::move(callbacks)),
      thread_([this] { Run(); }) {}

MembershipClient::~MembershipClient() { Stop(); }

void MembershipClient::SendHeartbeat() {
  absl::MutexLock lock(&mu_);
  if (stream_ != nullptr) stream_->Wake();
}

void MembershipClient::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    if (stream_ != nullptr) stream_->Cancel();
  }
  absl::MutexLock lock(&join_mu_);
  if (thread_.joinable()) thread_.join();
}

void MembershipClient::Run() {
  absl::BitGen random;
  absl::Duration delay = kFirstDelay;
  bool known_lost = false;
  bool was_member = false;
  do {
    bool welcomed = false;
    const absl::Status status = Enlist(&welcomed);
    if (status.ok()) return;
    was_member |= welcomed;
    // Of one that has been taken in before, another program on the coordinator's port says nothing.
    if (IsPermanent(status) && !was_member) {
      callbacks_.on_refused(status);
      return;
    }
    if (welcomed) {
      delay = kFirstDelay;
      known_lost = false;
    }
    if (!known_lost) {
      Logger().Warning("not enlisted, trying again: ", status.message());
      known_lost = true;
    }
    // Many workers lose one coordinator at the same time.
    const absl::Duration jittered = delay * absl::Uniform(random, 0.75, 1.25);
    delay = std::min(delay * 2, kLongestDelay);
    if (!Wait(jittered)) return;
  } while (true);
}

absl::Status MembershipClient::Enlist(bool* welcomed) {
  EnlistStream stream(coordinator_, profile_, callbacks_, untold_);
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) return absl::OkStatus();
    stream_ = &stream;
  }
  absl::Status status = stream.Run();
  if (stream.welcomed()) callbacks_.on_parted();
  absl::MutexLock lock(&mu_);
  stream_ = nullptr;
  *welcomed = stream.welcomed();
  return stopping_ ? absl::OkStatus() : status;
}

bool MembershipClient::Wait(absl::Duration delay) {
  absl::MutexLock lock(&mu_);
  return !mu_.AwaitWithTimeout(absl::Condition(&stopping_), delay);
}

}  // namespace muster
