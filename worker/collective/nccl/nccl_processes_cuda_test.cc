// NCCL beyond the conformance suite: what a process that lives through many epochs depends on.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/topology.h"
#include "kernels/cuda_status.h"
#include "tests/support/run_ranks.h"
#include "worker/collective/nccl/cuda_collectives.h"

namespace muster::testing {
namespace {

constexpr uint64_t kSlabBytes = uint64_t{16} << 10;
constexpr absl::Duration kPatience = absl::Seconds(30);

// This rank's GPU and its collectives.
class Rank {
 public:
  static absl::StatusOr<std::unique_ptr<Rank>> Make(RankContext& context, bool force_nccl) {
    MUSTER_ASSIGN_OR_RETURN(std::unique_ptr<CudaDevice> device,
                            CudaDevice::Create({.ordinal = DeviceOrdinal(context.rank.value()),
                                                .oversubscribe = true,
                                                .ranks_on_gpu = context.world}));
    return std::unique_ptr<Rank>(new Rank(context, std::move(device), force_nccl));
  }

  CudaDevice& device() { return *device_; }
  const Group& group() const { return group_; }
  Ledger& ledger() { return ledger_; }

  absl::StatusOr<std::unique_ptr<CollectiveEndpoint>> Join(Epoch epoch) {
    const auto rendezvous = context_.make_rendezvous(epoch);
    const WorkspacePlan plan{.ranks = group_.spec().ranks,
                             .kinds = {group_.kind()},
                             .slab_bytes = kSlabBytes,
                             .tag = "workspace",
                             .message_bytes = kSlabBytes};
    MUSTER_ASSIGN_OR_RETURN(std::unique_ptr<CollectiveEndpoint> endpoint,
                            collectives_.Allocate(group_, plan, ledger_));
    MUSTER_ASSIGN_OR_RETURN(
        const std::vector<std::string> handles,
        rendezvous->AllGather(group_, "handles", endpoint->Handle(), kPatience));
    MUSTER_RETURN_IF_ERROR(endpoint->Open(handles));
    MUSTER_RETURN_IF_ERROR(rendezvous->AllGather(group_, "opened", "", kPatience).status());
    endpoint->StopExporting();
    return endpoint;
  }

  absl::Status Meet(absl::string_view key) {
    return context_.rendezvous.AllGather(group_, key, "", kPatience).status();
  }

 private:
  Rank(RankContext& context, std::unique_ptr<CudaDevice> device, bool force_nccl)
      : context_(context),
        device_(std::move(device)),
        host_(CpuDeviceOptions{}),
        collectives_(*device_, host_, {.force_nccl = force_nccl, .nccl = {.oversubscribed = true}}),
        group_(World(context)) {}

  static Group World(const RankContext& context) {
    GroupSpec spec{.kind = GroupKind::kStage};
    for (int rank = 0; rank < context.world; ++rank) spec.ranks.push_back(GlobalRank(rank));
    spec.id = DigestGroup(Epoch(1), spec.kind, spec.ranks);
    return Group::Create(spec, context.rank).value();
  }

  RankContext& context_;
  Ledger ledger_;
  const std::unique_ptr<CudaDevice> device_;
  CpuDevice host_;
  CudaCollectives collectives_;
  const Group group_;
};

int OpenDescriptors() {
  namespace fs = std::filesystem;
  return static_cast<int>(
      std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
}

int Threads() {
  namespace fs = std::filesystem;
  return static_cast<int>(
      std::distance(fs::directory_iterator("/proc/self/task"), fs::directory_iterator()));
}

// Sums ones: every element becomes the number of ranks.
absl::Status SumOnes(Rank& rank, Stream& stream, CollectiveEndpoint& endpoint) {
  std::vector<float> values(1000, 1.0f);
  const size_t bytes = values.size() * sizeof(float);
  MUSTER_ASSIGN_OR_RETURN(const Buffer data,
                          rank.device().Allocate(bytes, "operand", rank.ledger()));
  MUSTER_RETURN_IF_ERROR(rank.device().Copy(stream, data.data(), values.data(), bytes));
  MUSTER_RETURN_IF_ERROR(endpoint.MakeCommunicator(rank.group())
                             ->AllReduce(stream, data.data(), values.size(), DType::kFloat32));
  MUSTER_RETURN_IF_ERROR(rank.device().Copy(stream, values.data(), data.data(), bytes));
  MUSTER_RETURN_IF_ERROR(stream.Synchronize());
  const float wanted = static_cast<float>(rank.group().size());
  for (float value : values) {
    if (value != wanted) return absl::DataLossError(absl::StrCat("sum ", value));
  }
  return absl::OkStatus();
}

struct Held {
  uint64_t gpu_bytes = 0;
  int descriptors = 0, threads = 0;
};

absl::StatusOr<Held> HeldBy(Rank& rank, absl::string_view when) {
  MUSTER_RETURN_IF_ERROR(rank.Meet(absl::StrCat("before ", when)));
  size_t free = 0, total = 0;
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "asking for free memory"));
  MUSTER_RETURN_IF_ERROR(rank.Meet(absl::StrCat("after ", when)));
  return Held{total - free, OpenDescriptors(), Threads()};
}

const RankCase kReforms("Reforms", [](RankContext& context) -> absl::Status {
  const int rounds = std::stoi(context.args);
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Rank> rank, Rank::Make(context, true));
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, rank->device().CreateStream());
  constexpr int kFirst = 5;  // what the library keeps for good is there by then
  Held before;
  absl::Duration joining, leaving;
  for (int round = 0; round < rounds; ++round) {
    if (round == kFirst) {
      MUSTER_ASSIGN_OR_RETURN(before, HeldBy(*rank, "the first"));
    }
    const absl::Time start = absl::Now();
    MUSTER_ASSIGN_OR_RETURN(auto endpoint, rank->Join(Epoch(10 + round)));
    joining += absl::Now() - start;
    MUSTER_RETURN_IF_ERROR(SumOnes(*rank, *stream, *endpoint));
    MUSTER_RETURN_IF_ERROR(rank->Meet(absl::StrCat("round ", round)));
    // Every other one ends as those do that have lost a rank.
    if (round % 2 == 1) endpoint->Abort(absl::UnavailableError("a rank is lost"));
    const absl::Time end = absl::Now();
    endpoint.reset();
    leaving += absl::Now() - end;
  }
  MUSTER_ASSIGN_OR_RETURN(const Held after, HeldBy(*rank, "the last"));
  context.output = absl::StrCat("GPU ", before.gpu_bytes >> 10, " -> ", after.gpu_bytes >> 10,
                                " KiB, descriptors ", before.descriptors, " -> ", after.descriptors,
                                ", threads ", before.threads, " -> ", after.threads);
  absl::StrAppend(&context.output, "; joining ", absl::FormatDuration(joining / rounds),
                  ", leaving ", absl::FormatDuration(leaving / rounds));
  const bool same = after.gpu_bytes <= before.gpu_bytes + (uint64_t{4} << 20) &&
                    after.descriptors == before.descriptors && after.threads <= before.threads;
  if (!same || rank->ledger().total() != 0) return absl::DataLossError(context.output);
  return absl::OkStatus();
});

TEST(NcclProcesses, AHundredCommunicatorsComeAndGoAndNothingIsLeft) {
  const char* rounds = std::getenv("MUSTER_NCCL_ROUNDS");
  const std::vector<RankResult> results = RunRanks(2, "Reforms",
                                                   {.as = RanksAs::kProcesses,
                                                    .args = rounds == nullptr ? "100" : rounds,
                                                    .timeout = absl::Seconds(120)});
  EXPECT_TRUE(AllOk(results).ok()) << AllOk(results);
  std::printf("%s\n", results[0].output.c_str());
}

// Microseconds of one of the operations that `record` enqueues `count` of.
absl::StatusOr<double> TimeGraph(Rank& rank, Stream& stream, int count,
                                 absl::FunctionRef<absl::Status()> record) {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Graph> graph,
                          rank.device().Capture(stream, [&]() -> absl::Status {
                            for (int i = 0; i < count; ++i) MUSTER_RETURN_IF_ERROR(record());
                            return absl::OkStatus();
                          }));
  std::vector<double> times;
  for (int i = 0; i < 7; ++i) {
    const auto start = std::chrono::steady_clock::now();
    MUSTER_RETURN_IF_ERROR(graph->Launch(stream));
    MUSTER_RETURN_IF_ERROR(stream.Synchronize());
    times.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
            .count() /
        count);
  }
  std::nth_element(times.begin(), times.begin() + 3, times.end());
  return times[3];
}

// Doubles a value on `count` ranks again and again: after k sums it is ranks^k.
const RankCase kReplays("Replays", [](RankContext& context) -> absl::Status {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Rank> rank, Rank::Make(context, true));
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, rank->device().CreateStream());
  MUSTER_ASSIGN_OR_RETURN(const auto endpoint, rank->Join(Epoch(10)));
  const auto communicator = endpoint->MakeCommunicator(rank->group());
  constexpr size_t kCount = 4096;  // 16 KiB
  std::vector<float> values(kCount, 1.0f);
  MUSTER_ASSIGN_OR_RETURN(const Buffer data, rank->device().Allocate(kCount * sizeof(float),
                                                                     "operand", rank->ledger()));
  const auto sum = [&] {
    return communicator->AllReduce(*stream, data.data(), kCount, DType::kFloat32);
  };
  for (uint64_t two_shot_bytes : {~uint64_t{0}, uint64_t{0}}) {
    endpoint->SetTwoShotBytes(two_shot_bytes);
    MUSTER_RETURN_IF_ERROR(rank->device().Copy(*stream, data.data(), values.data(), data.size()));
    MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Graph> graph,
                            rank->device().Capture(*stream, sum));
    for (int i = 0; i < 8; ++i) MUSTER_RETURN_IF_ERROR(graph->Launch(*stream));
    std::vector<float> got(kCount);
    MUSTER_RETURN_IF_ERROR(rank->device().Copy(*stream, got.data(), data.data(), data.size()));
    MUSTER_RETURN_IF_ERROR(stream->Synchronize());
    float wanted = 1;
    for (int i = 0; i < 8; ++i) wanted *= static_cast<float>(context.world);
    if (got[0] != wanted || got[kCount - 1] != wanted) {
      return absl::DataLossError(absl::StrCat("8 replays give ", got[0], ", not ", wanted));
    }
    MUSTER_ASSIGN_OR_RETURN(const double us, TimeGraph(*rank, *stream, 20, sum));
    absl::StrAppend(&context.output, two_shot_bytes == 0 ? "two shots " : "one shot ", us, " us; ");
  }
  return absl::OkStatus();
});

TEST(NcclProcesses, AGraphIsReplayedManyTimes) {
  for (int world : {2, 4}) {
    const std::vector<RankResult> results = RunRanks(world, "Replays", {.as = RanksAs::kProcesses});
    EXPECT_TRUE(AllOk(results).ok()) << AllOk(results);
    std::printf("%d ranks, 16 KiB all-reduce in a graph: %s\n", world, results[0].output.c_str());
  }
}

// Of ranks on one GPU, or on GPUs that reach each other: the library is not needed.
const RankCase kChooses("Chooses", [](RankContext& context) -> absl::Status {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Rank> rank, Rank::Make(context, false));
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, rank->device().CreateStream());
  MUSTER_ASSIGN_OR_RETURN(const auto endpoint, rank->Join(Epoch(10)));
  return SumOnes(*rank, *stream, *endpoint);
});

TEST(CudaCollectives, OfGpusThatReachEachOtherGoOverIpc) {
  const std::vector<RankResult> results = RunRanks(3, "Chooses", {.as = RanksAs::kProcesses});
  EXPECT_TRUE(AllOk(results).ok()) << AllOk(results);
}

}  // namespace
}  // namespace muster::testing
