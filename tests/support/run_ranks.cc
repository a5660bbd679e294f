#include "tests/support/run_ranks.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/support/local_rendezvous.h"
#include "tests/support/rank_cases.h"
#include "tests/support/rank_process.h"

namespace muster::testing {
namespace {

// Filled before main, then only read.
std::map<std::string, RankFunction>& Cases() {
  static auto& cases = *new std::map<std::string, RankFunction>;
  return cases;
}

bool main_asked = false;

// One rank as a thread.
class RankThread {
 public:
  RankThread(GlobalRank rank, int world, absl::string_view case_name, const std::string& args,
             LocalRendezvousBoard& board)
      : rank_(rank) {
    thread_ = std::thread([this, world, &run = FindRankCase(case_name), args, &board] {
      LocalRendezvous rendezvous(board, Epoch(1));
      RankContext context{.rank = rank_,
                          .world = world,
                          .args = args,
                          .rendezvous = rendezvous,
                          .make_rendezvous = [&board](Epoch epoch) {
                            return std::make_unique<LocalRendezvous>(board, epoch);
                          }};
      const absl::Status status = run(context);
      absl::MutexLock lock(&mu_);
      result_ = {status, std::move(context.output)};
      ended_ = true;
    });
  }

  RankResult Finish(absl::Time deadline) {
    {
      absl::MutexLock lock(&mu_);
      if (!mu_.AwaitWithDeadline(absl::Condition(&ended_), deadline)) {
        std::fprintf(stderr, "rank %d is stuck; a thread cannot be killed\n", rank_.value());
        std::abort();
      }
    }
    thread_.join();
    absl::MutexLock lock(&mu_);
    return result_;
  }

 private:
  const GlobalRank rank_;
  absl::Mutex mu_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  RankResult result_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

template <typename Rank>
std::vector<RankResult> FinishAll(std::vector<std::unique_ptr<Rank>>& ranks,
                                  absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  std::vector<RankResult> results;
  for (const std::unique_ptr<Rank>& rank : ranks) results.push_back(rank->Finish(deadline));
  return results;
}

}  // namespace

RankCase::RankCase(absl::string_view name, RankFunction run) {
  if (!Cases().emplace(std::string(name), std::move(run)).second) {
    std::fprintf(stderr, "two rank cases '%s'\n", std::string(name).c_str());
    std::abort();
  }
}

const RankFunction& FindRankCase(absl::string_view name) {
  const auto found = Cases().find(std::string(name));
  if (found == Cases().end()) {
    std::fprintf(stderr, "no rank case '%s'\n", std::string(name).c_str());
    std::abort();
  }
  return found->second;
}

std::vector<RankResult> RunRanks(int world, absl::string_view case_name,
                                 const RunRanksOptions& options) {
  LocalRendezvousBoard board;
  if (options.as == RanksAs::kThreads) {
    std::vector<std::unique_ptr<RankThread>> ranks;
    for (int rank = 0; rank < world; ++rank) {
      ranks.push_back(
          std::make_unique<RankThread>(GlobalRank(rank), world, case_name, options.args, board));
    }
    return FinishAll(ranks, options.timeout);
  }
  if (!main_asked) {
    std::fprintf(stderr, "main must begin with RunRankIfAsked for ranks to be processes\n");
    std::abort();
  }
  std::vector<std::unique_ptr<RankProcess>> ranks;
  for (int rank = 0; rank < world; ++rank) {
    const RankProcess::Spec spec{.rank = GlobalRank(rank),
                                 .world = world,
                                 .case_name = std::string(case_name),
                                 .args = options.args};
    ranks.push_back(std::make_unique<RankProcess>(spec, board));
  }
  return FinishAll(ranks, options.timeout);
}

void RunRankIfAsked(int argc, char** argv) {
  main_asked = true;
  if (argc > 1 && std::strcmp(argv[1], kRunRankFlag) == 0) RunRankProcess(argv);
}

absl::Status AllOk(const std::vector<RankResult>& results) {
  absl::Status first;
  std::string lines;
  for (size_t rank = 0; rank < results.size(); ++rank) {
    if (results[rank].status.ok()) continue;
    if (first.ok()) first = results[rank].status;
    absl::StrAppend(&lines, "\nrank ", rank, ": ", results[rank].status.ToString());
  }
  return first.ok() ? first : absl::Status(first.code(), lines);
}

}  // namespace muster::testing
