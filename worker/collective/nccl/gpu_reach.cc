#include "worker/collective/nccl/gpu_reach.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace muster {
namespace {

bool Reaches(const GpuReach& from, const GpuReach& to) {
  return std::find(from.unreachable.begin(), from.unreachable.end(), to.uuid) ==
         from.unreachable.end();
}

}  // namespace

std::string GpuReach::Encode() const {
  return absl::StrCat(host, ",", uuid, ",", absl::StrJoin(unreachable, "+"));
}

absl::StatusOr<GpuReach> GpuReach::Decode(absl::string_view text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  if (parts.size() != 3 || parts[0].empty() || parts[1].empty()) {
    return absl::InvalidArgumentError("not a rank's account of its GPU");
  }
  return GpuReach{parts[0], parts[1], absl::StrSplit(parts[2], '+', absl::SkipEmpty())};
}

std::string HostWord() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string word;
  return std::getline(file, word) && !word.empty() ? word : "unknown";
}

std::optional<std::pair<int, int>> FirstUnreachable(const std::vector<GpuReach>& ranks) {
  const int size = static_cast<int>(ranks.size());
  for (int a = 0; a < size; ++a) {
    for (int b = a + 1; b < size; ++b) {
      const bool one_host = ranks[a].host == ranks[b].host;
      if (one_host && Reaches(ranks[a], ranks[b]) && Reaches(ranks[b], ranks[a])) continue;
      return std::pair(a, b);
    }
  }
  return std::nullopt;
}

}  // namespace muster
