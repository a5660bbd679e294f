#include "client/ctl/bench_report.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/ctl/text.h"
#include "client/ctl/topology_picture.h"

namespace muster::ctl {
namespace {

// A step's time against the least that its work takes: reading or multiplying, which ever is
// longer.
struct Against {
  StepWork work;
  bool reads = true;         // what takes longer
  double limit_seconds = 0;  // that it takes at the devices' speed
  double share = 0;          // of the limit that is reached
};

Against HoldAgainst(const StepWork& work, const BenchLimits& limits, absl::Duration time) {
  const auto seconds_of = [](double amount, double per_second) {
    return per_second > 0 ? amount / per_second : 0;
  };
  const double reading = seconds_of(work.bytes, limits.read_bytes_per_second);
  const double multiplying = seconds_of(work.flops, limits.matrix_flops_per_second);
  const double limit = std::max(reading, multiplying);
  const double seconds = absl::ToDoubleSeconds(time);
  return {work, reading >= multiplying, limit, seconds > 0 ? limit / seconds : 0};
}

Against DecodeAgainst(const BenchReport& report, const BenchStep& step) {
  const BenchWork work(report.model, report.replica);
  return HoldAgainst(work.Decode(step.size, static_cast<uint64_t>(step.context)), report.limits,
                     step.device_time);
}

Against PrefillAgainst(const BenchReport& report, const BenchStep& step) {
  return HoldAgainst(BenchWork(report.model, report.replica).Prefill(step.size), report.limits,
                     step.device_time);
}

const char* LimitName(const Against& against) { return against.reads ? "bandwidth" : "matrix"; }

double TokensPerSecond(const BenchStep& step) {
  const double seconds = absl::ToDoubleSeconds(step.device_time);
  return seconds > 0 ? step.size / seconds : 0;
}

std::string Milliseconds(double seconds) { return absl::StrFormat("%.2f ms", 1e3 * seconds); }

std::string Decimal(double value) {
  if (value >= 999.5) return WithCommas(static_cast<uint64_t>(value + 0.5));
  return absl::StrFormat("%.1f", value);
}

void AddRow(const BenchStep& step, const Against& against, Table& table) {
  const std::string size = absl::StrCat("  ", step.size);
  if (!step.left_out.empty()) return table.AddRow({size, "", "left out", "", "", "", "", ""});
  table.AddRow(
      {size, absl::StrCat(step.bucket), Milliseconds(absl::ToDoubleSeconds(step.device_time)),
       Decimal(TokensPerSecond(step)), HumanBytes(static_cast<uint64_t>(against.work.bytes)),
       Decimal(1e-9 * against.work.flops), Milliseconds(against.limit_seconds),
       absl::StrFormat("%3.0f %% %s", 100 * against.share, LimitName(against))});
}

Table StepTable(const char* size) {
  constexpr auto kRight = Table::Align::kRight;
  return Table({{size},
                {"BUCKET", kRight},
                {"DEVICE", kRight},
                {"TOKENS/S", kRight},
                {"READS", kRight},
                {"GFLOP", kRight},
                {"AT LIMIT", kRight},
                {"OF LIMIT"}});
}

// Why sizes were left out, each once.
std::string LeftOut(const std::vector<BenchStep>& steps) {
  std::string text;
  for (const BenchStep& step : steps) {
    if (!step.left_out.empty()) absl::StrAppend(&text, "  ", step.size, ": ", step.left_out, "\n");
  }
  return text;
}

Json StepJson(const BenchStep& step, const Against& against) {
  if (!step.left_out.empty()) return {{"size", step.size}, {"left_out", step.left_out}};
  return {{"size", step.size},
          {"bucket", step.bucket},
          {"device_ms", absl::ToDoubleMilliseconds(step.device_time)},
          {"tokens_per_second", TokensPerSecond(step)},
          {"read_bytes", against.work.bytes},
          {"flops", against.work.flops},
          {"limit", LimitName(against)},
          {"limit_ms", 1e3 * against.limit_seconds},
          {"share_of_limit", against.share}};
}

}  // namespace

std::string BenchTable(const BenchReport& report) {
  const v1::Topology& topology = report.replica.topology();
  std::string text = absl::StrFormat(
      "BENCH  %s, %s   %s   epoch %d\n  limits, of %s together: reads %.1f GB/s, multiplies %s "
      "GFLOP/s\n\nDECODE  one token for each sequence of a batch, context %d, median of %d steps\n",
      report.model.name(), report.model.dtype(), ParallelSizes(topology.config()),
      report.steps.epoch, Count(topology.ranks_size(), "rank"),
      1e-9 * report.limits.read_bytes_per_second,
      Decimal(1e-9 * report.limits.matrix_flops_per_second), report.options.context,
      report.options.repetitions);
  Table decode = StepTable("  BATCH");
  for (const BenchStep& step : report.steps.decode) {
    AddRow(step, DecodeAgainst(report, step), decode);
  }
  absl::StrAppend(&text, decode.ToString(), LeftOut(report.steps.decode),
                  "\nPREFILL  one prompt of a new sequence, median\n");
  Table prefill = StepTable("  TOKENS");
  for (const BenchStep& step : report.steps.prefill) {
    AddRow(step, PrefillAgainst(report, step), prefill);
  }
  absl::StrAppend(&text, prefill.ToString(), LeftOut(report.steps.prefill));
  return text;
}

Json BenchJson(const BenchReport& report) {
  Json json = {{"replica", report.replica.replica()},
               {"epoch", report.steps.epoch},
               {"config", ConfigJson(report.replica.topology().config())},
               {"model", ModelJson(report.model)},
               {"context_tokens", report.options.context},
               {"repetitions", report.options.repetitions},
               {"limits",
                {{"read_bytes_per_second", report.limits.read_bytes_per_second},
                 {"matrix_flops_per_second", report.limits.matrix_flops_per_second}}}};
  json["decode"] = Json::array();
  for (const BenchStep& step : report.steps.decode) {
    json["decode"].push_back(StepJson(step, DecodeAgainst(report, step)));
  }
  json["prefill"] = Json::array();
  for (const BenchStep& step : report.steps.prefill) {
    json["prefill"].push_back(StepJson(step, PrefillAgainst(report, step)));
  }
  return json;
}

}  // namespace muster::ctl
