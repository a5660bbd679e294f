#ifndef MUSTER_WORKER_DEVICE_STREAM_H_
#define MUSTER_WORKER_DEVICE_STREAM_H_

#include "absl/status/status.h"

namespace muster {

// An order of work on a device. Used by one thread at a time. It has no
// operations of its own: ops, communicators and workspaces enqueue on it
// through their backend's type.
class Stream {
 public:
  virtual ~Stream() = default;

  // Waits until all that was enqueued has run and returns its first error.
  virtual absl::Status Synchronize() = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_STREAM_H_
