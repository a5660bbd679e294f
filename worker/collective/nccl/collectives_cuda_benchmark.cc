// The collectives of GPUs side by side, in one run: ours fused and unfused, over NCCL, and what a
// framework would do. Ranks are processes, which take turns over the GPUs: several on one want MPS,
// and NCCL then talks through sockets, which compares with nothing.
//   collectives_cuda_benchmark [ranks...]     2 without arguments
// prints tables in Markdown: graphs of 20 operations, medians of 61 replays (fewer of what takes
// long), slowest rank. Every way is compared with sums in double precision before it is timed.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "tests/support/run_ranks.h"
#include "worker/collective/nccl/collectives_bench.h"
#include "worker/collective/nccl/combine_table.h"
#include "worker/collective/nccl/norm_table.h"

namespace muster {
namespace {

using testing::RankCase;
using testing::RankContext;
using testing::RankResult;

absl::Status SayWhere(CollectivesBench& bench, double copy_speed) {
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                          bench.timer->Meet(bench.device->gpu().name));
  std::string driver = "of unknown version";
  std::getline(std::ifstream("/sys/module/nvidia/version"), driver);
  const std::string where = bench.ranks_on_gpu == 1
                                ? "one GPU each, with peer access"
                                : absl::StrCat(bench.ranks_on_gpu, " on a GPU ",
                                               bench.device->mps() ? "under MPS" : "in turns");
  bench.Say(
      absl::StrFormat("\n%d ranks on %s, %s; driver %s; NCCL%s; each copies %.0f GB/s from a peer",
                      bench.context.world, absl::StrJoin(names, ", "), where, driver,
                      bench.plain == nullptr    ? " not found"
                      : bench.ranks_on_gpu == 1 ? ""
                                                : " through sockets",
                      copy_speed * 1e-3));
  bench.Say(
      absl::StrFormat("bfloat16, graphs of %d, median of %d replays, slowest rank, microseconds; "
                      "floor: what a rank must receive, at that speed",
                      ReplayTimer::kOps, ReplayTimer::kReplays));
  return absl::OkStatus();
}

absl::Status Run(CollectivesBench& bench) {
  MUSTER_ASSIGN_OR_RETURN(const double copy_speed, bench.PeerCopySpeed());
  MUSTER_RETURN_IF_ERROR(SayWhere(bench, copy_speed));
  MUSTER_RETURN_IF_ERROR(PrintNormTable(bench, copy_speed));
  MUSTER_RETURN_IF_ERROR(PrintCombineTable(bench, copy_speed));
  return bench.timer->Meet("done").status();
}

const RankCase kCollectives("Collectives", [](RankContext& context) -> absl::Status {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<CollectivesBench> bench,
                          CollectivesBench::Make(context));
  return Run(*bench);
});

bool RunWorld(int world) {
  const std::vector<RankResult> results = testing::RunRanks(
      world, "Collectives", {.as = testing::RanksAs::kProcesses, .timeout = absl::Minutes(4)});
  const absl::Status status = testing::AllOk(results);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok();
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) {
  muster::testing::RunRankIfAsked(argc, argv);
  bool ok = argc > 1 || muster::RunWorld(2);
  for (int i = 1; i < argc; ++i) ok = muster::RunWorld(std::atoi(argv[i])) && ok;
  return ok ? 0 : 1;
}
