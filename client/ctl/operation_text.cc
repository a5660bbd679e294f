#include "client/ctl/operation_text.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

// In the order in which a rank goes through them.
constexpr std::array kPhases = {"assign", "load", "warmup", "capture", "activate", "release"};

size_t OrderOf(absl::string_view phase) {
  const absl::string_view label = phase.substr(0, phase.find('/'));
  return static_cast<size_t>(std::find(kPhases.begin(), kPhases.end(), label) - kPhases.begin());
}

std::vector<std::string> SizeChanges(const v1::ParallelConfig& from, const v1::ParallelConfig& to) {
  std::vector<std::string> changes;
  const auto add = [&](const char* name, uint32_t before, uint32_t after) {
    if (before != after) changes.push_back(absl::StrCat(name, " ", before, " → ", after));
  };
  add("tp", from.tp(), to.tp());
  add("cp", from.cp(), to.cp());
  add("pp", from.pp(), to.pp());
  return changes;
}

std::string WithNote(const std::string& note, const v1::ParallelConfig& from,
                     const v1::ParallelConfig& to) {
  if (note.empty()) return ShapeChange(from, to);
  std::vector<std::string> parts = SizeChanges(from, to);
  parts.insert(parts.begin(), note);
  return absl::StrJoin(parts, ", ");
}

// " (7.4 MiB, 6.1 GiB/s)"; empty where nothing was copied.
std::string Copied(const v1::ReplicaResize& resize) {
  if (resize.kv_bytes_moved() == 0) return "";
  const double seconds = absl::ToDoubleSeconds(DurationOf(resize.copy_time()));
  const double rate = static_cast<double>(resize.kv_bytes_moved()) / std::max(seconds, 1e-9);
  const std::string speed =
      seconds > 0 ? absl::StrCat(", ", HumanBytes(static_cast<uint64_t>(rate)), "/s") : "";
  return absl::StrCat(" (", HumanBytes(resize.kv_bytes_moved()), speed, ")");
}

bool TookEffect(const v1::ReplicaResize& resize) {
  return resize.stage() == v1::RESIZE_STAGE_DONE || resize.stage() == v1::RESIZE_STAGE_RELEASING;
}

}  // namespace

std::string ShapeChange(const v1::ParallelConfig& from, const v1::ParallelConfig& to) {
  const std::vector<std::string> changes = SizeChanges(from, to);
  return changes.empty() ? "same sizes" : absl::StrJoin(changes, ", ");
}

std::string ChangeText(const v1::ReplicaResize& resize) {
  return WithNote(resize.note(), resize.from(), resize.to());
}

std::string ChangeText(const v1::ReplicaChange& change) {
  return WithNote(change.note(), change.from(), change.to());
}

std::string RankList(const std::vector<uint32_t>& ranks) {
  std::vector<std::string> runs;
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    if (end - i >= 3) {
      runs.push_back(absl::StrCat(ranks[i], "-", ranks[end - 1]));
    } else {
      runs.push_back(absl::StrJoin(ranks.begin() + static_cast<ptrdiff_t>(i),
                                   ranks.begin() + static_cast<ptrdiff_t>(end), " "));
    }
    i = end;
  }
  return absl::StrJoin(runs, " ");
}

std::string ResizeSummary(const v1::ReplicaResize& resize) {
  std::string line = absl::StrCat(
      ChangeText(resize), ": prepare ", HumanDuration(DurationOf(resize.prepare_time())),
      ", pause ", HumanDuration(DurationOf(resize.pause())), ", ",
      Count(resize.kv_blocks_moved(), "KV block"), " moved", Copied(resize), ", ",
      WithCommas(resize.kv_blocks_kept()), " kept, ", Count(resize.sequences(), "sequence"));
  if (resize.tokens_rebuilt() > 0) {
    absl::StrAppend(&line, ", ", Count(resize.tokens_rebuilt(), "token"), " computed again");
  }
  if (resize.sequences_dropped() > 0) {
    absl::StrAppend(&line, ", ", Count(resize.sequences_dropped(), "sequence"), " dropped");
  }
  return line;
}

std::string DoneLine(const v1::Operation& operation) {
  const absl::Duration took = TimeOf(operation.ended()) - TimeOf(operation.started());
  return absl::StrCat(operation.summary(), ": done in ", HumanDuration(took));
}

std::string SlowestPhase(const v1::ReplicaResize& resize) {
  std::string slowest;
  size_t order = kPhases.size() + 1;
  for (const auto& rank : resize.ranks()) {
    const std::string& phase = rank.progress().phase();
    if (phase.empty() || OrderOf(phase) >= order) continue;
    order = OrderOf(phase);
    slowest = phase;
  }
  return slowest;
}

std::string StageText(const v1::ReplicaResize& resize) {
  switch (resize.stage()) {
    case v1::RESIZE_STAGE_WAITING:
      return "waits for its turn";
    case v1::RESIZE_STAGE_PREPARING: {
      const std::string phase = SlowestPhase(resize);
      return phase.empty() ? "prepare" : absl::StrCat("prepare ", phase);
    }
    case v1::RESIZE_STAGE_ACTIVATING:
      return "activate";
    case v1::RESIZE_STAGE_RELEASING:
      return "release";
    case v1::RESIZE_STAGE_DONE:
      return "done";
    case v1::RESIZE_STAGE_ROLLED_BACK:
      return "rolled back";
    case v1::RESIZE_STAGE_FAILED:
      return "failed";
    default:
      return "";
  }
}

std::string RunningLine(const v1::Operation& operation, absl::Time now) {
  std::string line = absl::StrCat(CommandOf(operation.kind()), " '", operation.summary(),
                                  "' runs for ", HumanDuration(now - TimeOf(operation.started())));
  for (const auto& resize : operation.replicas()) {
    const bool under_way = resize.stage() == v1::RESIZE_STAGE_PREPARING ||
                           resize.stage() == v1::RESIZE_STAGE_ACTIVATING ||
                           resize.stage() == v1::RESIZE_STAGE_RELEASING;
    if (!under_way) continue;
    absl::StrAppend(&line, ": replica ", resize.replica(), " ", StageText(resize));
    break;
  }
  return absl::StrCat(line, " (", operation.id(), ")");
}

std::optional<std::string> LastResize(const v1::ListOperationsResponse& operations,
                                      absl::Time now) {
  for (const auto& operation : operations.operations()) {
    const auto& resizes = operation.replicas();
    const auto last = std::find_if(resizes.rbegin(), resizes.rend(), TookEffect);
    if (last == resizes.rend() || !operation.has_ended()) continue;
    return absl::StrCat("last resize: ", ChangeText(*last), ", ",
                        Ago(now - TimeOf(operation.ended())), ", pause ",
                        HumanDuration(DurationOf(last->pause())));
  }
  return std::nullopt;
}

const v1::Operation* RunningOperation(const v1::ListOperationsResponse& operations) {
  for (const auto& operation : operations.operations()) {
    if (operation.state() == v1::OPERATION_STATE_RUNNING) return &operation;
  }
  return nullptr;
}

std::string CommandOf(v1::OperationKind kind) {
  switch (kind) {
    case v1::OPERATION_KIND_SCALE_CONTEXT_PARALLEL:
      return "scale-cp";
    case v1::OPERATION_KIND_APPLY_TOPOLOGY:
      return "apply";
    case v1::OPERATION_KIND_DRAIN_WORKER:
      return "drain";
    default:
      return "operation";
  }
}

std::string Ago(absl::Duration age) {
  const auto seconds = std::max<int64_t>(0, absl::ToInt64Seconds(age));
  for (const auto& [unit, length] : {std::pair("d", 86400), {"h", 3600}, {"min", 60}}) {
    if (seconds >= length) return absl::StrCat(seconds / length, " ", unit, " ago");
  }
  return absl::StrCat(seconds, " s ago");
}

absl::Duration DurationOf(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

absl::Time TimeOf(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

}  // namespace muster::ctl
