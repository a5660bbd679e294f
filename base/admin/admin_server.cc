#include "base/admin/admin_server.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "base/admin/http_response.h"
#include "base/status_macros.h"

namespace muster {
namespace {

// No longer than this without a look at the clock.
constexpr absl::Duration kLongestWait = absl::Seconds(1);
constexpr absl::Duration kWithoutDescriptors = absl::Milliseconds(100);

}  // namespace

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(const ListenAddress& listen,
                                                                AdminRoutes routes,
                                                                const AdminLimits& limits,
                                                                const Clock& clock) {
  MUSTER_ASSIGN_OR_RETURN(ListeningSocket socket, ListeningSocket::Open(listen));
  OwnedFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake.empty()) return absl::ErrnoToStatus(errno, "cannot make an eventfd for the admin port");
  return absl::WrapUnique(
      new AdminServer(std::move(socket), std::move(wake), std::move(routes), limits, clock));
}

AdminServer::AdminServer(ListeningSocket socket, OwnedFd wake, AdminRoutes routes,
                         const AdminLimits& limits, const Clock& clock)
    : socket_(std::move(socket)),
      wake_(std::move(wake)),
      routes_(std::move(routes)),
      limits_(limits),
      clock_(clock),
      thread_([this] { Run(); }) {}

AdminServer::~AdminServer() {
  eventfd_write(wake_.get(), 1);
  thread_.join();
}

void AdminServer::Run() {
  while (WaitForWork()) {
  }
}

bool AdminServer::WaitForWork() {
  std::vector<pollfd> polled = {
      {.fd = wake_.get(), .events = POLLIN},
      {.fd = clock_.Now() < accept_from_ ? -1 : socket_.fd(), .events = POLLIN}};
  for (const AdminConnection& connection : connections_) {
    polled.push_back({.fd = connection.fd(),
                      .events = static_cast<short>(connection.writing() ? POLLOUT : POLLIN)});
  }
  poll(polled.data(), polled.size(), MillisecondsToNextDeadline());
  if (polled[0].revents != 0) return false;
  const absl::Time now = clock_.Now();
  size_t next = 2;
  for (auto it = connections_.begin(); it != connections_.end(); ++next) {
    const bool late = now >= it->deadline();
    if (late) it->Abandon();
    const bool lives = !late && (polled[next].revents == 0 || Serve(*it, now));
    it = lives ? std::next(it) : connections_.erase(it);
  }
  if (polled[1].revents != 0) AcceptAll();
  return true;
}

void AdminServer::AcceptAll() {
  // As many as one round may hold, so that a flood of callers cannot keep those inside waiting.
  for (size_t i = 0; i < limits_.connections; ++i) {
    OwnedFd fd = socket_.Accept();
    const absl::Time now = clock_.Now();
    if (fd.empty()) {
      // The callers stay where they are, and would be seen at once, over and over.
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        accept_from_ = now + kWithoutDescriptors;
      }
      return;
    }
    AdminConnection connection(std::move(fd), limits_.connection, now);
    // What a probe asks has mostly arrived with it.
    if (!Serve(connection, now)) continue;
    MakeRoom();
    connections_.push_back(std::move(connection));
  }
}

bool AdminServer::Serve(AdminConnection& connection, absl::Time now) const {
  return connection.Continue([this](const AdminRequest& request) { return Answer(request); }, now);
}

void AdminServer::MakeRoom() {
  if (connections_.size() < limits_.connections) return;
  auto leaver = std::find_if(connections_.begin(), connections_.end(),
                             [](const AdminConnection& connection) { return connection.idle(); });
  if (leaver == connections_.end()) leaver = connections_.begin();
  connections_.erase(leaver);
}

AdminResponse AdminServer::Answer(const AdminRequest& request) const {
  const auto route = routes_.find(request.path);
  return route == routes_.end() ? Refusal(404) : route->second(request);
}

int AdminServer::MillisecondsToNextDeadline() const {
  absl::Duration wait = kLongestWait;
  const absl::Time now = clock_.Now();
  if (now < accept_from_) wait = std::min(wait, accept_from_ - now);
  for (const AdminConnection& connection : connections_) {
    wait = std::min(wait, connection.deadline() - now);
  }
  // Rounded up: a deadline that is nearly there is not polled for over and over.
  return static_cast<int>(absl::ToInt64Milliseconds(std::max(wait, absl::ZeroDuration()))) + 1;
}

}  // namespace muster
