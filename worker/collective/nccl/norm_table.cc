#include "worker/collective/nccl/norm_table.h"

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "kernels/add_rms_norm.h"
#include "kernels/cuda_status.h"
#include "worker/collective/nccl/collectives_benchmark_reference.h"

namespace muster {
namespace {

constexpr int kHidden[] = {4096, 7168}, kTokens[] = {1, 8, 32, 128, 512, 2048};
// Of NCCL where ranks share a GPU.
constexpr int kMostThroughSockets = 128;
constexpr float kEps = 1e-5f;

struct Way {
  bool wanted;
  int roundings;  // as of NormReference
  std::function<absl::Status(const FusedAllReduceRmsNorm&)> enqueue;
  bool alone = false;  // without the other ranks' summands
};

bool NcclCompares(const CollectivesBench& bench, int tokens) {
  return bench.plain != nullptr && (bench.ranks_on_gpu == 1 || tokens <= kMostThroughSockets);
}

FusedAllReduceRmsNorm NormOp(const CollectivesBench& bench, int tokens, int hidden) {
  return {.partial = bench.partial.data(),
          .residual_in = bench.residual.data(),
          .weight = bench.weight.as<float>(),
          .residual_out = bench.residual_out.data(),
          .norm_out = bench.norm.data(),
          .tokens = tokens,
          .hidden = hidden,
          .eps = kEps,
          .dtype = DType::kBFloat16};
}

absl::Status EnqueueNorm(CollectivesBench& bench, const FusedAllReduceRmsNorm& op,
                         const void* sum) {
  return CudaStatus(AddRmsNormCuda({.a = sum,
                                    .residual_in = op.residual_in,
                                    .weight = op.weight,
                                    .eps = op.eps,
                                    .hidden = op.hidden,
                                    .residual_out = op.residual_out,
                                    .out = op.norm_out,
                                    .activation = op.dtype},
                                   op.tokens, bench.cuda_stream()),
                    "residual and norm");
}

absl::Status EnqueueFramework(CollectivesBench& bench, const FusedAllReduceRmsNorm& op) {
  const size_t count = static_cast<size_t>(op.tokens) * static_cast<size_t>(op.hidden);
  MUSTER_RETURN_IF_ERROR(
      bench.plain->AllReduceInPlace(bench.summed.data(), count, bench.cuda_stream()));
  return EnqueueNorm(bench, op, bench.summed.data());
}

// In the order of the table's columns.
std::vector<Way> NormWays(CollectivesBench& bench, int tokens) {
  const auto through = [&bench](const std::unique_ptr<CollectiveSet>& set) {
    return [&bench, &set](const FusedAllReduceRmsNorm& op) {
      return set->workspace(GroupKind::kStage).value()->Enqueue(*bench.stream, op);
    };
  };
  const bool nccl = NcclCompares(bench, tokens);
  return {{.wanted = true, .roundings = 1, .enqueue = through(bench.fused)},
          {.wanted = true, .roundings = 2, .enqueue = through(bench.unfused)},
          {.wanted = nccl, .roundings = 1, .enqueue = through(bench.over_nccl)},
          {.wanted = nccl,
           .roundings = bench.context.world,
           .enqueue = [&bench](const auto& op) { return EnqueueFramework(bench, op); }},
          {.wanted = true,
           .roundings = 1,
           .enqueue = [&bench](const auto& op) { return EnqueueNorm(bench, op, op.partial); },
           .alone = true}};
}

absl::Status Verify(CollectivesBench& bench, const Way& way, const FusedAllReduceRmsNorm& op) {
  MUSTER_RETURN_IF_ERROR(bench.Clear(bench.residual_out, CollectivesBench::kNan));
  MUSTER_RETURN_IF_ERROR(bench.Clear(bench.norm, CollectivesBench::kNan));
  MUSTER_RETURN_IF_ERROR(bench.device->Copy(*bench.stream, bench.summed.data(),
                                            bench.partial.data(), bench.summed.size()));
  MUSTER_RETURN_IF_ERROR(way.enqueue(op));
  NormReference wanted{.summands = {},
                       .residual = bench.residuals.data(),
                       .weight = bench.weights.data(),
                       .tokens = op.tokens,
                       .hidden = op.hidden,
                       .eps = op.eps,
                       .roundings = way.roundings};
  for (int r = 0; r < bench.context.world; ++r) {
    if (way.alone && r != bench.rank()) continue;
    wanted.summands.push_back(bench.partials[static_cast<size_t>(r)].data());
  }
  MUSTER_ASSIGN_OR_RETURN(const std::vector<BFloat16> residual,
                          bench.Download<BFloat16>(bench.residual_out, wanted.count()));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<BFloat16> norm,
                          bench.Download<BFloat16>(bench.norm, wanted.count()));
  // Sums in place of zeros stay finite however often they are summed.
  MUSTER_RETURN_IF_ERROR(bench.Clear(bench.summed, 0));
  return wanted.Check(residual, norm);
}

}  // namespace

absl::Status PrintNormTable(CollectivesBench& bench, double copy_speed) {
  bench.Say(
      "\n| hidden | tokens | fused | unfused | over NCCL | ncclAllReduce, then norm | norm alone | "
      "floor |\n|---|---|---|---|---|---|---|---|");
  for (int hidden : kHidden) {
    for (int tokens : kTokens) {
      const FusedAllReduceRmsNorm op = NormOp(bench, tokens, hidden);
      std::string row = absl::StrFormat("| %d | %d |", hidden, tokens);
      for (const Way& way : NormWays(bench, tokens)) {
        if (!way.wanted) {
          absl::StrAppend(&row, " - |");
          continue;
        }
        MUSTER_RETURN_IF_ERROR(Verify(bench, way, op));
        MUSTER_ASSIGN_OR_RETURN(const double micros,
                                bench.timer->TimeInGraph([&] { return way.enqueue(op); }));
        absl::StrAppendFormat(&row, " %.2f |", micros);
      }
      const double bytes = 2.0 * (bench.context.world - 1) / bench.context.world * tokens * hidden *
                           static_cast<double>(sizeof(BFloat16));
      bench.Say(absl::StrFormat("%s %.2f |", row, bytes / copy_speed));
    }
  }
  return absl::OkStatus();
}

}  // namespace muster
