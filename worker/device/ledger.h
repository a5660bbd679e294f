// Bytes held, by tag: what Warmup replies and what an operator reads when
// memory runs out.
#ifndef MUSTER_WORKER_DEVICE_LEDGER_H_
#define MUSTER_WORKER_DEVICE_LEDGER_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
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

// Bytes that stand in a ledger, which outlives it, while this lives. Move-only; empty by default
// and after it was moved from.
class LedgerCharge {
 public:
  LedgerCharge() = default;
  LedgerCharge(Ledger& ledger, absl::string_view tag, uint64_t bytes)
      : ledger_(&ledger), tag_(tag), bytes_(bytes) {
    ledger.Charge(tag, bytes);
  }
  LedgerCharge(LedgerCharge&& other) noexcept { *this = std::move(other); }
  LedgerCharge& operator=(LedgerCharge&& other) noexcept {
    std::swap(ledger_, other.ledger_);
    std::swap(tag_, other.tag_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~LedgerCharge() {
    if (ledger_ != nullptr) ledger_->Discharge(tag_, bytes_);
  }

  uint64_t bytes() const { return bytes_; }

 private:
  Ledger* ledger_ = nullptr;
  std::string tag_;
  uint64_t bytes_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_LEDGER_H_
