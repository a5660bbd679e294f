#include "base/admin/admin_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/string_view.h"
#include "base/admin/http_response.h"

namespace muster {
namespace {

constexpr size_t kReadBytes = 4096;
// What a caller may go on sending that has its last answer.
constexpr size_t kDrainBytes = 256 << 10;

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

AdminConnection::AdminConnection(OwnedFd fd, const ConnectionLimits& limits, absl::Time now)
    : fd_(std::move(fd)), limits_(&limits), deadline_(now + limits.request) {}

AdminConnection::Io AdminConnection::Read() {
  // One byte more than a head may have tells that it is too long.
  const size_t room =
      limits_->http.head_bytes + 1 - std::min(input_.size(), limits_->http.head_bytes);
  char bytes[kReadBytes];
  const ssize_t n = recv(fd_.get(), bytes, std::min(room, sizeof(bytes)), 0);
  if (n < 0) return WouldBlock() ? Io::kLater : Io::kEnd;
  if (n == 0) return Io::kEnd;
  input_.append(bytes, static_cast<size_t>(n));
  return Io::kSome;
}

AdminConnection::Io AdminConnection::Write() {
  while (writing()) {
    const ssize_t n =
        send(fd_.get(), output_.data() + written_, output_.size() - written_, MSG_NOSIGNAL);
    if (n < 0) return WouldBlock() ? Io::kLater : Io::kEnd;
    written_ += static_cast<size_t>(n);
  }
  output_.clear();
  written_ = 0;
  return Io::kSome;
}

void AdminConnection::BeginDraining(absl::Time now) {
  shutdown(fd_.get(), SHUT_WR);
  draining_ = true;
  deadline_ = now + limits_->linger;
}

bool AdminConnection::Drain() {
  char bytes[kReadBytes];
  while (drained_ < kDrainBytes) {
    const ssize_t n = recv(fd_.get(), bytes, sizeof(bytes), 0);
    if (n <= 0) return n < 0 && WouldBlock();
    drained_ += static_cast<size_t>(n);
  }
  return false;
}

void AdminConnection::Abandon() {
  const linger reset{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

void AdminConnection::Reply(const HttpRequest& request, const AdminResponse& response,
                            absl::Time now) {
  last_ = !request.keep_alive || ++requests_ >= limits_->requests;
  output_ = WriteAnswer(response, {.with_body = !request.head, .keep_alive = !last_, .now = now});
  deadline_ = now + limits_->answer;
}

bool AdminConnection::AnswerNext(Answer answer, absl::Time now) {
  const auto end = EndOfHead(input_);
  if (end.value_or(input_.size()) > limits_->http.head_bytes) {
    Reply({}, Refusal(431), now);
    return true;
  }
  if (!end.has_value()) return false;
  const HttpRequest request = ParseHead(absl::string_view(input_).substr(0, *end), limits_->http);
  input_.erase(0, *end);
  Reply(request, request.refusal != 0 ? Refusal(request.refusal) : answer(request.request), now);
  return true;
}

bool AdminConnection::Continue(Answer answer, absl::Time now) {
  while (!draining_) {
    if (writing()) {
      const Io wrote = Write();
      if (wrote != Io::kSome) return wrote == Io::kLater;
      if (last_) {
        BeginDraining(now);
        break;
      }
      deadline_ = now + (input_.empty() ? limits_->idle : limits_->request);
    }
    if (AnswerNext(answer, now)) continue;
    const bool begins = input_.empty();
    const Io read = Read();
    if (read != Io::kSome) return read == Io::kLater;
    if (begins) deadline_ = std::min(deadline_, now + limits_->request);
  }
  return Drain();
}

}  // namespace muster
