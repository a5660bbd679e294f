#include "worker/collective/nccl/collectives_bench.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <utility>

#include "absl/strings/escaping.h"
#include "base/topology.h"
#include "kernels/cuda_status.h"

namespace muster {
namespace {

constexpr size_t kCopyBytes = size_t{64} << 20;
constexpr absl::Duration kPatience = absl::Seconds(25);

std::vector<BFloat16> RandomNumbers(uint32_t seed, size_t count) {
  std::mt19937 engine(seed);
  std::vector<BFloat16> values(count);
  for (BFloat16& value : values) {
    value = BFloat16(static_cast<float>(engine() >> 8) * 0x1p-22f - 2);
  }
  return values;
}

Group GroupOf(const testing::RankContext& context, GroupKind kind, Epoch epoch) {
  GroupSpec spec{.kind = kind};
  for (int rank = 0; rank < context.world; ++rank) spec.ranks.push_back(GlobalRank(rank));
  spec.id = DigestGroup(epoch, kind, spec.ranks);
  return Group::Create(spec, context.rank).value();
}

}  // namespace

CollectivesBench::CollectivesBench(testing::RankContext& context,
                                   std::unique_ptr<CudaDevice> device, int ranks_on_gpu)
    : context(context),
      ranks_on_gpu(ranks_on_gpu),
      device(std::move(device)),
      host(CpuDeviceOptions{}),
      group(GroupOf(context, GroupKind::kStage, Epoch(1))),
      ipc(*this->device, host, {.wait_timeout = kPatience}),
      nccl(*this->device, host, {.wait_timeout = kPatience, .settings = settings()}) {}

absl::StatusOr<std::unique_ptr<CollectivesBench>> CollectivesBench::Make(
    testing::RankContext& context) {
  int gpus = 0;
  MUSTER_RETURN_IF_ERROR(CudaStatus(cudaGetDeviceCount(&gpus), "counting GPUs"));
  const int ranks_on_gpu = (context.world + gpus - 1) / gpus;
  MUSTER_ASSIGN_OR_RETURN(std::unique_ptr<CudaDevice> device,
                          CudaDevice::Create({.ordinal = DeviceOrdinal(context.rank.value()),
                                              .oversubscribe = true,
                                              .ranks_on_gpu = ranks_on_gpu}));
  std::unique_ptr<CollectivesBench> bench(
      new CollectivesBench(context, std::move(device), ranks_on_gpu));
  MUSTER_ASSIGN_OR_RETURN(bench->stream, bench->device->CreateStream());
  MUSTER_ASSIGN_OR_RETURN(bench->timer, ReplayTimer::Make(bench->group, context.rendezvous,
                                                          *bench->device, *bench->stream));
  MUSTER_RETURN_IF_ERROR(bench->Fill());
  MUSTER_ASSIGN_OR_RETURN(bench->fused, bench->WarmUp(Epoch(2), bench->ipc, Fusion::kFused));
  MUSTER_ASSIGN_OR_RETURN(bench->unfused, bench->WarmUp(Epoch(3), bench->ipc, Fusion::kUnfused));
  MUSTER_RETURN_IF_ERROR(bench->JoinNccl());
  return bench;
}

absl::StatusOr<std::unique_ptr<CollectiveSet>> CollectivesBench::WarmUp(Epoch epoch,
                                                                        CollectiveBackend& backend,
                                                                        Fusion fusion) {
  rendezvous.push_back(context.make_rendezvous(epoch));
  CollectiveSet::Options options;
  options.fusion = fusion;
  auto set = std::make_unique<CollectiveSet>(
      std::vector<Group>{GroupOf(context, GroupKind::kStage, epoch),
                         GroupOf(context, GroupKind::kCp, epoch)},
      backend, *device, *rendezvous.back(), ledger, std::move(options));
  MUSTER_RETURN_IF_ERROR(
      set->Warmup({CollectiveUse::AllReduceRmsNorm(GroupKind::kStage, kMostHidden, kMostTokens),
                   CollectiveUse::CpCombine(kHeads, kHeadDim, kMostCombined)},
                  kPatience));
  return set;
}

// Where any rank lacks the library, all do without.
absl::Status CollectivesBench::JoinNccl() {
  const absl::StatusOr<const NcclLibrary*> library = NcclLibrary::Shared(settings());
  std::string id = library.ok() ? "found" : "";
  if (library.ok() && rank() == 0) {
    ncclUniqueId unique;
    MUSTER_RETURN_IF_ERROR((*library)->StatusOf((*library)->GetUniqueId(&unique), "making an id"));
    id = absl::BytesToHexString(absl::string_view(unique.internal, sizeof(unique.internal)));
  }
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> ids, timer->Meet(id));
  if (std::count(ids.begin(), ids.end(), "") != 0) {
    if (!library.ok()) std::fprintf(stderr, "%s\n", library.status().ToString().c_str());
    return absl::OkStatus();
  }
  plain = std::make_unique<PlainNccl>(**library, *device, kPatience);
  MUSTER_RETURN_IF_ERROR(plain->Join(ids[0], group));
  MUSTER_ASSIGN_OR_RETURN(over_nccl, WarmUp(Epoch(4), nccl, Fusion::kUnfused));
  return absl::OkStatus();
}

absl::Status CollectivesBench::Fill() {
  std::mt19937 engine(7);
  const auto uniform = [&](float low, float high) {
    return low + (high - low) * static_cast<float>(engine() >> 8) * 0x1p-24f;
  };
  for (int r = 0; r < context.world; ++r) {
    partials.push_back(RandomNumbers(static_cast<uint32_t>(r + 1), kMostCount));
    lses.emplace_back(size_t{kMostCombined} * kHeads);
    for (float& value : lses.back()) value = uniform(-3, 3);
  }
  residuals = RandomNumbers(99, kMostCount);
  weights.resize(kMostHidden);
  for (float& value : weights) value = uniform(0.5f, 1.5f);
  const auto upload = [&](Buffer& to, const void* from, size_t bytes) -> absl::Status {
    MUSTER_ASSIGN_OR_RETURN(to, device->Allocate(bytes, "operand", ledger));
    if (from == nullptr) return absl::OkStatus();
    MUSTER_RETURN_IF_ERROR(device->Copy(*stream, to.data(), from, bytes));
    return stream->Synchronize();
  };
  constexpr size_t kBytes = kMostCount * sizeof(BFloat16);
  const std::vector<float>& own = lses[static_cast<size_t>(rank())];
  MUSTER_RETURN_IF_ERROR(upload(partial, partials[static_cast<size_t>(rank())].data(), kBytes));
  MUSTER_RETURN_IF_ERROR(upload(residual, residuals.data(), kBytes));
  MUSTER_RETURN_IF_ERROR(upload(weight, weights.data(), weights.size() * sizeof(float)));
  MUSTER_RETURN_IF_ERROR(upload(lse, own.data(), own.size() * sizeof(float)));
  for (Buffer* out : {&summed, &residual_out, &norm}) {
    MUSTER_RETURN_IF_ERROR(upload(*out, nullptr, kBytes));
  }
  return absl::OkStatus();
}

absl::Status CollectivesBench::Clear(const Buffer& buffer, int byte) {
  return CudaStatus(cudaMemsetAsync(buffer.data(), byte, buffer.size(), cuda_stream()), "clearing");
}

absl::StatusOr<double> CollectivesBench::PeerCopySpeed() {
  MUSTER_ASSIGN_OR_RETURN(const ExportedBuffer own,
                          device->AllocateExported(kCopyBytes, "peer copy", ledger));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> handles, timer->Meet(own.handle()));
  const size_t next = static_cast<size_t>((rank() + 1) % context.world);
  MUSTER_ASSIGN_OR_RETURN(const PeerMemory peer, device->OpenExported(handles[next]));
  MUSTER_ASSIGN_OR_RETURN(const Buffer to, device->Allocate(kCopyBytes, "peer copy", ledger));
  MUSTER_ASSIGN_OR_RETURN(const double micros, timer->TimeReplays([&] {
    return device->Copy(*stream, to.data(), peer.data(), kCopyBytes);
  }));
  return static_cast<double>(kCopyBytes) / micros;
}

void CollectivesBench::Say(absl::string_view text) const {
  if (rank() != 0) return;
  std::printf("%.*s\n", static_cast<int>(text.size()), text.data());
  std::fflush(stdout);
}

}  // namespace muster
