// What the ranks of one list share on their devices: a region of each, which all others write.
#ifndef MUSTER_KERNELS_PEER_EXCHANGE_H_
#define MUSTER_KERNELS_PEER_EXCHANGE_H_

#include <cstddef>
#include <cstdint>

namespace muster {

inline constexpr int kMaxPeers = 16;
// Blocks of the largest grid, which must be resident together with those of all peers.
inline constexpr int kMaxPeerBlocks = 256;
// Blocks for which a multiprocessor has room (__launch_bounds__): an epoch that serves and the one
// that is prepared beside it wait on a GPU at the same time, in either order on each, and neither
// may keep the other out.
inline constexpr int kPeerBlocksPerMultiprocessor = 2;
// Threads of a block at most; where they need few registers, twice as many.
inline constexpr int kPeerThreads = 256;
inline constexpr int kPeerThreadsOfFewRegisters = 2 * kPeerThreads;
// Blocks that share a row: a cluster, which there is from compute capability 9.0 (90) on.
inline constexpr int kMaxRowBlocks = 8;
constexpr int MaxRowBlocks(int compute_capability) {
  return compute_capability >= 90 ? kMaxRowBlocks : 1;
}

// What all ranks must agree on for one operation. Pushed to every peer in one 16-byte transaction.
struct alignas(16) PeerStamp {
  uint32_t sequence = 0;  // of the operation, from 1; set by the device
  uint32_t what = 0;      // operation, type and root: opaque here
  uint32_t rows = 0;
  uint32_t row_bytes = 0;
};

enum class PeerFailure : uint32_t {
  kNone = 0,
  kMissing = 1,       // the deadline passed
  kDisagreement = 2,  // of stamps
  kGone = 3,          // a rank has left
  kAborted = 4,       // by the host
};

// What a kernel says of a failure, in host memory. The host reads it when the work has ended.
struct PeerFault {
  uint32_t failed_operations;  // that failed or were passed over; written last
  PeerFailure failure;         // of the first one, as all that follows
  int32_t peer;                // awaited, gone or in disagreement
  PeerStamp own;
  PeerStamp latest[kMaxPeers];  // that each rank has pushed
};

// The control word, in host memory: what the host tells waiting kernels.
inline constexpr uint32_t kPeerAbort = uint32_t{1} << kMaxPeers;
constexpr uint32_t PeerGone(int rank) { return uint32_t{1} << rank; }

// The head of a region; all zeros at first.
struct PeerHeader {
  // Pushed by rank r: that of operation s in [s % 2][r].
  PeerStamp stamps[2][kMaxPeers];
  // Of reductions in two shots: the sequence that rank r's block b has come to in each shot.
  uint32_t flags[2][kMaxPeerBlocks][kMaxPeers];
  // The owner's own.
  uint32_t sequence;             // operations so far
  uint32_t acknowledged_blocks;  // of the operation that runs
  uint32_t failed;               // sequence of the first operation that failed
  uint32_t failed_operations;
};

// Where things lie in a region: the head; two Lamport boxes with a slot for each rank, whose unused
// words are all ones; then, for two shots, what is to be reduced here and what was reduced.
struct PeerLayout {
  static constexpr int64_t kHeaderBytes = int64_t{64} << 10;

  int32_t world = 1;
  int64_t slot_bytes = 0;   // of a message in one shot; multiple of 256
  int64_t slice_bytes = 0;  // of a message in two shots; multiple of 256

  constexpr int64_t BoxesEnd() const { return kHeaderBytes + 2 * world * slot_bytes; }
  constexpr int64_t ScatterOffset() const { return BoxesEnd(); }
  constexpr int64_t GatherOffset() const { return BoxesEnd() + slice_bytes; }
  constexpr int64_t Bytes() const { return BoxesEnd() + 2 * slice_bytes; }
};
static_assert(sizeof(PeerHeader) <= PeerLayout::kHeaderBytes, "boxes begin behind the header");

// A rank's view of all regions: a parameter of every kernel that exchanges.
//
// All ranks launch the same operations in the same order, each on one stream. What changes from one
// to the next lies in the regions, so that a captured graph can be replayed. Waits are bounded by
// `timeout_ns` and by the control word; when one ends so, the operation leaves its outputs
// undefined and a PeerFault, and the operations after it do nothing but count in it.
struct Peers {
  std::byte* regions[kMaxPeers];  // as mapped here, by rank
  PeerLayout layout;
  int32_t rank = 0;
  int32_t max_blocks = 1;      // the same on all ranks; at most kMaxPeerBlocks
  int32_t max_row_blocks = 1;  // as MaxRowBlocks of this rank's device
  int64_t timeout_ns = 0;
  PeerFault* fault = nullptr;         // host memory, at the device's address
  const uint32_t* control = nullptr;  // likewise
};

}  // namespace muster

#endif  // MUSTER_KERNELS_PEER_EXCHANGE_H_
