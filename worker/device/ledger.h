// Bytes held, by tag: what Warmup replies and what an operator reads when
// memory runs out.
#ifndef MUSTER_WORKER_DEVICE_LEDGER_H_
#define MUSTER_WORKER_DEVICE_LEDGER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/topology.h"

namespace muster {

// Thread-safe. Outlives every Buffer charged to it.
class Ledger {
 public:
  void Charge(absl::string_view tag, uint64_t bytes);
  void Discharge(absl::string_view tag, uint64_t bytes);

  // Tags with bytes, by tag.
  std::vector<LedgerEntry> Entries() const;
  uint64_t total() const;

 private:
  mutable absl::Mutex mu_;
  std::map<std::string, uint64_t, std::less<>> bytes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_LEDGER_H_
