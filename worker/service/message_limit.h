#ifndef MUSTER_WORKER_SERVICE_MESSAGE_LIMIT_H_
#define MUSTER_WORKER_SERVICE_MESSAGE_LIMIT_H_

namespace muster {

// Bytes of a message that the worker's port takes or sends.
inline constexpr int kMaxMessageBytes = 64 << 20;

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_MESSAGE_LIMIT_H_
