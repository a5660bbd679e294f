#ifndef MUSTER_WORKER_COLLECTIVE_IPC_DEVICE_STAMP_H_
#define MUSTER_WORKER_COLLECTIVE_IPC_DEVICE_STAMP_H_

#include <cstdint>

#include "kernels/peer_exchange.h"
#include "worker/collective/collective_stamp.h"

namespace muster {

// A stamp as kernels pass it on, who give it its sequence.
inline PeerStamp ToDevice(const CollectiveStamp& stamp) {
  return {.what = uint32_t{static_cast<uint8_t>(stamp.op)} << 24 |
                  uint32_t{static_cast<uint8_t>(stamp.dtype)} << 16 | stamp.root,
          .rows = stamp.rows,
          .row_bytes = static_cast<uint32_t>(stamp.row_bytes)};
}

inline CollectiveStamp FromDevice(const PeerStamp& stamp) {
  return {.op = static_cast<CollectiveOp>(stamp.what >> 24),
          .dtype = static_cast<DType>(stamp.what >> 16 & 0xFF),
          .root = static_cast<uint16_t>(stamp.what & 0xFFFF),
          .rows = stamp.rows,
          .row_bytes = stamp.row_bytes};
}

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_IPC_DEVICE_STAMP_H_
