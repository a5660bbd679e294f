#include "worker/device/cpu/shm_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "worker/device/byte_size.h"
#include "worker/device/cpu/cpu_memory.h"

namespace muster {
namespace {

absl::Status Failed(absl::StatusCode code, absl::string_view what) {
  return absl::Status(code, absl::StrCat(what, ": ", std::strerror(errno)));
}

uint64_t RandomNonce() {
  uint64_t nonce = 0;
  while (nonce == 0 && getrandom(&nonce, sizeof(nonce), 0) != sizeof(nonce)) {
  }
  return nonce;
}

// Maps all of a file of fixed size and makes the kernel back it, with large pages where it has
// them.
absl::StatusOr<void*> MapShared(int fd, uint64_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return Failed(absl::StatusCode::kResourceExhausted, "mmap");
  madvise(data, bytes, MADV_HUGEPAGE);
  int error = PopulatePages(data, bytes);
  if (error == EINVAL) error = fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  if (error == 0) return data;
  munmap(data, bytes);
  errno = error;
  return Failed(absl::StatusCode::kResourceExhausted,
                absl::StrCat("shared memory of ", ByteSizeString(bytes)));
}

// A memory file that only this user can open and nobody can resize; nothing backs it yet.
absl::StatusOr<int> CreateFile(uint64_t bytes) {
  const int fd = memfd_create("muster", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return Failed(absl::StatusCode::kResourceExhausted, "memfd_create");
  const int size = static_cast<int>(bytes >> 63);  // off_t is signed
  if (size != 0 || fchmod(fd, 0600) != 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0 ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    const absl::Status status = Failed(absl::StatusCode::kResourceExhausted,
                                       absl::StrCat("shared memory of ", ByteSizeString(bytes)));
    close(fd);
    return status;
  }
  return fd;
}

}  // namespace

std::string ShmHandle::Encode() const { return absl::StrCat(pid, ",", fd, ",", nonce, ",", bytes); }

absl::StatusOr<ShmHandle> ShmHandle::Decode(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ',');
  ShmHandle handle;
  if (parts.size() != 4 || !absl::SimpleAtoi(parts[0], &handle.pid) ||
      !absl::SimpleAtoi(parts[1], &handle.fd) || !absl::SimpleAtoi(parts[2], &handle.nonce) ||
      !absl::SimpleAtoi(parts[3], &handle.bytes) || handle.pid <= 0 || handle.fd < 0) {
    return absl::InvalidArgumentError("not a handle of shared memory");
  }
  return handle;
}

absl::StatusOr<ShmSegment> ShmSegment::Create(uint64_t bytes, absl::string_view tag,
                                              CpuDevice& device, Ledger& ledger) {
  MUSTER_RETURN_IF_ERROR(device.Claim(bytes, tag));
  auto release = absl::MakeCleanup([&] { device.Release(bytes); });
  ShmSegment segment;
  MUSTER_ASSIGN_OR_RETURN(segment.fd_, CreateFile(bytes));
  MUSTER_ASSIGN_OR_RETURN(void* data, MapShared(segment.fd_, bytes));
  std::move(release).Cancel();
  segment.memory_ = Buffer(data, bytes, tag, ledger, [&device](void* memory, size_t size) {
    munmap(memory, size);
    device.Release(size);
  });
  segment.nonce_ = RandomNonce();
  std::memcpy(data, &segment.nonce_, sizeof(segment.nonce_));
  return segment;
}

ShmSegment::ShmSegment(ShmSegment&& other) noexcept { *this = std::move(other); }

ShmSegment& ShmSegment::operator=(ShmSegment&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(fd_, other.fd_);
  std::swap(nonce_, other.nonce_);
  return *this;
}

ShmSegment::~ShmSegment() { StopExporting(); }

ShmHandle ShmSegment::handle() const { return {getpid(), fd_, nonce_, bytes()}; }

void ShmSegment::StopExporting() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

absl::StatusOr<ShmMapping> ShmMapping::Open(const ShmHandle& handle) {
  const std::string path = absl::StrCat("/proc/", handle.pid, "/fd/", handle.fd);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    return absl::UnavailableError(
        absl::StrCat("shared memory cannot be opened at ", path, ": ", std::strerror(errno),
                     "; workers of one host must run as one user and see each other's processes"));
  }
  auto close_fd = absl::MakeCleanup([fd] { close(fd); });
  struct stat info;
  const int seals = fcntl(fd, F_GET_SEALS);
  if (fstat(fd, &info) != 0 || seals < 0 || (seals & F_SEAL_SHRINK) == 0 ||
      handle.bytes < sizeof(handle.nonce) || info.st_size != static_cast<off_t>(handle.bytes)) {
    return absl::UnavailableError("the shared memory is no segment of the announced size");
  }
  MUSTER_ASSIGN_OR_RETURN(void* data, MapShared(fd, handle.bytes));
  ShmMapping mapping;
  mapping.data_ = static_cast<std::byte*>(data);
  mapping.bytes_ = handle.bytes;
  if (std::memcmp(data, &handle.nonce, sizeof(handle.nonce)) != 0) {
    return absl::UnavailableError("the shared memory is another segment than the announced one");
  }
  return mapping;
}

ShmMapping::ShmMapping(ShmMapping&& other) noexcept { *this = std::move(other); }

ShmMapping& ShmMapping::operator=(ShmMapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

ShmMapping::~ShmMapping() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace muster
