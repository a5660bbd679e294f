// What a benchmark found, held against what the devices can do.
#ifndef MUSTER_CLIENT_CTL_BENCH_REPORT_H_
#define MUSTER_CLIENT_CTL_BENCH_REPORT_H_

#include <cstdint>
#include <string>

#include "base/wire_json.h"
#include "client/ctl/bench_run.h"
#include "client/ctl/bench_work.h"

namespace muster::ctl {

// Of all ranks of a replica together, measured at once.
struct BenchLimits {
  double read_bytes_per_second = 0;
  double matrix_flops_per_second = 0;
};

struct BenchReport {
  v1::ReplicaStatus replica;
  v1::ModelSpec model;
  BenchOptions options;
  BenchLimits limits;
  BenchSteps steps;
};

std::string BenchTable(const BenchReport& report);
Json BenchJson(const BenchReport& report);

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_BENCH_REPORT_H_
