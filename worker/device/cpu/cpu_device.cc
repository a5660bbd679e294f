#include "worker/device/cpu/cpu_device.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "worker/device/byte_size.h"
#include "worker/device/cpu/cpu_memory.h"
#include "worker/device/cpu/cpu_stream.h"
#include "worker/device/cpu/shm_segment.h"

namespace muster {
namespace {

// As /proc/cpuinfo names the processor; "cpu" where it does not.
std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "cpu";
}

// Of an exported segment: its nonce, on a page of its own.
constexpr size_t kExportHeader = 4096;

}  // namespace

CpuDevice::CpuDevice(const CpuDeviceOptions& options)
    : options_(options), pool_(std::max(options.threads, 1)) {}

uint64_t CpuDevice::FreeBytes() const {
  const uint64_t available = ReadMemoryInfo().available_bytes;
  if (options_.memory_limit == 0) return available;
  const uint64_t used = std::min(handed_out_.load(), options_.memory_limit);
  return std::min(available, options_.memory_limit - used);
}

DeviceReport CpuDevice::Report() const {
  DeviceReport report;
  report.kind = "cpu";
  report.ordinal = options_.ordinal;
  report.name = ProcessorName();
  report.total_bytes =
      options_.memory_limit != 0 ? options_.memory_limit : ReadMemoryInfo().total_bytes;
  report.free_bytes = FreeBytes();
  report.threads = pool_.threads();
  return report;
}

absl::Status CpuDevice::Claim(uint64_t bytes, absl::string_view tag) {
  const uint64_t free = FreeBytes();
  if (bytes > free) {
    return absl::ResourceExhaustedError(
        absl::StrCat("device cpu:", options_.ordinal.value(), " has no room for ", tag, ": wanted ",
                     ByteSizeString(bytes), ", ", ByteSizeString(free), " free"));
  }
  handed_out_.fetch_add(bytes);
  return absl::OkStatus();
}

void CpuDevice::Release(uint64_t bytes) { handed_out_.fetch_sub(bytes); }

absl::StatusOr<Buffer> CpuDevice::Allocate(size_t bytes, absl::string_view tag, Ledger& ledger) {
  MUSTER_RETURN_IF_ERROR(Claim(bytes, tag));
  absl::StatusOr<void*> data = MapCommitted(bytes);
  if (!data.ok()) {
    Release(bytes);
    return data.status();
  }
  return Buffer(*data, bytes, tag, ledger, [this](void* memory, size_t size) {
    Unmap(memory, size);
    Release(size);
  });
}

absl::StatusOr<ExportedBuffer> CpuDevice::AllocateExported(size_t bytes, absl::string_view tag,
                                                           Ledger& ledger) {
  size_t whole = 0;
  if (__builtin_add_overflow(bytes, kExportHeader, &whole)) {
    return absl::ResourceExhaustedError(absl::StrCat(bytes, " bytes for ", tag));
  }
  MUSTER_ASSIGN_OR_RETURN(ShmSegment made, ShmSegment::Create(whole, tag, *this, ledger));
  auto segment = std::make_shared<ShmSegment>(std::move(made));
  std::byte* const data = segment->data() + kExportHeader;
  std::string handle = segment->handle().Encode();
  return ExportedBuffer(data, bytes, std::move(handle), std::move(segment));
}

absl::StatusOr<PeerMemory> CpuDevice::OpenExported(absl::string_view handle) {
  const absl::StatusOr<ShmHandle> decoded = ShmHandle::Decode(handle);
  if (!decoded.ok() || decoded->bytes < kExportHeader) {
    return absl::UnavailableError("this is no handle of exported memory");
  }
  MUSTER_ASSIGN_OR_RETURN(ShmMapping opened, ShmMapping::Open(*decoded));
  auto mapping = std::make_shared<ShmMapping>(std::move(opened));
  std::byte* const data = mapping->data() + kExportHeader;
  return PeerMemory(data, decoded->bytes - kExportHeader, std::move(mapping));
}

absl::StatusOr<std::unique_ptr<Stream>> CpuDevice::CreateStream() {
  return std::make_unique<CpuStream>(pool_);
}

absl::StatusOr<std::unique_ptr<Graph>> CpuDevice::Capture(
    Stream& stream, absl::FunctionRef<absl::Status()> record) {
  CpuStream& cpu = CpuStream::From(stream);
  if (cpu.recording()) {
    return absl::FailedPreconditionError("this stream is being captured already");
  }
  auto graph = std::make_unique<CpuGraph>();
  cpu.Record(graph.get());
  const absl::Status status = record();
  cpu.Record(nullptr);
  MUSTER_RETURN_IF_ERROR(status);
  return graph;
}

absl::Status CpuDevice::Copy(Stream& stream, void* to, const void* from, size_t bytes) {
  return CpuStream::From(stream).Run([=] {
    if (bytes != 0) std::memcpy(to, from, bytes);
    return absl::OkStatus();
  });
}

}  // namespace muster
