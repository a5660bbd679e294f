#include "tests/support/rank_process.h"

#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/rank_cases.h"
#include "tests/support/remote_rendezvous.h"

extern char** environ;

namespace muster::testing {
namespace {

constexpr int kChannelOfRank = 3;
constexpr char kResult[] = "result";

// What stands where in a rank's arguments.
enum Argument { kProgram, kFlag, kCaseName, kRank, kWorld, kParent, kArgs };

}  // namespace

RankProcess::RankProcess(const Spec& spec, LocalRendezvousBoard& board)
    : rank_(spec.rank), board_(board) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    std::perror("socketpair");
    std::abort();
  }
  channel_ = std::make_unique<RankChannel>(ends[0]);
  Start(spec, ends[1]);
  close(ends[1]);
  server_ = std::thread([this] { Serve(); });
}

void RankProcess::Start(const Spec& spec, int their_end) {
  std::vector<std::string> words = {"/proc/self/exe",
                                    kRunRankFlag,
                                    spec.case_name,
                                    absl::StrCat(spec.rank.value()),
                                    absl::StrCat(spec.world),
                                    absl::StrCat(getpid()),
                                    spec.args};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, their_end, kChannelOfRank);
  absl::MutexLock lock(&mu_);
  const int error = posix_spawn(&pid_, words[0].c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    std::fprintf(stderr, "cannot start rank %d: %s\n", spec.rank.value(), std::strerror(error));
    std::abort();
  }
}

RankProcess::~RankProcess() {
  Kill();
  if (server_.joinable()) server_.join();
}

RankResult RankProcess::Finish(absl::Time deadline) {
  mu_.Lock();
  stuck_ = !mu_.AwaitWithDeadline(absl::Condition(&ended_), deadline);
  mu_.Unlock();
  Kill();
  server_.join();
  absl::MutexLock lock(&mu_);
  return std::move(result_);
}

void RankProcess::Serve() {
  {
    RendezvousServer server(board_, rank_, *channel_);
    while (std::optional<RankMessage> message = channel_->Receive()) {
      if ((*message)[0] == kResult) {
        reported_ = {DecodeStatus((*message)[1]), (*message)[2]};
      } else {
        server.Handle(*message);
      }
    }
  }
  Bury();
}

void RankProcess::Bury() {
  mu_.Lock();
  const pid_t pid = pid_;
  mu_.Unlock();
  siginfo_t info;
  while (waitid(P_PID, pid, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  // Reaped under the lock, so that Kill cannot hit another process with the same number.
  absl::MutexLock lock(&mu_);
  int wait_status = 0;
  waitpid(pid, &wait_status, 0);
  pid_ = -1;
  result_ = stuck_ ? RankResult{absl::DeadlineExceededError(absl::StrCat(
                                    "rank ", rank_.value(), " was stuck, and was killed")),
                                ""}
                   : ResultOf(wait_status);
  if (WIFSIGNALED(wait_status)) board_.Lose(rank_, "its process was killed");
  ended_ = true;
}

RankResult RankProcess::ResultOf(int wait_status) const {
  if (WIFSIGNALED(wait_status)) {
    return {absl::UnavailableError(absl::StrCat("rank ", rank_.value(), " was killed by signal ",
                                                WTERMSIG(wait_status))),
            ""};
  }
  if (!reported_.has_value() || (reported_->status.ok() && WEXITSTATUS(wait_status) != 0)) {
    return {absl::UnavailableError(absl::StrCat("rank ", rank_.value(), " exited with ",
                                                WEXITSTATUS(wait_status),
                                                reported_.has_value() ? "" : " and no result")),
            ""};
  }
  return *reported_;
}

void RankProcess::Kill() {
  absl::MutexLock lock(&mu_);
  if (pid_ > 0) kill(pid_, SIGKILL);
}

void RunRankProcess(char** argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != std::atoi(argv[kParent])) std::_Exit(1);  // it was gone before the line above
  {
    RankChannel channel(kChannelOfRank);
    RendezvousClient client(channel);
    const std::unique_ptr<Rendezvous> rendezvous = client.Make(Epoch(1));
    RankContext context{.rank = GlobalRank(std::atoi(argv[kRank])),
                        .world = std::atoi(argv[kWorld]),
                        .args = argv[kArgs],
                        .rendezvous = *rendezvous,
                        .make_rendezvous = [&](Epoch epoch) { return client.Make(epoch); }};
    const absl::Status status = FindRankCase(argv[kCaseName])(context);
    channel.Send({kResult, EncodeStatus(status), context.output});
  }
  std::exit(0);
}

}  // namespace muster::testing
