// The collectives of GPUs side by side, in one run: ours fused and unfused, over NCCL, and what a
// framework would do. Ranks are processes, which take turns over the GPUs: several on one want MPS,
// and NCCL then talks through sockets, which compares with nothing.
//   collectives_cuda_benchmark [ranks...]     2 without arguments
// prints tables in Markdown: graphs of 20 operations, medians of 61 replays (fewer of what takes
// long), slowest rank. Every way is compared with sums in double precision before it is timed.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "base/topology.h"
#include "kernels/add_rms_norm.h"
#include "kernels/cuda_status.h"
#include "kernels/lse_merge.h"
#include "tests/support/run_ranks.h"
#include "worker/collective/collective_set.h"
#include "worker/collective/ipc/ipc_backend.h"
#include "worker/collective/nccl/collectives_benchmark_reference.h"
#include "worker/collective/nccl/nccl_backend.h"
#include "worker/collective/nccl/plain_nccl.h"
#include "worker/collective/nccl/replay_timer.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cuda/cuda_device.h"

namespace muster {
namespace {

using testing::RankCase;
using testing::RankContext;
using testing::RankResult;

constexpr int kHidden[] = {4096, 7168}, kTokens[] = {1, 8, 32, 128, 512, 2048};
constexpr int kMostHidden = 7168, kMostTokens = 2048;
constexpr size_t kMostCount = size_t{kMostHidden} * kMostTokens;
constexpr int kHeads = 32, kHeadDim = 128, kCombineWidth = kHeads * kHeadDim;
constexpr int kMostCombined = 128;
// Of NCCL where ranks share a GPU.
constexpr int kMostThroughSockets = 128;
constexpr size_t kCopyBytes = size_t{64} << 20;

constexpr absl::Duration kPatience = absl::Seconds(25);
constexpr float kEps = 1e-5f;
constexpr int kNan = 0xFF;  // in every byte

std::vector<BFloat16> RandomNumbers(uint32_t seed, size_t count) {
  std::mt19937 engine(seed);
  std::vector<BFloat16> values(count);
  for (BFloat16& value : values) {
    value = BFloat16(static_cast<float>(engine() >> 8) * 0x1p-22f - 2);
  }
  return values;
}

Group GroupOf(const RankContext& context, GroupKind kind, Epoch epoch) {
  GroupSpec spec{.kind = kind};
  for (int rank = 0; rank < context.world; ++rank) spec.ranks.push_back(GlobalRank(rank));
  spec.id = DigestGroup(epoch, kind, spec.ranks);
  return Group::Create(spec, context.rank).value();
}

class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> Make(RankContext& context);
  absl::Status Run();

 private:
  struct Way {
    bool wanted;
    int roundings;  // as of NormReference
    std::function<absl::Status(const FusedAllReduceRmsNorm&)> enqueue;
    bool alone = false;  // without the other ranks' summands
  };

  Bench(RankContext& context, std::unique_ptr<CudaDevice> device, int ranks_on_gpu)
      : context_(context),
        ranks_on_gpu_(ranks_on_gpu),
        device_(std::move(device)),
        host_(CpuDeviceOptions{}),
        group_(GroupOf(context, GroupKind::kStage, Epoch(1))),
        ipc_(*device_, host_, {.wait_timeout = kPatience}),
        nccl_(*device_, host_, {.wait_timeout = kPatience, .settings = settings()}) {}

  NcclSettings settings() const { return {.oversubscribed = ranks_on_gpu_ > 1}; }
  int rank() const { return context_.rank.value(); }
  CudaStream cuda_stream() { return CudaDeviceStream::From(*stream_).get(); }

  absl::StatusOr<std::unique_ptr<CollectiveSet>> WarmUp(Epoch epoch, CollectiveBackend& backend,
                                                        Fusion fusion);
  absl::Status JoinNccl();

  absl::Status Fill();
  FusedAllReduceRmsNorm NormOp(int tokens, int hidden);
  CpCombine CombineOp(int tokens);
  bool NcclCompares(int tokens) const {
    return plain_ != nullptr && (ranks_on_gpu_ == 1 || tokens <= kMostThroughSockets);
  }
  // In the order of the table's columns.
  std::vector<Way> NormWays(int tokens);
  absl::Status EnqueueNorm(const FusedAllReduceRmsNorm& op, const void* sum);
  absl::Status EnqueueFramework(const FusedAllReduceRmsNorm& op);

  template <typename T>
  absl::StatusOr<std::vector<T>> Download(const Buffer& from, size_t count);
  absl::Status Clear(const Buffer& buffer, int byte);
  absl::Status VerifyNorm(const Way& way, const FusedAllReduceRmsNorm& op);
  absl::Status VerifyCombine(Workspace& workspace, int tokens);

  // Bytes a microsecond, of all ranks at once.
  absl::StatusOr<double> PeerCopySpeed();

  void Say(absl::string_view text) const;
  absl::Status SayWhere(double copy_speed);
  absl::Status NormTable(double copy_speed);
  absl::Status CombineTable(double copy_speed);

  RankContext& context_;
  const int ranks_on_gpu_;
  Ledger ledger_;
  const std::unique_ptr<CudaDevice> device_;
  CpuDevice host_;
  const Group group_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<ReplayTimer> timer_;

  std::vector<std::vector<BFloat16>> partials_;  // by rank
  std::vector<BFloat16> residuals_;
  std::vector<float> weights_;
  std::vector<std::vector<float>> lses_;  // by rank
  Buffer partial_, summed_, residual_, residual_out_, norm_, weight_, lse_;

  IpcBackend ipc_;
  NcclBackend nccl_;
  std::vector<std::unique_ptr<Rendezvous>> rendezvous_;
  std::unique_ptr<CollectiveSet> fused_, unfused_, over_nccl_;
  std::unique_ptr<PlainNccl> plain_;
};

absl::StatusOr<std::unique_ptr<Bench>> Bench::Make(RankContext& context) {
  int gpus = 0;
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceCount(&gpus), "counting GPUs"));
  const int ranks_on_gpu = (context.world + gpus - 1) / gpus;
  MUSTER_ASSIGN_OR_RETURN(std::unique_ptr<CudaDevice> device,
                          CudaDevice::Create({.ordinal = DeviceOrdinal(context.rank.value()),
                                              .oversubscribe = true,
                                              .ranks_on_gpu = ranks_on_gpu}));
  std::unique_ptr<Bench> bench(new Bench(context, std::move(device), ranks_on_gpu));
  MUSTER_ASSIGN_OR_RETURN(bench->stream_, bench->device_->CreateStream());
  MUSTER_ASSIGN_OR_RETURN(bench->timer_, ReplayTimer::Make(bench->group_, context.rendezvous,
                                                           *bench->device_, *bench->stream_));
  MUSTER_RETURN_IF_ERROR(bench->Fill());
  MUSTER_ASSIGN_OR_RETURN(bench->fused_, bench->WarmUp(Epoch(2), bench->ipc_, Fusion::kFused));
  MUSTER_ASSIGN_OR_RETURN(bench->unfused_, bench->WarmUp(Epoch(3), bench->ipc_, Fusion::kUnfused));
  MUSTER_RETURN_IF_ERROR(bench->JoinNccl());
  return bench;
}

absl::StatusOr<std::unique_ptr<CollectiveSet>> Bench::WarmUp(Epoch epoch,
                                                             CollectiveBackend& backend,
                                                             Fusion fusion) {
  rendezvous_.push_back(context_.make_rendezvous(epoch));
  CollectiveSet::Options options;
  options.fusion = fusion;
  auto set = std::make_unique<CollectiveSet>(
      std::vector<Group>{GroupOf(context_, GroupKind::kStage, epoch),
                         GroupOf(context_, GroupKind::kCp, epoch)},
      backend, *device_, *rendezvous_.back(), ledger_, std::move(options));
  MUSTER_RETURN_IF_ERROR(
      set->Warmup({CollectiveUse::AllReduceRmsNorm(GroupKind::kStage, kMostHidden, kMostTokens),
                   CollectiveUse::CpCombine(kHeads, kHeadDim, kMostCombined)},
                  kPatience));
  return set;
}

// Where any rank lacks the library, all do without.
absl::Status Bench::JoinNccl() {
  const absl::StatusOr<const NcclLibrary*> nccl = NcclLibrary::Shared(settings());
  std::string id = nccl.ok() ? "found" : "";
  if (nccl.ok() && rank() == 0) {
    ncclUniqueId unique;
    MUSTER_RETURN_IF_ERROR((*nccl)->StatusOf((*nccl)->GetUniqueId(&unique), "making an id"));
    id = absl::BytesToHexString(absl::string_view(unique.internal, sizeof(unique.internal)));
  }
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> ids, timer_->Meet(id));
  if (std::count(ids.begin(), ids.end(), "") != 0) {
    if (!nccl.ok()) std::fprintf(stderr, "%s\n", nccl.status().ToString().c_str());
    return absl::OkStatus();
  }
  plain_ = std::make_unique<PlainNccl>(**nccl, *device_, kPatience);
  MUSTER_RETURN_IF_ERROR(plain_->Join(ids[0], group_));
  MUSTER_ASSIGN_OR_RETURN(over_nccl_, WarmUp(Epoch(4), nccl_, Fusion::kUnfused));
  return absl::OkStatus();
}

absl::Status Bench::Fill() {
  std::mt19937 engine(7);
  const auto uniform = [&](float low, float high) {
    return low + (high - low) * static_cast<float>(engine() >> 8) * 0x1p-24f;
  };
  for (int r = 0; r < context_.world; ++r) {
    partials_.push_back(RandomNumbers(static_cast<uint32_t>(r + 1), kMostCount));
    lses_.emplace_back(size_t{kMostCombined} * kHeads);
    for (float& lse : lses_.back()) lse = uniform(-3, 3);
  }
  residuals_ = RandomNumbers(99, kMostCount);
  weights_.resize(kMostHidden);
  for (float& weight : weights_) weight = uniform(0.5f, 1.5f);
  const auto upload = [&](Buffer& to, const void* from, size_t bytes) -> absl::Status {
    MUSTER_ASSIGN_OR_RETURN(to, device_->Allocate(bytes, "operand", ledger_));
    if (from == nullptr) return absl::OkStatus();
    MUSTER_RETURN_IF_ERROR(device_->Copy(*stream_, to.data(), from, bytes));
    return stream_->Synchronize();
  };
  constexpr size_t kBytes = kMostCount * sizeof(BFloat16);
  const std::vector<float>& lse = lses_[static_cast<size_t>(rank())];
  MUSTER_RETURN_IF_ERROR(upload(partial_, partials_[static_cast<size_t>(rank())].data(), kBytes));
  MUSTER_RETURN_IF_ERROR(upload(residual_, residuals_.data(), kBytes));
  MUSTER_RETURN_IF_ERROR(upload(weight_, weights_.data(), weights_.size() * sizeof(float)));
  MUSTER_RETURN_IF_ERROR(upload(lse_, lse.data(), lse.size() * sizeof(float)));
  for (Buffer* out : {&summed_, &residual_out_, &norm_}) {
    MUSTER_RETURN_IF_ERROR(upload(*out, nullptr, kBytes));
  }
  return absl::OkStatus();
}

FusedAllReduceRmsNorm Bench::NormOp(int tokens, int hidden) {
  return {.partial = partial_.data(),
          .residual_in = residual_.data(),
          .weight = weight_.as<float>(),
          .residual_out = residual_out_.data(),
          .norm_out = norm_.data(),
          .tokens = tokens,
          .hidden = hidden,
          .eps = kEps,
          .dtype = DType::kBFloat16};
}

CpCombine Bench::CombineOp(int tokens) {
  return {.partial = partial_.data(),
          .lse = lse_.as<float>(),
          .out = norm_.data(),
          .tokens = tokens,
          .heads = kHeads,
          .head_dim = kHeadDim,
          .dtype = DType::kBFloat16};
}

std::vector<Bench::Way> Bench::NormWays(int tokens) {
  const auto through = [this](const std::unique_ptr<CollectiveSet>& set) {
    return [this, &set](const FusedAllReduceRmsNorm& op) {
      return set->workspace(GroupKind::kStage).value()->Enqueue(*stream_, op);
    };
  };
  const bool nccl = NcclCompares(tokens);
  return {{.wanted = true, .roundings = 1, .enqueue = through(fused_)},
          {.wanted = true, .roundings = 2, .enqueue = through(unfused_)},
          {.wanted = nccl, .roundings = 1, .enqueue = through(over_nccl_)},
          {.wanted = nccl,
           .roundings = context_.world,
           .enqueue = [this](const auto& op) { return EnqueueFramework(op); }},
          {.wanted = true,
           .roundings = 1,
           .enqueue = [this](const auto& op) { return EnqueueNorm(op, op.partial); },
           .alone = true}};
}

absl::Status Bench::EnqueueNorm(const FusedAllReduceRmsNorm& op, const void* sum) {
  return CudaStatus(AddRmsNormCuda({.a = sum,
                                    .residual_in = op.residual_in,
                                    .weight = op.weight,
                                    .eps = op.eps,
                                    .hidden = op.hidden,
                                    .residual_out = op.residual_out,
                                    .out = op.norm_out,
                                    .activation = op.dtype},
                                   op.tokens, cuda_stream()),
                    "residual and norm");
}

absl::Status Bench::EnqueueFramework(const FusedAllReduceRmsNorm& op) {
  const size_t count = static_cast<size_t>(op.tokens) * static_cast<size_t>(op.hidden);
  MUSTER_RETURN_IF_ERROR(plain_->AllReduceInPlace(summed_.data(), count, cuda_stream()));
  return EnqueueNorm(op, summed_.data());
}

template <typename T>
absl::StatusOr<std::vector<T>> Bench::Download(const Buffer& from, size_t count) {
  std::vector<T> values(count);
  MUSTER_RETURN_IF_ERROR(
      device_->Copy(*stream_, values.data(), from.data(), values.size() * sizeof(T)));
  MUSTER_RETURN_IF_ERROR(stream_->Synchronize());
  return values;
}

absl::Status Bench::Clear(const Buffer& buffer, int byte) {
  return CudaStatus(cudaMemsetAsync(buffer.data(), byte, buffer.size(), cuda_stream()), "clearing");
}

absl::Status Bench::VerifyNorm(const Way& way, const FusedAllReduceRmsNorm& op) {
  MUSTER_RETURN_IF_ERROR(Clear(residual_out_, kNan));
  MUSTER_RETURN_IF_ERROR(Clear(norm_, kNan));
  MUSTER_RETURN_IF_ERROR(device_->Copy(*stream_, summed_.data(), partial_.data(), summed_.size()));
  MUSTER_RETURN_IF_ERROR(way.enqueue(op));
  NormReference wanted{.summands = {},
                       .residual = residuals_.data(),
                       .weight = weights_.data(),
                       .tokens = op.tokens,
                       .hidden = op.hidden,
                       .eps = op.eps,
                       .roundings = way.roundings};
  for (int r = 0; r < context_.world; ++r) {
    if (way.alone && r != rank()) continue;
    wanted.summands.push_back(partials_[static_cast<size_t>(r)].data());
  }
  MUSTER_ASSIGN_OR_RETURN(const std::vector<BFloat16> residual,
                          Download<BFloat16>(residual_out_, wanted.count()));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<BFloat16> norm,
                          Download<BFloat16>(norm_, wanted.count()));
  // Sums in place of zeros stay finite however often they are summed.
  MUSTER_RETURN_IF_ERROR(Clear(summed_, 0));
  return wanted.Check(residual, norm);
}

absl::Status Bench::VerifyCombine(Workspace& workspace, int tokens) {
  const int64_t slice = kCombineWidth / context_.world;
  LseMergeParams params{.part_row_stride = kCombineWidth,
                        .part_column = 0,
                        .lse_row_stride = kHeads,
                        .world = context_.world,
                        .head_dim = kHeadDim,
                        .columns = {slice * rank(), slice * (rank() + 1)},
                        .out_row_stride = slice};
  std::vector<std::vector<float>> parts(partials_.size());
  for (size_t r = 0; r < parts.size(); ++r) {
    for (int i = 0; i < tokens * kCombineWidth; ++i) {
      parts[r].push_back(static_cast<float>(partials_[r][static_cast<size_t>(i)]));
    }
    params.parts[r] = parts[r].data();
    params.lse[r] = lses_[r].data();
  }
  std::vector<float> wanted(static_cast<size_t>(tokens * slice));
  params.out = wanted.data();
  LseMergeReference(params, {0, tokens});
  MUSTER_RETURN_IF_ERROR(Clear(norm_, kNan));
  MUSTER_RETURN_IF_ERROR(workspace.Enqueue(*stream_, CombineOp(tokens)));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<BFloat16> got,
                          Download<BFloat16>(norm_, wanted.size()));
  for (size_t i = 0; i < got.size(); ++i) {
    const double value = static_cast<float>(got[i]);
    // What a few roundings in float32 make of sums of parts below 2, and the last one.
    if (std::abs(value - wanted[i]) <= kRounding * std::abs(wanted[i]) + 1e-5) continue;
    return absl::DataLossError(absl::StrCat("combined at ", i, ": ", value, " for ", wanted[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<double> Bench::PeerCopySpeed() {
  MUSTER_ASSIGN_OR_RETURN(const ExportedBuffer own,
                          device_->AllocateExported(kCopyBytes, "peer copy", ledger_));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> handles, timer_->Meet(own.handle()));
  const size_t next = static_cast<size_t>((rank() + 1) % context_.world);
  MUSTER_ASSIGN_OR_RETURN(const PeerMemory peer, device_->OpenExported(handles[next]));
  MUSTER_ASSIGN_OR_RETURN(const Buffer to, device_->Allocate(kCopyBytes, "peer copy", ledger_));
  MUSTER_ASSIGN_OR_RETURN(const double micros, timer_->TimeReplays([&] {
    return device_->Copy(*stream_, to.data(), peer.data(), kCopyBytes);
  }));
  return static_cast<double>(kCopyBytes) / micros;
}

void Bench::Say(absl::string_view text) const {
  if (rank() != 0) return;
  std::printf("%.*s\n", static_cast<int>(text.size()), text.data());
  std::fflush(stdout);
}

absl::Status Bench::SayWhere(double copy_speed) {
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> names, timer_->Meet(device_->gpu().name));
  std::string driver = "of unknown version";
  std::getline(std::ifstream("/sys/module/nvidia/version"), driver);
  const std::string where =
      ranks_on_gpu_ == 1
          ? "one GPU each, with peer access"
          : absl::StrCat(ranks_on_gpu_, " on a GPU ", device_->mps() ? "under MPS" : "in turns");
  Say(absl::StrFormat("\n%d ranks on %s, %s; driver %s; NCCL%s; each copies %.0f GB/s from a peer",
                      context_.world, absl::StrJoin(names, ", "), where, driver,
                      plain_ == nullptr    ? " not found"
                      : ranks_on_gpu_ == 1 ? ""
                                           : " through sockets",
                      copy_speed * 1e-3));
  Say(
      absl::StrFormat("bfloat16, graphs of %d, median of %d replays, slowest rank, microseconds; "
                      "floor: what a rank must receive, at that speed",
                      ReplayTimer::kOps, ReplayTimer::kReplays));
  return absl::OkStatus();
}

absl::Status Bench::NormTable(double copy_speed) {
  Say("\n| hidden | tokens | fused | unfused | over NCCL | ncclAllReduce, then norm | norm alone | "
      "floor |\n|---|---|---|---|---|---|---|---|");
  for (int hidden : kHidden) {
    for (int tokens : kTokens) {
      const FusedAllReduceRmsNorm op = NormOp(tokens, hidden);
      std::string row = absl::StrFormat("| %d | %d |", hidden, tokens);
      for (const Way& way : NormWays(tokens)) {
        if (!way.wanted) {
          absl::StrAppend(&row, " - |");
          continue;
        }
        MUSTER_RETURN_IF_ERROR(VerifyNorm(way, op));
        MUSTER_ASSIGN_OR_RETURN(const double micros,
                                timer_->TimeInGraph([&] { return way.enqueue(op); }));
        absl::StrAppendFormat(&row, " %.2f |", micros);
      }
      const double bytes = 2.0 * (context_.world - 1) / context_.world * tokens * hidden *
                           static_cast<double>(sizeof(BFloat16));
      Say(absl::StrFormat("%s %.2f |", row, bytes / copy_speed));
    }
  }
  return absl::OkStatus();
}

absl::Status Bench::CombineTable(double copy_speed) {
  Say(
      absl::StrFormat("\nCP combine, %d heads of %d\n\n| tokens | fused | over NCCL | floor |\n"
                      "|---|---|---|---|",
                      kHeads, kHeadDim));
  for (int tokens = 1; tokens <= kMostCombined; tokens *= 2) {
    std::string row = absl::StrFormat("| %d |", tokens);
    for (const CollectiveSet* set : {fused_.get(), over_nccl_.get()}) {
      if (set == nullptr) {
        absl::StrAppend(&row, " - |");
        continue;
      }
      Workspace& workspace = *set->workspace(GroupKind::kCp).value();
      MUSTER_RETURN_IF_ERROR(VerifyCombine(workspace, tokens));
      MUSTER_ASSIGN_OR_RETURN(const double micros, timer_->TimeInGraph([&] {
        return workspace.Enqueue(*stream_, CombineOp(tokens));
      }));
      absl::StrAppendFormat(&row, " %.2f |", micros);
    }
    const double row_bytes = kCombineWidth * sizeof(BFloat16) + kHeads * sizeof(float);
    const double bytes = (context_.world - 1) * tokens * row_bytes / context_.world;
    Say(absl::StrFormat("%s %.2f |", row, bytes / copy_speed));
  }
  return absl::OkStatus();
}

absl::Status Bench::Run() {
  MUSTER_ASSIGN_OR_RETURN(const double copy_speed, PeerCopySpeed());
  MUSTER_RETURN_IF_ERROR(SayWhere(copy_speed));
  MUSTER_RETURN_IF_ERROR(NormTable(copy_speed));
  MUSTER_RETURN_IF_ERROR(CombineTable(copy_speed));
  return timer_->Meet("done").status();
}

const RankCase kCollectives("Collectives", [](RankContext& context) -> absl::Status {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Bench> bench, Bench::Make(context));
  return bench->Run();
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
