#include "client/ctl/bench_report.h"

#include <gtest/gtest.h>

#include "absl/strings/str_split.h"
#include "client/ctl/text.h"

namespace muster::ctl {
namespace {

BenchReport Report() {
  BenchReport report;
  report.replica.mutable_topology()->mutable_config()->set_tp(1);
  report.replica.mutable_topology()->mutable_config()->set_cp(2);
  report.replica.mutable_topology()->add_ranks();
  report.replica.mutable_topology()->add_ranks();
  report.model.set_name("model");
  report.model.set_dtype("bfloat16");
  report.model.set_weight_bytes(20'000'000);
  report.limits = {.read_bytes_per_second = 20e9, .matrix_flops_per_second = 500e9};
  report.steps.epoch = 7;
  report.steps.decode = {
      {.size = 1, .bucket = 1, .context = 64, .device_time = absl::Milliseconds(2)},
      {.size = 32, .left_out = "9 KV blocks are free"}};
  report.steps.prefill = {{.size = 64, .bucket = 64, .device_time = absl::Milliseconds(10)}};
  return report;
}

TEST(BenchTable, HoldsEveryStepAgainstItsLimit) {
  const std::string table = BenchTable(Report());
  // 20 MB at 20 GB/s take 1 ms.
  EXPECT_NE(table.find("2.00 ms     500.0"), std::string::npos) << table;
  EXPECT_NE(table.find("1.00 ms   50 % bandwidth"), std::string::npos) << table;
  EXPECT_NE(table.find("left out"), std::string::npos) << table;
  EXPECT_NE(table.find("32: 9 KV blocks are free"), std::string::npos) << table;
}

TEST(BenchTable, NamesTheLimitThatTakesLonger) {
  BenchReport report = Report();
  report.limits.matrix_flops_per_second = 1;
  report.model.set_vocabulary(1000);
  report.model.set_hidden(1000);
  EXPECT_NE(BenchTable(report).find("% matrix"), std::string::npos) << BenchTable(report);
  EXPECT_EQ(BenchJson(report)["decode"][0]["limit"], "matrix");
}

TEST(BenchTable, FitsEightyColumns) {
  for (const auto line : absl::StrSplit(BenchTable(Report()), '\n')) {
    EXPECT_LE(DisplayWidth(line), 80) << line;
  }
}

TEST(BenchJson, HasTheSameFacts) {
  const Json json = BenchJson(Report());
  EXPECT_EQ(json["epoch"], 7);
  EXPECT_DOUBLE_EQ(json["decode"][0]["share_of_limit"], 0.5);
  EXPECT_DOUBLE_EQ(json["decode"][0]["read_bytes"], 20e6);
  EXPECT_EQ(json["decode"][1]["left_out"], "9 KV blocks are free");
  EXPECT_EQ(json["decode"][0]["limit"], "bandwidth");
  EXPECT_DOUBLE_EQ(json["prefill"][0]["tokens_per_second"], 6400);
}

}  // namespace
}  // namespace muster::ctl
