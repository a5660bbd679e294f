#include "client/ctl/operation_display.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/ctl/operation_text.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

constexpr int kLabelWidth = 11;
constexpr int kTimeColumn = 74;
constexpr int kBarWidth = 20;
constexpr int kMostRanks = 16;

// "  label      text                                    0.4 s"
std::string Fact(absl::string_view label, absl::string_view text, absl::string_view time) {
  const std::string line = absl::StrCat("  ", PadRight(label, kLabelWidth), text);
  const int gap = kTimeColumn - DisplayWidth(line) - DisplayWidth(time);
  if (!time.empty()) return absl::StrCat(line, std::string(std::max(3, gap), ' '), time);
  return line.substr(0, line.find_last_not_of(' ') + 1);
}

// The step of a resize that a line is printed for, by its place among them.
struct Step {
  int order = -1;
  std::string name;
};

Step StepOf(const v1::ReplicaResize& resize) {
  switch (resize.stage()) {
    case v1::RESIZE_STAGE_PREPARING: {
      const std::string phase = SlowestPhase(resize);
      const std::string name = phase.substr(0, phase.find('/'));
      const int order = name == "load" ? 1 : name == "warmup" ? 2 : name == "capture" ? 3 : 0;
      return {order, order == 0 ? "prepare" : name};
    }
    case v1::RESIZE_STAGE_ACTIVATING:
      return {4, "activate"};
    case v1::RESIZE_STAGE_RELEASING:
      return {5, "release"};
    case v1::RESIZE_STAGE_DONE:
      return {6, ""};
    default:
      return {};
  }
}

std::string RankLine(const v1::RankProgress& rank, int name_width) {
  const v1::Progress& progress = rank.progress();
  std::string line =
      absl::StrCat("             rank ", PadRight(absl::StrCat(rank.rank()), 3), " ",
                   PadRight(rank.worker_id(), name_width), "  ", PadRight(progress.phase(), 16));
  if (progress.total() == 0) return line;
  const double share = static_cast<double>(progress.done()) / static_cast<double>(progress.total());
  return absl::StrCat(line, "  ", Bar(share, kBarWidth), absl::StrFormat(" %3.0f %%", 100 * share));
}

bool IsUnderWay(const v1::ReplicaResize& resize) {
  return resize.stage() == v1::RESIZE_STAGE_PREPARING ||
         resize.stage() == v1::RESIZE_STAGE_ACTIVATING ||
         resize.stage() == v1::RESIZE_STAGE_RELEASING;
}

}  // namespace

void OperationDisplay::Show(const v1::Operation& operation, absl::Time now) {
  if (!titled_) {
    titled_ = true;
    lines_.Print(absl::StrCat(CommandOf(operation.kind()), "   ", operation.summary(),
                              "   operation ", operation.id()));
  }
  for (const auto& resize : operation.replicas()) Advance(operation, resize, now);
  ShowRanks(operation, now);
}

void OperationDisplay::Advance(const v1::Operation& operation, const v1::ReplicaResize& resize,
                               absl::Time now) {
  const Step step = StepOf(resize);
  Phase& phase = phases_[resize.replica()];
  if (step.order <= phase.order) return;
  if (phase.order >= 0) {
    std::string text =
        operation.replicas_size() > 1 ? absl::StrCat("replica ", resize.replica()) : "";
    if (phase.name == "activate") {
      absl::StrAppend(&text, text.empty() ? "" : "   ", "epoch ", resize.from_epoch(), " → ",
                      resize.to_epoch());
    }
    lines_.Print(Fact(phase.name, text, HumanDuration(now - phase.since)));
  }
  phase = {.order = step.order, .name = step.name, .since = now};
}

void OperationDisplay::ShowRanks(const v1::Operation& operation, absl::Time now) {
  if (!lines_.live()) return;
  std::vector<std::string> lines;
  for (const auto& resize : operation.replicas()) {
    if (!IsUnderWay(resize)) continue;
    const Phase& phase = phases_[resize.replica()];
    const std::string which =
        operation.replicas_size() > 1 ? absl::StrCat("replica ", resize.replica()) : "";
    lines.push_back(Fact(phase.name, which, HumanDuration(now - phase.since)));
    int name_width = 0;
    for (const auto& rank : resize.ranks()) {
      name_width = std::max(name_width, DisplayWidth(rank.worker_id()));
    }
    const int count = std::min(resize.ranks_size(), kMostRanks);
    for (int i = 0; i < count; ++i) lines.push_back(RankLine(resize.ranks(i), name_width));
    if (count < resize.ranks_size()) {
      lines.push_back(absl::StrCat("             and ", resize.ranks_size() - count, " more"));
    }
  }
  lines_.Rewrite(lines);
}

}  // namespace muster::ctl
