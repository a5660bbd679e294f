// Memory of this machine that is committed when it is handed out.
#ifndef MUSTER_WORKER_DEVICE_CPU_CPU_MEMORY_H_
#define MUSTER_WORKER_DEVICE_CPU_CPU_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster {

struct MemoryInfo {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;
};

// What the machine, or the control group that this process is confined to, has now.
MemoryInfo ReadMemoryInfo();
// The same from the texts of /proc/meminfo and of the group's memory.max and memory.current; an
// empty text or "max" does not limit.
MemoryInfo ParseMemoryInfo(absl::string_view meminfo, absl::string_view group_max,
                           absl::string_view group_current);

// Zeroed pages, all of them present; large ones where the kernel has them. RESOURCE_EXHAUSTED.
absl::StatusOr<void*> MapCommitted(size_t bytes);
void Unmap(void* data, size_t bytes);

// Makes the kernel back pages that are mapped here, so that touching them cannot fail later: 0, or
// its error number, EINVAL where the kernel (before 5.14) cannot be asked.
int PopulatePages(void* data, size_t bytes);

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CPU_CPU_MEMORY_H_
