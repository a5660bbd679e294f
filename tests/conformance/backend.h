// How a backend joins the conformance suite: a test program links :suite and says, once,
//   const ConformanceBackend kCpu("Cpu", RanksAs::kThreads, MakeCpuRank);
#ifndef MUSTER_TESTS_CONFORMANCE_BACKEND_H_
#define MUSTER_TESTS_CONFORMANCE_BACKEND_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "tests/support/run_ranks.h"
#include "worker/collective/collective_backend.h"
#include "worker/device/device.h"

namespace muster::testing {

struct RankOptions {
  DeviceOrdinal ordinal;  // set by the harness, as is world
  int world = 1;
  uint64_t memory_limit = 0;  // bytes that the device hands out at most; 0: no limit of its own
  absl::Duration wait_timeout = absl::Seconds(25);  // of one collective
};

// What one rank has of a backend.
class RankBackend {
 public:
  virtual ~RankBackend() = default;
  virtual Device& device() = 0;
  virtual CollectiveBackend& collectives() = 0;
};

using MakeRankBackend =
    std::function<absl::StatusOr<std::unique_ptr<RankBackend>>(const RankOptions&)>;

class ConformanceBackend {
 public:
  // `name` is a word that begins with a capital; `as` what its ranks can be. Larger groups than
  // `most_ranks` are left out: where they only take long.
  ConformanceBackend(absl::string_view name, RanksAs as, MakeRankBackend make, int most_ranks = 16);
};

enum class RunMode { kStream, kGraph };

// One way of running the suite.
struct Variant {
  std::string backend;
  RanksAs as = RanksAs::kThreads;
  RunMode mode = RunMode::kStream;

  std::string Name() const;  // "CpuThreadsGraph"
  friend void PrintTo(const Variant& variant, std::ostream* os) { *os << variant.Name(); }
};

// Of every backend of this program.
std::vector<Variant> AllVariants();
// Of those whose ranks are so.
std::vector<Variant> VariantsAs(RanksAs as);
// Of a backend named in a variant.
const MakeRankBackend& FindBackend(absl::string_view name);
int MostRanksOf(absl::string_view name);

}  // namespace muster::testing

#endif  // MUSTER_TESTS_CONFORMANCE_BACKEND_H_
