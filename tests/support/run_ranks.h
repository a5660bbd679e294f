// Runs one named case on n ranks: threads of this process, or processes of their own.
#ifndef MUSTER_TESTS_SUPPORT_RUN_RANKS_H_
#define MUSTER_TESTS_SUPPORT_RUN_RANKS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "worker/collective/rendezvous.h"

namespace muster::testing {

// What a case knows of the rank that runs it.
struct RankContext {
  GlobalRank rank;
  int world = 0;
  std::string args;        // RunRanksOptions::args
  Rendezvous& rendezvous;  // of epoch 1
  // A rendezvous of another epoch; the case's end is its end.
  std::function<std::unique_ptr<Rendezvous>(Epoch)> make_rendezvous;
  std::string output;  // filled by the case, for the test
};

using RankFunction = std::function<absl::Status(RankContext&)>;

// Gives a function the name by which RunRanks finds it, in this process and in those it starts:
//   const RankCase kMeets("meets", [](RankContext& context) { ... });
class RankCase {
 public:
  RankCase(absl::string_view name, RankFunction run);
};

enum class RanksAs { kThreads, kProcesses };

struct RunRanksOptions {
  RanksAs as = RanksAs::kThreads;
  std::string args;
  absl::Duration timeout = absl::Seconds(30);
};

// What became of one rank. A process that died is UNAVAILABLE "rank 2 was killed by signal 9" (and
// lost to those who wait for it); one that was stuck at the timeout was killed and is
// DEADLINE_EXCEEDED. Stuck threads are named, then the whole test aborts.
struct RankResult {
  absl::Status status;
  std::string output;
};

// By rank. Processes re-execute this program, whose main must begin with RunRankIfAsked (as does
// that of :run_ranks_main); they die with the calling thread, and share only its rendezvous.
std::vector<RankResult> RunRanks(int world, absl::string_view case_name,
                                 const RunRanksOptions& options);

// First thing in main: in a process that RunRanks started it runs the rank and exits.
void RunRankIfAsked(int argc, char** argv);

// OK when all are, else the errors, one line for each rank.
absl::Status AllOk(const std::vector<RankResult>& results);

}  // namespace muster::testing

#endif  // MUSTER_TESTS_SUPPORT_RUN_RANKS_H_
