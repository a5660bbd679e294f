// The plain collectives on the devices of several ranks, in one shot through the boxes of
// peer_exchange.h. Longer messages go in pieces.
#ifndef MUSTER_KERNELS_PEER_COLLECTIVES_H_
#define MUSTER_KERNELS_PEER_COLLECTIVES_H_

#include <cstdint>

#include "kernels/cuda_launch.h"
#include "kernels/dtype.h"
#include "kernels/peer_exchange.h"

namespace muster {

inline constexpr int32_t kAllSend = -1;

// receive[r * receive_stride] := rank r's send[bytes], of all ranks or of one. Nothing of `bytes`
// is a barrier: nobody's operation ends before all have begun it.
struct PeerGatherParams {
  Peers peers;
  PeerStamp stamp;
  const void* send;  // of ranks that send
  void* receive;
  int64_t bytes;
  int64_t receive_stride;   // in bytes
  int32_t root = kAllSend;  // or the only rank that sends, which then receives nothing
};

// receive[count] := sum over ranks of their send[r * send_stride], where r is this rank: float32,
// in rank order, rounded once. `receive` may be `send`, when the stride is 0.
struct PeerReduceParams {
  Peers peers;
  PeerStamp stamp;
  const void* send;
  void* receive;
  int64_t count;
  int64_t send_stride;  // in elements; 0: all ranks get the same
  DType dtype;
};

// The longest message of a gather; of a reduction it is a slot.
int64_t MostGathered(const PeerLayout& layout);

// cudaErrorInvalidValue when the message is longer than that.
CudaLaunch PeerGatherCuda(const PeerGatherParams& params, CudaStream stream);
CudaLaunch PeerReduceCuda(const PeerReduceParams& params, CudaStream stream);

}  // namespace muster

#endif  // MUSTER_KERNELS_PEER_COLLECTIVES_H_
