// What the conformance suite does not reach: 16-bit combines, messages of several slices, the
// switch point. Ranks are processes that share a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/all_reduce_rms_norm.h"
#include "kernels/lse_merge.h"
#include "tests/support/run_ranks.h"
#include "tests/support/status_matchers.h"
#include "worker/collective/ipc/ipc_backend.h"
#include "worker/device/cuda/cuda_driver.h"

namespace muster {
namespace {

using testing::RankCase;
using testing::RankContext;

constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr uint64_t kNever = ~uint64_t{0};
// A slot and a slice of 64 KiB.
constexpr uint64_t kMessageBytes = uint64_t{64} << 10;

std::vector<BFloat16> RandomValues(size_t count, int seed) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  std::normal_distribution<float> normal;
  std::vector<BFloat16> values(count);
  for (BFloat16& value : values) value = BFloat16(normal(random));
  return values;
}

std::vector<float> Floats(const std::vector<BFloat16>& values) {
  std::vector<float> floats;
  for (const BFloat16 value : values) floats.push_back(static_cast<float>(value));
  return floats;
}

// One rank's end of a group of all, and its arrays.
class Rank {
 public:
  static absl::StatusOr<std::unique_ptr<Rank>> Open(RankContext& context) {
    GroupSpec spec;
    for (int rank = 0; rank < context.world; ++rank) spec.ranks.push_back(GlobalRank(rank));
    spec.id = DigestGroup(Epoch(1), spec.kind, spec.ranks);
    MUSTER_ASSIGN_OR_RETURN(const Group group, Group::Create(spec, context.rank));
    MUSTER_ASSIGN_OR_RETURN(const auto gpus, ListCudaGpus());
    const int count = static_cast<int>(gpus.size());
    MUSTER_ASSIGN_OR_RETURN(
        auto device, CudaDevice::Create({.ordinal = DeviceOrdinal(context.rank.value()),
                                         .oversubscribe = true,
                                         .ranks_on_gpu = (context.world + count - 1) / count}));
    auto rank = std::unique_ptr<Rank>(new Rank(group, std::move(device)));
    MUSTER_ASSIGN_OR_RETURN(rank->stream, rank->device->CreateStream());
    const WorkspacePlan plan{.ranks = spec.ranks,
                             .kinds = {spec.kind},
                             .slab_bytes = kMinSlabBytes,
                             .tag = "workspace",
                             .message_bytes = kMessageBytes};
    MUSTER_ASSIGN_OR_RETURN(rank->endpoint, rank->backend.Allocate(group, plan, rank->ledger));
    MUSTER_ASSIGN_OR_RETURN(
        const auto handles,
        context.rendezvous.AllGather(group, "handles", rank->endpoint->Handle(), kPatience));
    MUSTER_RETURN_IF_ERROR(rank->endpoint->Open(handles));
    MUSTER_RETURN_IF_ERROR(context.rendezvous.AllGather(group, "opened", "", kPatience).status());
    rank->endpoint->StopExporting();
    rank->workspace = rank->endpoint->MakeWorkspace(group, Fusion::kFused);
    return rank;
  }

  template <typename T>
  absl::StatusOr<Buffer> Upload(const std::vector<T>& values) {
    const size_t bytes = values.size() * sizeof(T);
    MUSTER_ASSIGN_OR_RETURN(Buffer buffer, device->Allocate(bytes, "operand", ledger));
    MUSTER_RETURN_IF_ERROR(device->Copy(*stream, buffer.data(), values.data(), bytes));
    MUSTER_RETURN_IF_ERROR(stream->Synchronize());
    return buffer;
  }
  absl::StatusOr<std::vector<float>> Download(const Buffer& buffer) {
    std::vector<BFloat16> values(buffer.size() / sizeof(BFloat16));
    MUSTER_RETURN_IF_ERROR(device->Copy(*stream, values.data(), buffer.data(), buffer.size()));
    MUSTER_RETURN_IF_ERROR(stream->Synchronize());
    return Floats(values);
  }

  Group group;
  Ledger ledger;
  std::unique_ptr<CudaDevice> device;
  CpuDevice host{CpuDeviceOptions{}};
  IpcBackend backend{*device, host, {.wait_timeout = absl::Seconds(5)}};
  std::unique_ptr<Stream> stream;
  std::unique_ptr<CollectiveEndpoint> endpoint;
  std::unique_ptr<Workspace> workspace;

 private:
  Rank(const Group& of, std::unique_ptr<CudaDevice> on) : group(of), device(std::move(on)) {}
};

// 300 tokens of 1 KiB: five slices in one shot, and at least as many in two.
absl::Status ReduceInSlices(RankContext& context) {
  constexpr int kTokens = 300, kHidden = 512;
  constexpr size_t kCount = size_t{kTokens} * kHidden;
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Rank> rank, Rank::Open(context));
  std::vector<std::vector<BFloat16>> partials;
  for (int r = 0; r < context.world; ++r) partials.push_back(RandomValues(kCount, r));
  const std::vector<BFloat16> residual = RandomValues(kCount, 99);
  const std::vector<float> weight(kHidden, 1.5f);
  std::vector<BFloat16> wanted(kCount), norm(kCount);
  AllReduceRmsNormParams reference{.world = context.world,
                                   .dtype = DType::kBFloat16,
                                   .residual_in = residual.data(),
                                   .residual_out = wanted.data(),
                                   .residual_dtype = DType::kBFloat16,
                                   .weight = weight.data(),
                                   .eps = 1e-5f,
                                   .hidden = kHidden,
                                   .norm_out = norm.data(),
                                   .norm_dtype = DType::kBFloat16};
  for (int r = 0; r < context.world; ++r) reference.parts[r] = partials[r].data();
  AllReduceRmsNormReference(reference, {0, kTokens});
  std::vector<float> norms[2];
  for (const bool two_shots : {false, true}) {
    rank->endpoint->SetTwoShotBytes(two_shots ? 0 : kNever);
    MUSTER_ASSIGN_OR_RETURN(const Buffer partial, rank->Upload(partials[context.rank.value()]));
    MUSTER_ASSIGN_OR_RETURN(const Buffer in_place, rank->Upload(residual));
    MUSTER_ASSIGN_OR_RETURN(const Buffer weights, rank->Upload(weight));
    MUSTER_ASSIGN_OR_RETURN(const Buffer out, rank->Upload(residual));
    MUSTER_RETURN_IF_ERROR(rank->workspace->Enqueue(
        *rank->stream, FusedAllReduceRmsNorm{.partial = partial.data(),
                                             .residual_in = in_place.data(),
                                             .weight = weights.as<float>(),
                                             .residual_out = in_place.data(),
                                             .norm_out = out.data(),
                                             .tokens = kTokens,
                                             .hidden = kHidden,
                                             .eps = 1e-5f,
                                             .dtype = DType::kBFloat16}));
    MUSTER_ASSIGN_OR_RETURN(const std::vector<float> got, rank->Download(in_place));
    if (got != Floats(wanted)) return absl::DataLossError("residual differs");
    MUSTER_ASSIGN_OR_RETURN(norms[two_shots], rank->Download(out));
  }
  return norms[0] == norms[1] ? absl::OkStatus() : absl::DataLossError("norm differs");
}
const RankCase kReduceInSlices("ReduceInSlices", ReduceInSlices);

absl::Status CombineBFloat16(RankContext& context) {
  const int tokens = 200, heads = 6, head_dim = 64, width = heads * head_dim;
  const int64_t slice = width / context.world;
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Rank> rank, Rank::Open(context));
  std::vector<std::vector<float>> parts, lse;
  LseMergeParams reference{
      .part_row_stride = width,
      .part_column = 0,
      .lse_row_stride = heads,
      .world = context.world,
      .head_dim = head_dim,
      .columns = {slice * context.rank.value(), slice * (context.rank.value() + 1)},
      .out_row_stride = slice};
  for (int r = 0; r < context.world; ++r) {
    parts.push_back(Floats(RandomValues(static_cast<size_t>(tokens) * width, r)));
    lse.push_back(Floats(RandomValues(static_cast<size_t>(tokens) * heads, 50 + r)));
    for (size_t i = static_cast<size_t>(r); i < lse.back().size(); i += 5)
      lse.back()[i] = -INFINITY;
  }
  for (int r = 0; r < context.world; ++r) {
    reference.parts[r] = parts[r].data();
    reference.lse[r] = lse[r].data();
  }
  std::vector<float> wanted(static_cast<size_t>(tokens * slice));
  reference.out = wanted.data();
  LseMergeReference(reference, {0, tokens});
  const int self = context.rank.value();
  MUSTER_ASSIGN_OR_RETURN(const Buffer partial,
                          rank->Upload(RandomValues(static_cast<size_t>(tokens) * width, self)));
  MUSTER_ASSIGN_OR_RETURN(const Buffer own_lse, rank->Upload(lse[self]));
  MUSTER_ASSIGN_OR_RETURN(const Buffer out, rank->Upload(std::vector<BFloat16>(wanted.size())));
  MUSTER_RETURN_IF_ERROR(
      rank->workspace->Enqueue(*rank->stream, CpCombine{.partial = partial.data(),
                                                        .lse = own_lse.as<float>(),
                                                        .out = out.data(),
                                                        .tokens = tokens,
                                                        .heads = heads,
                                                        .head_dim = head_dim,
                                                        .dtype = DType::kBFloat16}));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<float> got, rank->Download(out));
  for (size_t i = 0; i < got.size(); ++i) {
    // Half an ulp, and what a few roundings in float32 make of sums of parts below 8.
    if (std::abs(got[i] - wanted[i]) <= 0x1p-8 * std::abs(wanted[i]) + 1e-5) continue;
    return absl::DataLossError(absl::StrCat("at ", i, ": ", got[i], " for ", wanted[i]));
  }
  return absl::OkStatus();
}
const RankCase kCombineBFloat16("CombineBFloat16", CombineBFloat16);

absl::Status MeasureSwitchPoint(RankContext& context) {
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Rank> rank, Rank::Open(context));
  MUSTER_ASSIGN_OR_RETURN(const uint64_t bytes, rank->endpoint->MeasureTwoShotBytes(*rank->stream));
  if (bytes > kMessageBytes) return absl::OutOfRangeError(absl::StrCat(bytes, " bytes"));
  rank->workspace.reset();
  rank->endpoint.reset();
  return rank->ledger.total() == 0 ? absl::OkStatus() : absl::DataLossError("memory leaked");
}
const RankCase kMeasureSwitchPoint("MeasureSwitchPoint", MeasureSwitchPoint);

class IpcWorkspaceCudaTest : public ::testing::TestWithParam<int> {
 protected:
  void RunCase(const char* name) {
    EXPECT_OK(
        testing::AllOk(testing::RunRanks(GetParam(), name, {.as = testing::RanksAs::kProcesses})));
  }
};
INSTANTIATE_TEST_SUITE_P(Ranks, IpcWorkspaceCudaTest, ::testing::Values(2, 3));

TEST_P(IpcWorkspaceCudaTest, LongMessagesGoInSlicesWithTheReferencesBits) {
  RunCase("ReduceInSlices");
}
TEST_P(IpcWorkspaceCudaTest, CombinesSixteenBitsInSlices) { RunCase("CombineBFloat16"); }
TEST_P(IpcWorkspaceCudaTest, TheSwitchPointLiesWithinASlotAndNothingStaysAllocated) {
  RunCase("MeasureSwitchPoint");
}

}  // namespace
}  // namespace muster
