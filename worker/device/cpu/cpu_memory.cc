#include "worker/device/cpu/cpu_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "worker/device/byte_size.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace muster {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = 4096;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// The value of a line "Name:   123 kB", in bytes; 0 when there is none.
uint64_t MeminfoField(absl::string_view meminfo, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    if (!absl::ConsumePrefix(&line, name)) continue;
    uint64_t kib = 0;
    absl::ConsumePrefix(&line, ":");
    absl::ConsumeSuffix(&line, "kB");
    if (absl::SimpleAtoi(line, &kib)) return kib << 10;
  }
  return 0;
}

// The folder of this process's memory control group (version 2), or "" when it has none.
std::string ControlGroupFolder() {
  const std::string groups = ReadFile("/proc/self/cgroup");
  for (absl::string_view line : absl::StrSplit(groups, '\n')) {
    if (absl::ConsumePrefix(&line, "0::")) return absl::StrCat("/sys/fs/cgroup", line);
  }
  return "";
}

// Of fresh memory of this process: 0, or the kernel's error.
int Commit(char* data, size_t bytes) {
  const int error = PopulatePages(data, bytes);
  if (error != EINVAL) return error;
  for (size_t i = 0; i < bytes; i += kPage) static_cast<volatile char*>(data)[i] = 0;
  return 0;
}

size_t MappedBytes(size_t bytes) { return std::max<size_t>((bytes + kPage - 1) & -kPage, kPage); }

}  // namespace

MemoryInfo ParseMemoryInfo(absl::string_view meminfo, absl::string_view group_max,
                           absl::string_view group_current) {
  MemoryInfo info{MeminfoField(meminfo, "MemTotal"), MeminfoField(meminfo, "MemAvailable")};
  uint64_t limit = 0, used = 0;
  if (absl::SimpleAtoi(group_max, &limit) && absl::SimpleAtoi(group_current, &used)) {
    info.total_bytes = std::min(info.total_bytes, limit);
    info.available_bytes = std::min(info.available_bytes, limit - std::min(limit, used));
  }
  return info;
}

MemoryInfo ReadMemoryInfo() {
  const std::string group = ControlGroupFolder();
  return ParseMemoryInfo(ReadFile("/proc/meminfo"), ReadFile(group + "/memory.max"),
                         ReadFile(group + "/memory.current"));
}

absl::StatusOr<void*> MapCommitted(size_t bytes) {
  const size_t mapped = MappedBytes(bytes);
  // Room to start at a large page: the ends are given back.
  const size_t slack = mapped >= kHugePage ? kHugePage : 0;
  void* raw =
      mmap(nullptr, mapped + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const auto failed = [&] {
    return absl::ResourceExhaustedError(
        absl::StrCat("the kernel has no ", ByteSizeString(bytes), ": ", std::strerror(errno)));
  };
  if (raw == MAP_FAILED) return failed();
  char* data = static_cast<char*>(raw);
  if (slack != 0) {
    const size_t before = -reinterpret_cast<uintptr_t>(raw) & (kHugePage - 1);
    if (before != 0) munmap(raw, before);
    if (before != slack) munmap(data + before + mapped, slack - before);
    data += before;
    madvise(data, mapped, MADV_HUGEPAGE);
  }
  if (const int error = Commit(data, mapped); error != 0) {
    errno = error;
    const absl::Status status = failed();
    munmap(data, mapped);
    return status;
  }
  return data;
}

// In pieces, since the kernel locks the process's memory map meanwhile, and a thread that asks for
// memory of its own, as that of the heartbeats does, would wait for all of it.
int PopulatePages(void* data, size_t bytes) {
  constexpr size_t kPiece = size_t{8} << 20;
  for (size_t at = 0; at < bytes; at += kPiece) {
    const size_t piece = std::min(kPiece, bytes - at);
    if (madvise(static_cast<char*>(data) + at, piece, MADV_POPULATE_WRITE) != 0) return errno;
  }
  return 0;
}

void Unmap(void* data, size_t bytes) { munmap(data, MappedBytes(bytes)); }

}  // namespace muster
