// Fused against unfused all-reduce + residual + norm, ranks as processes of one thread each.
//   bazel run //worker/collective/shm:shm_workspace_benchmark
// prints a table in Markdown: medians of rank 0, the two taken in turns within one run. Each pair
// is compared bit by bit before it is timed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "tests/support/run_ranks.h"
#include "worker/collective/shm/shm_backend.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster {
namespace {

using testing::RankCase;
using testing::RankContext;
using testing::RankResult;

constexpr int kHidden = 576;
constexpr int kTokens[] = {1, 8, 32, 128, 512};
constexpr int kMaxTokens = 512;
constexpr size_t kBytes = size_t{kMaxTokens} * kHidden * sizeof(float);
constexpr int kRounds = 300;
constexpr double kLimit = 1.02;

// One rank's memory, opened by its peers, and the two ways to use it.
struct Bench {
  Bench(const Group& g) : group(g), device(CpuDeviceOptions{}), backend(device, {}) {}

  absl::Status Open(Rendezvous& rendezvous);
  void Fill();
  absl::Status Compare(int tokens);
  absl::StatusOr<std::string> Time(int tokens);
  absl::StatusOr<double> MicrosPerOp(Workspace& workspace, int tokens, int repeats);
  // The residual stays in place, as in a model.
  FusedAllReduceRmsNorm Op(int tokens) {
    return {.partial = partial.data(),
            .residual_in = residual.data(),
            .weight = weight.as<float>(),
            .residual_out = residual.data(),
            .norm_out = norm.data(),
            .tokens = tokens,
            .hidden = kHidden,
            .eps = 1e-5f};
  }

  Group group;
  Ledger ledger;
  CpuDevice device;
  ShmBackend backend;
  std::unique_ptr<Stream> stream;
  std::unique_ptr<CollectiveEndpoint> endpoint;
  std::unique_ptr<Workspace> fused, unfused;
  uint64_t two_shot_bytes = ~uint64_t{0};
  Buffer partial, residual, weight, norm;  // [kMaxTokens, kHidden], the weight [kHidden]
};

absl::Status Bench::Open(Rendezvous& rendezvous) {
  const auto timeout = absl::Seconds(30);
  MUSTER_ASSIGN_OR_RETURN(stream, device.CreateStream());
  MUSTER_ASSIGN_OR_RETURN(partial, device.Allocate(kBytes, "benchmark", ledger));
  MUSTER_ASSIGN_OR_RETURN(residual, device.Allocate(kBytes, "benchmark", ledger));
  MUSTER_ASSIGN_OR_RETURN(norm, device.Allocate(kBytes, "benchmark", ledger));
  MUSTER_ASSIGN_OR_RETURN(weight, device.Allocate(kHidden * sizeof(float), "benchmark", ledger));
  MUSTER_ASSIGN_OR_RETURN(
      const std::vector<WorkspacePlan> plans,
      PlanWorkspaces({group.spec()}, group.ToGlobal(group.rank()),
                     {CollectiveUse::AllReduceRmsNorm(group.kind(), kHidden, kMaxTokens)}));
  MUSTER_ASSIGN_OR_RETURN(endpoint, backend.Allocate(group, plans[0], ledger));
  MUSTER_ASSIGN_OR_RETURN(const auto handles,
                          rendezvous.AllGather(group, "handles", endpoint->Handle(), timeout));
  MUSTER_RETURN_IF_ERROR(endpoint->Open(handles));
  MUSTER_RETURN_IF_ERROR(rendezvous.AllGather(group, "opened", "", timeout).status());
  MUSTER_ASSIGN_OR_RETURN(const uint64_t measured, endpoint->MeasureTwoShotBytes(*stream));
  MUSTER_ASSIGN_OR_RETURN(const auto votes,
                          rendezvous.AllGather(group, "two-shot", absl::StrCat(measured), timeout));
  for (const std::string& vote : votes) {
    uint64_t bytes = 0;
    if (absl::SimpleAtoi(vote, &bytes)) two_shot_bytes = std::min(two_shot_bytes, bytes);
  }
  endpoint->SetTwoShotBytes(two_shot_bytes);
  fused = endpoint->MakeWorkspace(group, Fusion::kFused);
  unfused = endpoint->MakeWorkspace(group, Fusion::kUnfused);
  return absl::OkStatus();
}

absl::StatusOr<double> Bench::MicrosPerOp(Workspace& workspace, int tokens, int repeats) {
  const FusedAllReduceRmsNorm op = Op(tokens);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) MUSTER_RETURN_IF_ERROR(workspace.Enqueue(*stream, op));
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
  return took.count() / repeats;
}

void Bench::Fill() {
  for (size_t i = 0; i < kBytes / sizeof(float); ++i) {
    partial.as<float>()[i] = static_cast<float>(i * 37 % 101) - 50;
    residual.as<float>()[i] = static_cast<float>(i * 53 % 97) / 64;
  }
  for (int i = 0; i < kHidden; ++i) weight.as<float>()[i] = 1 + static_cast<float>(i) / 1024;
}

absl::Status Bench::Compare(int tokens) {
  Fill();
  MUSTER_RETURN_IF_ERROR(unfused->Enqueue(*stream, Op(tokens)));
  const std::vector<float> expected(norm.as<float>(), norm.as<float>() + tokens * kHidden);
  Fill();
  MUSTER_RETURN_IF_ERROR(fused->Enqueue(*stream, Op(tokens)));
  if (std::memcmp(expected.data(), norm.data(), expected.size() * sizeof(float)) == 0) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("fused and unfused differ at ", tokens, " tokens"));
}

// "fused unfused", medians in microseconds.
absl::StatusOr<std::string> Bench::Time(int tokens) {
  MUSTER_RETURN_IF_ERROR(Compare(tokens));
  const int repeats = std::max(2, 32 / tokens);
  std::vector<double> times[2];
  for (int round = 0; round < kRounds; ++round) {
    for (int way : {0, 1}) {
      MUSTER_ASSIGN_OR_RETURN(const double micros,
                              MicrosPerOp(way == 0 ? *fused : *unfused, tokens, repeats));
      times[way].push_back(micros);
    }
  }
  for (std::vector<double>& of : times)
    std::nth_element(of.begin(), of.begin() + kRounds / 2, of.end());
  return absl::StrFormat("%.2f %.2f", times[0][kRounds / 2], times[1][kRounds / 2]);
}

const RankCase kCase("shm-workspace-benchmark", [](RankContext& context) -> absl::Status {
  GroupSpec spec;
  for (int rank = 0; rank < context.world; ++rank) spec.ranks.push_back(GlobalRank(rank));
  spec.id = DigestGroup(Epoch(1), spec.kind, spec.ranks);
  MUSTER_ASSIGN_OR_RETURN(const Group group, Group::Create(spec, context.rank));
  Bench bench(group);
  MUSTER_RETURN_IF_ERROR(bench.Open(context.rendezvous));
  context.output =
      bench.two_shot_bytes == ~uint64_t{0} ? "never" : absl::StrCat(bench.two_shot_bytes);
  for (int tokens : kTokens) {
    MUSTER_ASSIGN_OR_RETURN(const std::string times, bench.Time(tokens));
    absl::StrAppend(&context.output, "\n", times);
  }
  return absl::OkStatus();
});

int Run() {
  std::printf(
      "Fused all-reduce + residual + RMSNorm against the same unfused; hidden %d, float32, one "
      "thread per rank, %u cores, medians of %d.\n\n",
      kHidden, std::thread::hardware_concurrency(), kRounds);
  std::printf(
      "| ranks | tokens | fused us | unfused us | ratio | limit |\n|---|---|---|---|---|---|\n");
  for (int ranks : {2, 4}) {
    const std::vector<RankResult> results =
        testing::RunRanks(ranks, "shm-workspace-benchmark",
                          {.as = testing::RanksAs::kProcesses, .timeout = absl::Minutes(5)});
    if (const absl::Status status = testing::AllOk(results); !status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      return 1;
    }
    const std::vector<std::string> lines = absl::StrSplit(results[0].output, '\n');
    for (size_t i = 0; i < std::size(kTokens); ++i) {
      double fused = 0, unfused = 1;
      std::sscanf(lines[i + 1].c_str(), "%lf %lf", &fused, &unfused);
      std::printf("| %d | %d | %.1f | %.1f | %.2f | %.2f |\n", ranks, kTokens[i], fused, unfused,
                  fused / unfused, kLimit);
    }
    std::fprintf(stderr, "%d ranks: two shots from %s bytes on\n", ranks, lines[0].c_str());
  }
  return 0;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) {
  muster::testing::RunRankIfAsked(argc, argv);
  return muster::Run();
}
