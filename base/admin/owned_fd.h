#ifndef MUSTER_BASE_ADMIN_OWNED_FD_H_
#define MUSTER_BASE_ADMIN_OWNED_FD_H_

#include <unistd.h>

#include <utility>

namespace muster {

// A file descriptor that is closed with its owner; -1 is none.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~OwnedFd() {
    if (fd_ >= 0) close(fd_);
  }

  bool empty() const { return fd_ < 0; }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_OWNED_FD_H_
