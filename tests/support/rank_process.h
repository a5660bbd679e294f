#ifndef MUSTER_TESTS_SUPPORT_RANK_PROCESS_H_
#define MUSTER_TESTS_SUPPORT_RANK_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tests/support/local_rendezvous.h"
#include "tests/support/rank_channel.h"
#include "tests/support/run_ranks.h"

namespace muster::testing {

// A rank that runs in a process of its own, seen from the one that started it. `board` outlives it.
class RankProcess {
 public:
  struct Spec {
    GlobalRank rank;
    int world = 0;
    std::string case_name;
    std::string args;
  };

  // The process dies with the calling thread.
  RankProcess(const Spec& spec, LocalRendezvousBoard& board);
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;
  ~RankProcess();

  // Waits for its end, or kills it at `deadline`. Once.
  RankResult Finish(absl::Time deadline);

 private:
  void Start(const Spec& spec, int their_end);
  // Answers the process until it is gone, and buries it.
  void Serve();
  void Bury();
  RankResult ResultOf(int wait_status) const;
  void Kill();

  const GlobalRank rank_;
  LocalRendezvousBoard& board_;
  std::unique_ptr<RankChannel> channel_;  // constant after construction
  std::thread server_;
  std::optional<RankResult> reported_;  // server thread only

  absl::Mutex mu_;
  pid_t pid_ ABSL_GUARDED_BY(mu_) = -1;  // until it is buried
  bool stuck_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  RankResult result_ ABSL_GUARDED_BY(mu_);
};

// The first argument of a rank's process.
inline constexpr char kRunRankFlag[] = "--run-rank";

// The other side: runs the rank that the arguments ask for, and exits.
[[noreturn]] void RunRankProcess(char** argv);

}  // namespace muster::testing

#endif  // MUSTER_TESTS_SUPPORT_RANK_PROCESS_H_
