#include "client/ctl/top_view.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/wire_operation_json.h"
#include "client/ctl/fleet_text.h"
#include "client/ctl/operation_text.h"
#include "client/ctl/text.h"
#include "client/ctl/topology_picture.h"

namespace muster::ctl {
namespace {

using Lines = std::vector<ScreenLine>;
using Style = ScreenLine::Style;
using Workers = std::vector<const v1::WorkerStatus*>;

constexpr int kWideColumns = 110;
constexpr int kLowRows = 20;
constexpr int kLeastEvents = 3;  // shown while workers are left out
constexpr int kMostEvents = 5;   // shown where there is no end of room
constexpr int kShortestName = 8;

// `text` in at most `width` columns, cut with an ellipsis; nothing in it moves the cursor.
std::string Fit(absl::string_view text, int width) {
  std::string fit;
  int columns = 0;
  const bool cut = DisplayWidth(text) > width;
  for (const char c : text) {
    const bool begins = (c & 0xC0) != 0x80;
    if (begins && cut && columns == width - 1) return absl::StrCat(fit, width > 0 ? "…" : "");
    columns += begins ? 1 : 0;
    fit += absl::ascii_iscntrl(static_cast<unsigned char>(c)) ? '?' : c;
  }
  return fit;
}

// Three digits or so.
std::string RateText(double per_second) {
  if (per_second >= 99.95) return WithCommas(static_cast<uint64_t>(per_second + 0.5));
  return absl::StrFormat("%.1f", per_second);
}

struct ReplicaSums {
  std::optional<TopRates::Rate> rate;  // of the leader, which runs every step
  uint64_t kv_used = 0;
  uint64_t kv_total = 0;
  uint32_t queued = 0;
};

ReplicaSums Sum(const Workers& workers, const TopRates& rates) {
  ReplicaSums sums;
  for (const auto* worker : workers) {
    sums.kv_used += worker->kv_blocks_used();
    sums.kv_total += worker->kv_blocks_total();
    sums.queued += worker->queued_requests();
    if (worker->has_rank() && worker->rank() == 0) sums.rate = rates.Of(*worker);
  }
  return sums;
}

// "  37.2 steps/s   412 tokens/s   queue 3   KV ████░░░░  52 % of 2,912 blocks"
std::string SumLine(const ReplicaSums& sums, bool wide) {
  std::string line = sums.rate.has_value()
                         ? absl::StrCat("  ", RateText(sums.rate->steps_per_second), " steps/s   ",
                                        RateText(sums.rate->tokens_per_second), " tokens/s")
                         : "  - steps/s   - tokens/s";
  absl::StrAppend(&line, "   queue ", WithCommas(sums.queued));
  if (sums.kv_total == 0) return line;
  return absl::StrCat(line, "   KV ", KvUsed(sums.kv_used, sums.kv_total, wide ? 40 : 8), " of ",
                      WithCommas(sums.kv_total), " blocks");
}

std::string PhaseText(const v1::Progress& progress) {
  if (progress.total() == 0) return progress.phase();
  const double share = static_cast<double>(progress.done()) / static_cast<double>(progress.total());
  return absl::StrFormat("%s %.0f %%", progress.phase(), 100 * share);
}

class WorkerTable {
 public:
  WorkerTable(const TopRates& rates, const ScreenSize& size)
      : rates_(rates), columns_(size.columns), wide_(size.columns >= kWideColumns) {}

  // Names are cut to what makes every line fit, though not to nothing.
  Lines For(const Workers& workers) const {
    int name_width = kShortestName;
    for (const auto* worker : workers) {
      name_width = std::max(name_width, DisplayWidth(worker->worker_id()));
    }
    Lines lines = Build(workers, name_width);
    int widest = 0;
    for (const ScreenLine& line : lines) widest = std::max(widest, DisplayWidth(line.text));
    if (widest <= columns_) return lines;
    return Build(workers, std::max(kShortestName, name_width - (widest - columns_)));
  }

 private:
  Lines Build(const Workers& workers, int name_width) const {
    constexpr auto kRight = Table::Align::kRight;
    std::vector<Table::Column> columns = {
        {"RANK"}, {""}, {"WORKER"}, {"DEVICE"}, {"STATE"}, {"STEP", kRight}, {"STEPS/S", kRight}};
    if (wide_) columns.push_back({"TOKENS/S", kRight});
    columns.push_back({"KV USED"});
    if (wide_) columns.push_back({"KV BLOCKS", kRight});
    columns.push_back({"BEAT", kRight});
    if (wide_) columns.push_back({"PHASE"});
    Table table(std::move(columns));
    for (const auto* worker : workers) table.AddRow(Row(*worker, name_width));
    Lines lines;
    for (absl::string_view line : absl::StrSplit(table.ToString(), '\n', absl::SkipEmpty())) {
      lines.push_back({std::string(line), lines.empty() ? Style::kHeading : Style::kPlain});
    }
    for (size_t i = 0; i < workers.size(); ++i) {
      if (workers[i]->state() == v1::WORKER_STATE_FAILED) lines[i + 1].style = Style::kAlarm;
    }
    return lines;
  }

  std::vector<std::string> Row(const v1::WorkerStatus& worker, int name_width) const {
    const auto rate = rates_.Of(worker);
    const bool leader = worker.has_rank() && worker.rank() == 0;
    std::vector<std::string> row = {worker.has_rank() ? absl::StrCat(worker.rank()) : "-",
                                    leader ? "*" : "",
                                    Fit(worker.worker_id(), name_width),
                                    DeviceName(worker.device()),
                                    WorkerStateName(worker),
                                    worker.step() == 0 ? "-" : WithCommas(worker.step()),
                                    rate.has_value() ? RateText(rate->steps_per_second) : "-"};
    if (wide_) row.push_back(rate.has_value() ? RateText(rate->tokens_per_second) : "-");
    row.push_back(KvUsed(worker.kv_blocks_used(), worker.kv_blocks_total(), wide_ ? 20 : 8));
    if (wide_) {
      row.push_back(absl::StrCat(WithCommas(worker.kv_blocks_used()), " / ",
                                 WithCommas(worker.kv_blocks_total())));
    }
    row.push_back(HumanDuration(absl::Milliseconds(Milliseconds(worker.heartbeat_age()))));
    if (wide_) row.push_back(PhaseText(worker.progress()));
    return row;
  }

  const TopRates& rates_;
  const int columns_;
  const bool wide_;
};

void Append(Lines more, Lines& lines) {
  lines.insert(lines.end(), std::make_move_iterator(more.begin()),
               std::make_move_iterator(more.end()));
}

// Replicas and workers, however many lines these are.
Lines Body(const TopFrame& frame, const ScreenSize& size) {
  const WorkerGroups groups = GroupWorkers(frame.workers);
  const WorkerTable table(frame.rates, size);
  Lines lines;
  if (const v1::Operation* operation = RunningOperation(frame.operations)) {
    lines.push_back({RunningLine(*operation, frame.time), Style::kHeading});
  }
  for (const auto& replica : frame.topology.replicas()) {
    const auto own = groups.by_replica.find(replica.replica());
    const Workers workers = own == groups.by_replica.end() ? Workers() : own->second;
    lines.push_back({""});
    lines.push_back({absl::StrCat("REPLICA ", replica.replica(), "  ",
                                  ReplicaHeadline(replica, frame.topology.config())),
                     Style::kHeading});
    if (replica.has_failure() && replica.state() != v1::REPLICA_STATE_SERVING) {
      lines.push_back({absl::StrCat("  ", replica.failure().message()), Style::kAlarm});
    }
    if (workers.empty()) continue;
    lines.push_back({SumLine(Sum(workers, frame.rates), size.columns >= kWideColumns)});
    Append(table.For(workers), lines);
  }
  if (groups.without_rank.empty()) return lines;
  lines.push_back({""});
  lines.push_back({"WITHOUT A RANK", Style::kHeading});
  Append(table.For(groups.without_rank), lines);
  return lines;
}

// The last `most` of them.
Lines Events(const TopFrame& frame, size_t most) {
  Lines lines = {{""}, {"EVENTS", Style::kHeading}};
  const size_t count = std::min(most, frame.events.size());
  for (size_t i = frame.events.size() - count; i < frame.events.size(); ++i) {
    const auto& event = frame.events[i];
    const absl::Time time =
        absl::FromUnixSeconds(event.time().seconds()) + absl::Nanoseconds(event.time().nanos());
    lines.push_back(
        {absl::StrCat(absl::FormatTime("%H:%M:%S", time, absl::LocalTimeZone()), "  ",
                      PadRight(EventWords(event.kind()), 17), "  ",
                      event.worker_id().empty() ? "" : event.worker_id() + "  ", event.message())});
  }
  return lines;
}

ScreenLine Title(const TopFrame& frame, int columns) {
  const std::string left = absl::StrCat("musterctl top   coordinator ", frame.coordinator,
                                        " (term ", frame.topology.term(), ")");
  const std::string right = absl::FormatTime("%H:%M:%S", frame.time, absl::LocalTimeZone());
  const int room = columns - DisplayWidth(right) - 1;
  return {absl::StrCat(PadRight(Fit(left, room), room), " ", right), Style::kTitle};
}

// All but what stands below them: the body cut where there is no room, then events.
void FillBetween(const TopFrame& frame, const ScreenSize& size, Lines& lines) {
  Lines body = Body(frame, size);
  const bool endless = size.rows == 0;
  const int room = size.rows - static_cast<int>(lines.size()) - 1;
  const int events = static_cast<int>(frame.events.size());
  // A blank line and a heading come with them; on a screen that is low, workers come first.
  const int reserved = size.rows < kLowRows ? 0 : 2 + std::min(events, kLeastEvents);
  const int body_room = std::max(0, room - reserved);
  if (!endless && static_cast<int>(body.size()) > body_room) {
    const int left_out = static_cast<int>(body.size()) - std::max(0, body_room - 1);
    body.resize(static_cast<size_t>(std::max(0, body_room - 1)));
    body.push_back({absl::StrCat("… ", Count(left_out, "more line"), ": make the terminal taller"),
                    Style::kDim});
  }
  const int left = endless ? 2 + kMostEvents : room - static_cast<int>(body.size());
  Append(std::move(body), lines);
  if (events > 0 && left > 2) Append(Events(frame, static_cast<size_t>(left - 2)), lines);
}

}  // namespace

std::vector<ScreenLine> TopLines(const TopFrame& frame, const ScreenSize& size) {
  Lines lines = {Title(frame, size.columns)};
  if (!frame.trouble.empty()) lines.push_back({frame.trouble, Style::kAlarm});
  FillBetween(frame, size, lines);
  if (size.rows > 0) {
    lines.resize(std::min(lines.size(), static_cast<size_t>(size.rows - 1)));
    lines.resize(static_cast<size_t>(size.rows - 1));
    lines.push_back({"q quits   * leader: the worker that schedulers call", Style::kDim});
  }
  for (ScreenLine& line : lines) line.text = Fit(line.text, size.columns);
  return lines;
}

Json TopJson(const TopFrame& frame) {
  const WorkerGroups groups = GroupWorkers(frame.workers);
  const auto add_rate = [](const std::optional<TopRates::Rate>& rate, Json& json) {
    json["steps_per_second"] = rate.has_value() ? Json(rate->steps_per_second) : Json();
    json["tokens_per_second"] = rate.has_value() ? Json(rate->tokens_per_second) : Json();
  };
  Json json = {{"time", absl::FormatTime(absl::RFC3339_sec, frame.time, absl::UTCTimeZone())},
               {"coordinator", frame.coordinator},
               {"term", frame.topology.term()}};
  json["replicas"] = Json::array();
  for (const auto& replica : frame.topology.replicas()) {
    const auto own = groups.by_replica.find(replica.replica());
    const ReplicaSums sums =
        own == groups.by_replica.end() ? ReplicaSums() : Sum(own->second, frame.rates);
    Json& entry = json["replicas"].emplace_back(ReplicaJson(replica));
    add_rate(sums.rate, entry);
    entry["queued_requests"] = sums.queued;
    entry["kv_blocks_used"] = sums.kv_used;
    entry["kv_blocks_total"] = sums.kv_total;
  }
  json["operations"] = OperationsJson(frame.operations)["operations"];
  json["workers"] = Json::array();
  for (const auto& worker : frame.workers.workers()) {
    Json& entry = json["workers"].emplace_back(WorkerJson(worker));
    add_rate(frame.rates.Of(worker), entry);
  }
  return json;
}

}  // namespace muster::ctl
