#include "worker/collective/nccl/combine_table.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "kernels/lse_merge.h"
#include "worker/collective/nccl/collectives_benchmark_reference.h"

namespace muster {
namespace {

constexpr int kCombineWidth = CollectivesBench::kHeads * CollectivesBench::kHeadDim;

CpCombine CombineOp(const CollectivesBench& bench, int tokens) {
  return {.partial = bench.partial.data(),
          .lse = bench.lse.as<float>(),
          .out = bench.norm.data(),
          .tokens = tokens,
          .heads = CollectivesBench::kHeads,
          .head_dim = CollectivesBench::kHeadDim,
          .dtype = DType::kBFloat16};
}

absl::Status Verify(CollectivesBench& bench, Workspace& workspace, int tokens) {
  const int64_t slice = kCombineWidth / bench.context.world;
  LseMergeParams params{.part_row_stride = kCombineWidth,
                        .part_column = 0,
                        .lse_row_stride = CollectivesBench::kHeads,
                        .world = bench.context.world,
                        .head_dim = CollectivesBench::kHeadDim,
                        .columns = {slice * bench.rank(), slice * (bench.rank() + 1)},
                        .out_row_stride = slice};
  std::vector<std::vector<float>> parts(bench.partials.size());
  for (size_t r = 0; r < parts.size(); ++r) {
    for (int i = 0; i < tokens * kCombineWidth; ++i) {
      parts[r].push_back(static_cast<float>(bench.partials[r][static_cast<size_t>(i)]));
    }
    params.parts[r] = parts[r].data();
    params.lse[r] = bench.lses[r].data();
  }
  std::vector<float> wanted(static_cast<size_t>(tokens * slice));
  params.out = wanted.data();
  LseMergeReference(params, {0, tokens});
  MUSTER_RETURN_IF_ERROR(bench.Clear(bench.norm, CollectivesBench::kNan));
  MUSTER_RETURN_IF_ERROR(workspace.Enqueue(*bench.stream, CombineOp(bench, tokens)));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<BFloat16> got,
                          bench.Download<BFloat16>(bench.norm, wanted.size()));
  for (size_t i = 0; i < got.size(); ++i) {
    const double value = static_cast<float>(got[i]);
    // What a few roundings in float32 make of sums of parts below 2, and the last one.
    if (std::abs(value - wanted[i]) <= kRounding * std::abs(wanted[i]) + 1e-5) continue;
    return absl::DataLossError(absl::StrCat("combined at ", i, ": ", value, " for ", wanted[i]));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PrintCombineTable(CollectivesBench& bench, double copy_speed) {
  bench.Say(
      absl::StrFormat("\nCP combine, %d heads of %d\n\n| tokens | fused | over NCCL | floor |\n"
                      "|---|---|---|---|",
                      CollectivesBench::kHeads, CollectivesBench::kHeadDim));
  for (int tokens = 1; tokens <= CollectivesBench::kMostCombined; tokens *= 2) {
    std::string row = absl::StrFormat("| %d |", tokens);
    for (const CollectiveSet* set : {bench.fused.get(), bench.over_nccl.get()}) {
      if (set == nullptr) {
        absl::StrAppend(&row, " - |");
        continue;
      }
      Workspace& workspace = *set->workspace(GroupKind::kCp).value();
      MUSTER_RETURN_IF_ERROR(Verify(bench, workspace, tokens));
      MUSTER_ASSIGN_OR_RETURN(const double micros, bench.timer->TimeInGraph([&] {
        return workspace.Enqueue(*bench.stream, CombineOp(bench, tokens));
      }));
      absl::StrAppendFormat(&row, " %.2f |", micros);
    }
    const double row_bytes =
        kCombineWidth * sizeof(BFloat16) + CollectivesBench::kHeads * sizeof(float);
    const double bytes = (bench.context.world - 1) * tokens * row_bytes / bench.context.world;
    bench.Say(absl::StrFormat("%s %.2f |", row, bytes / copy_speed));
  }
  return absl::OkStatus();
}

}  // namespace muster
