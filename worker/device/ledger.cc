#include "worker/device/ledger.h"

namespace muster {

void Ledger::Charge(absl::string_view tag, uint64_t bytes) {
  if (bytes == 0) return;
  absl::MutexLock lock(&mu_);
  bytes_[std::string(tag)] += bytes;
}

void Ledger::Discharge(absl::string_view tag, uint64_t bytes) {
  absl::MutexLock lock(&mu_);
  auto it = bytes_.find(std::string(tag));
  if (it == bytes_.end()) return;
  it->second -= bytes < it->second ? bytes : it->second;
  if (it->second == 0) bytes_.erase(it);
}

std::vector<LedgerEntry> Ledger::Entries() const {
  absl::MutexLock lock(&mu_);
  std::vector<LedgerEntry> entries;
  entries.reserve(bytes_.size());
  for (const auto& [tag, bytes] : bytes_) entries.push_back({tag, bytes});
  return entries;
}

uint64_t Ledger::total() const {
  absl::MutexLock lock(&mu_);
  uint64_t total = 0;
  for (const auto& [tag, bytes] : bytes_) total += bytes;
  return total;
}

}  // namespace muster
