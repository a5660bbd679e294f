#include "client/ctl/up_display.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/wire_json.h"
#include "client/ctl/text.h"
#include "client/ctl/topology_picture.h"

namespace muster::ctl {
namespace {

constexpr int kLabelWidth = 11;
constexpr int kTimeColumn = 74;
constexpr int kTextWidth = 78 - 2 - kLabelWidth;
constexpr int kBarWidth = 26;

// The longest that any replica needed, once all have finished the phase.
std::optional<absl::Duration> PhaseDuration(const FleetSnapshot& snapshot, absl::string_view name) {
  double longest = 0;
  for (const auto& replica : snapshot.topology.replicas()) {
    const auto& phases = replica.phases();
    const auto phase = std::find_if(phases.begin(), phases.end(),
                                    [&](const auto& entry) { return entry.phase() == name; });
    if (phase == phases.end()) return std::nullopt;
    longest = std::max(longest, Milliseconds(phase->duration()));
  }
  return absl::Milliseconds(longest);
}

// The part of a ledger's tag that names a kind of memory: "workspace STAGE[0,1]" -> "workspace".
std::string KindOf(const std::string& tag) { return tag.substr(0, tag.find('/')); }

struct LedgerSum {
  std::map<std::string, uint64_t> bytes;  // by kind
  std::map<std::string, int> entries;     // by kind
  uint64_t kv_blocks = 0;
  uint32_t block_tokens = 0;
};

// Of all ranks the one that holds most.
LedgerSum LargestLedger(const FleetSnapshot& snapshot) {
  LedgerSum largest;
  uint64_t most = 0;
  for (const auto& replica : snapshot.topology.replicas()) {
    for (const auto& ledger : replica.ledgers()) {
      LedgerSum sum;
      uint64_t total = 1;
      for (const auto& entry : ledger.entries()) {
        sum.bytes[KindOf(entry.tag())] += entry.bytes();
        sum.entries[KindOf(entry.tag())] += 1;
        total += entry.bytes();
      }
      sum.kv_blocks = ledger.kv_blocks();
      sum.block_tokens = ledger.block_tokens();
      if (total > most) largest = sum;
      most = std::max(most, total);
    }
  }
  return largest;
}

// "workers w0 w1 .. w9", of those with an index in [begin, end).
std::string WorkerNames(absl::string_view noun, int begin, int end) {
  std::string names = absl::StrCat(noun, end - begin == 1 ? "" : "s");
  for (int i = begin; i < end; ++i) {
    const bool skipped = end - begin > 8 && i >= begin + 2 && i + 1 < end;
    if (!skipped) absl::StrAppend(&names, " ", LocalFleet::WorkerId(i));
    if (skipped && i == begin + 2) names += " ..";
  }
  return names;
}

}  // namespace

Terminal TerminalOf(std::FILE* out) {
  const char* term = std::getenv("TERM");
  const char* no_color = std::getenv("NO_COLOR");
  Terminal terminal{out};
  terminal.live = isatty(fileno(out)) != 0 && term != nullptr && absl::string_view(term) != "dumb";
  terminal.color = terminal.live && (no_color == nullptr || *no_color == '\0');
  return terminal;
}

void UpDisplay::Started(const LocalFleet& fleet) {
  if (titled_) Print(terminal_.color ? "\033[1mmuster up\033[0m\n" : "muster up\n");
  const int workers = static_cast<int>(fleet.processes().size()) - 1;
  std::string names = WorkerNames("worker", 0, workers);
  if (fleet.standbys() > 0) {
    absl::StrAppend(&names, ", ", WorkerNames("standby", workers, workers + fleet.standbys()));
  }
  Fact("fleet", absl::StrCat("coordinator ", fleet.coordinator_address(), ", ", names));
  const std::string tls = fleet.TlsFolder("scheduler");
  if (!tls.empty()) Fact("tls", absl::StrCat("a scheduler's certificate: --tls ", tls));
}

void UpDisplay::Changed(const FleetSnapshot& snapshot) {
  ShowModel(snapshot);
  ShowTopologies(snapshot);
  ShowFinishedPhases(snapshot);
  ShowProgress(snapshot);
  if (serving_) ShowTurns(snapshot);
}

void UpDisplay::Serving(const FleetSnapshot& snapshot, const v1::GetModelResponse& model) {
  ShowCapture(snapshot, model);
  ShowLedger(snapshot);
  serving_ = true;
  const int replicas = snapshot.topology.replicas_size();
  Fact("serving", replicas == 1 ? "" : Count(replicas, "replica"));
  if (!titled_) return;
  Print(
      "\n  Try in another terminal:\n"
      "    musterctl status\n"
      "    musterctl events --follow\n"
      "    musterctl forward --prompt-tokens 1,2,3 --max-tokens 8\n"
      "  Ctrl-C ends the fleet.\n");
}

void UpDisplay::ProcessEnded(const ChildProcess& process) {
  // A fleet that never served ends with an error that says this.
  if (!serving_) return;
  Fact("lost", absl::StrCat(process.name(), " (process ", process.pid(), ") ", process.Fate()));
}

void UpDisplay::Failed(const absl::Status&) { ClearLive(); }

void UpDisplay::Stopped(int count, absl::Duration took) {
  Fact("ended", absl::StrCat(count, " processes"), HumanDuration(took));
}

void UpDisplay::ShowModel(const FleetSnapshot& snapshot) {
  if (model_shown_ || snapshot.workers.workers_size() == 0) return;
  model_shown_ = true;
  const v1::ModelSpec& model = snapshot.workers.workers(0).model();
  Fact("model",
       absl::StrCat(model.name(), ", ", model.dtype(), ", ", Count(model.layers(), "layer"), ", ",
                    Count(model.heads(), "head"), ", ", HumanBytes(model.weight_bytes())));
}

void UpDisplay::ShowTopologies(const FleetSnapshot& snapshot) {
  for (const auto& replica : snapshot.topology.replicas()) {
    const v1::Topology& topology = replica.topology();
    if (topology.ranks_size() == 0 || (serving_ && !titled_)) continue;
    if (!topologies_shown_.emplace(topology.replica(), topology.epoch()).second) continue;
    std::string text =
        absl::StrCat("epoch ", topology.epoch(), "   ", ParallelSizes(topology.config()));
    if (snapshot.topology.replicas_size() > 1) {
      absl::StrAppend(&text, "   replica ", topology.replica());
    }
    Fact("topology", text);
    Print(absl::StrCat("\n", TopologyPicture(topology, snapshot.workers, 15), "\n"));
  }
}

void UpDisplay::ShowFinishedPhases(const FleetSnapshot& snapshot) {
  for (const char* name : {"load", "warmup"}) {
    const std::optional<absl::Duration> took = PhaseDuration(snapshot, name);
    if (!took.has_value() || !phases_shown_.insert(name).second) continue;
    const bool load = absl::string_view(name) == "load";
    std::string text = terminal_.live && load ? Bar(1, kBarWidth) : "";
    if (load && load_bytes_ > 0) {
      absl::StrAppend(&text, text.empty() ? "" : " ", HumanBytes(load_bytes_), " per rank");
    }
    if (!load) text = "vote ✓  exchange ✓  open ✓  self-test ✓  sealed";
    Fact(name, text, HumanDuration(*took));
  }
}

void UpDisplay::ShowProgress(const FleetSnapshot& snapshot) {
  // The phase that most ranks have still before them is the one that is waited for.
  std::map<std::string, v1::Progress> sums;
  std::map<std::string, int> ranks;
  for (const auto& worker : snapshot.workers.workers()) {
    const v1::Progress& progress = worker.progress();
    if (progress.phase().empty()) continue;
    v1::Progress& sum = sums[progress.phase()];
    sum.set_done(sum.done() + progress.done());
    sum.set_total(sum.total() + progress.total());
    ranks[progress.phase()] += 1;
    if (progress.phase() == "load") load_bytes_ = std::max(load_bytes_, progress.total());
  }
  if (!terminal_.live || serving_ || sums.empty()) return;
  const auto [phase, sum] = *std::max_element(
      sums.begin(), sums.end(),
      [&](const auto& a, const auto& b) { return ranks[a.first] < ranks[b.first]; });
  const std::string label = phase.substr(0, phase.find('/'));
  if (phases_shown_.count(label) > 0) return;
  std::string line = absl::StrCat("  ", PadRight(label, kLabelWidth));
  if (sum.total() > 0) {
    const double fraction = static_cast<double>(sum.done()) / static_cast<double>(sum.total());
    absl::StrAppend(&line, Bar(fraction, kBarWidth), " ");
  }
  absl::StrAppend(&line, label == phase ? "" : phase.substr(label.size() + 1));
  Live(line);
}

void UpDisplay::ShowTurns(const FleetSnapshot& snapshot) {
  for (const auto& event : snapshot.new_events) {
    if (event.kind() == v1::EVENT_KIND_EPOCH_FAILED) Fact("failed", event.message());
    if (event.kind() == v1::EVENT_KIND_SERVING) Fact("serving", event.message());
    if (event.kind() == v1::EVENT_KIND_ROLLED_BACK) Fact("rolled back", event.message());
    if (event.kind() == v1::EVENT_KIND_RESIZED && titled_) Fact("resized", event.message());
  }
}

void UpDisplay::ShowCapture(const FleetSnapshot& snapshot, const v1::GetModelResponse& model) {
  const auto& buckets = model.buckets();
  std::string text = "no graphs";
  if (!buckets.empty()) {
    text = absl::StrCat(Count(buckets.size(), "graph"), " (", buckets.Get(0), " .. ",
                        buckets.Get(buckets.size() - 1), " rows)");
  }
  const auto took = PhaseDuration(snapshot, "capture");
  Fact("capture", text, took.has_value() ? HumanDuration(*took) : "");
}

void UpDisplay::ShowLedger(const FleetSnapshot& snapshot) {
  LedgerSum sum = LargestLedger(snapshot);
  const uint64_t kv = std::exchange(sum.bytes["kv"], 0);
  std::vector<std::string> items;
  const auto add = [&](const std::string& kind) {
    const uint64_t bytes = std::exchange(sum.bytes[kind], 0);
    if (bytes == 0) return;
    const bool workspaces = kind == "workspace";
    items.push_back(absl::StrCat(workspaces ? "workspaces" : kind, " ", HumanBytes(bytes)));
    if (workspaces) items.back() += absl::StrCat(" (", Count(sum.entries[kind], "group"), ")");
  };
  for (const char* kind : {"weights", "workspace", "graphs"}) add(kind);
  for (const auto& [kind, entries] : sum.entries) add(kind);
  std::string label = "per rank";
  for (const std::string& line : WrapList(items, kTextWidth)) Fact(std::exchange(label, ""), line);
  Fact("", absl::StrCat("KV cache ", HumanBytes(kv), " (", Count(sum.kv_blocks, "block"), " of ",
                        Count(sum.block_tokens, "token"), ")"));
}

void UpDisplay::Fact(absl::string_view label, absl::string_view text, absl::string_view time) {
  ClearLive();
  std::string line = absl::StrCat("  ", PadRight(label, kLabelWidth), text);
  if (!time.empty()) {
    const int gap = kTimeColumn - DisplayWidth(line) - DisplayWidth(time);
    absl::StrAppend(&line, std::string(std::max(3, gap), ' '), time);
  }
  Print(absl::StrCat(absl::StripTrailingAsciiWhitespace(line), "\n"));
}

void UpDisplay::Live(const std::string& line) {
  if (!terminal_.live) return;
  std::fputs(absl::StrCat("\r\033[K", line).c_str(), terminal_.out);
  std::fflush(terminal_.out);
  live_shown_ = true;
}

void UpDisplay::ClearLive() {
  if (!live_shown_) return;
  std::fputs("\r\033[K", terminal_.out);
  live_shown_ = false;
}

void UpDisplay::Print(absl::string_view text) {
  ClearLive();
  std::fwrite(text.data(), 1, text.size(), terminal_.out);
  std::fflush(terminal_.out);
}

}  // namespace muster::ctl
