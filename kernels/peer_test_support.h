// Several ranks on the GPU of one process, a stream each, for the tests of kernels that exchange.
#ifndef MUSTER_KERNELS_PEER_TEST_SUPPORT_H_
#define MUSTER_KERNELS_PEER_TEST_SUPPORT_H_

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "kernels/cuda_test_support.h"
#include "kernels/peer_exchange.h"

namespace muster::testing {

// Before CUDA starts: streams that wait for each other must not share a queue, nor wait for the
// loading of each other's kernels.
inline const bool kStreamsAreApart = setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1) == 0 &&
                                     setenv("CUDA_MODULE_LOADING", "EAGER", 1) == 0;

class LocalPeers {
 public:
  struct Options {
    int64_t slot_bytes = 1 << 20;
    int64_t slice_bytes = 1 << 20;
    int64_t timeout_ns = 2'000'000'000;
    int max_blocks = 0;    // 0: an equal share of the GPU
    bool clusters = true;  // where the GPU has them
  };

  LocalPeers(int world, const Options& options) : options_(options), ranks_(world) {
    layout_ = {
        .world = world, .slot_bytes = options.slot_bytes, .slice_bytes = options.slice_bytes};
    cudaDeviceProp properties;
    CudaCheck(cudaGetDeviceProperties(&properties, 0), "properties");
    max_row_blocks_ = MaxRowBlocks(properties.major * 10 + properties.minor);
    if (options_.max_blocks == 0) options_.max_blocks = properties.multiProcessorCount / world;
    for (Rank& rank : ranks_) Make(rank);
  }
  LocalPeers(const LocalPeers&) = delete;
  LocalPeers& operator=(const LocalPeers&) = delete;
  ~LocalPeers() {
    for (Rank& rank : ranks_) {
      cudaFree(rank.region);
      cudaFreeHost(rank.host);
      cudaStreamDestroy(rank.stream);
    }
  }

  int world() const { return static_cast<int>(ranks_.size()); }
  cudaStream_t stream(int rank) const { return ranks_[rank].stream; }
  PeerFault& fault(int rank) { return ranks_[rank].host->fault; }
  volatile uint32_t& control(int rank) { return ranks_[rank].host->control; }

  Peers For(int rank) const {
    Peers peers{.layout = layout_,
                .rank = rank,
                .max_blocks = options_.max_blocks,
                .max_row_blocks = options_.clusters ? max_row_blocks_ : 1,
                .timeout_ns = options_.timeout_ns,
                .fault = &ranks_[rank].host->fault,
                .control = &ranks_[rank].host->control};
    for (int r = 0; r < world(); ++r) peers.regions[r] = static_cast<std::byte*>(ranks_[r].region);
    return peers;
  }

  void Synchronize() {
    for (Rank& rank : ranks_) CudaCheck(cudaStreamSynchronize(rank.stream), "kernel");
  }
  // What `source` has pushed to `rank` for an operation of odd sequence.
  PeerStamp LatestStamp(int rank, int source) const {
    PeerStamp stamp;
    const auto* header = static_cast<const PeerHeader*>(ranks_[rank].region);
    CudaCheck(cudaMemcpyAsync(&stamp, &header->stamps[1][source], sizeof(stamp),
                              cudaMemcpyDeviceToHost, ranks_[rank].stream),
              "download");
    CudaCheck(cudaStreamSynchronize(ranks_[rank].stream), "download");
    return stamp;
  }
  // The boxes are as they must be between operations.
  bool BoxesAreEmpty() {
    const size_t bytes = layout_.BoxesEnd() - PeerLayout::kHeaderBytes;
    std::vector<unsigned char> boxes(bytes);
    for (Rank& rank : ranks_) {
      CudaCheck(cudaMemcpy(boxes.data(), static_cast<char*>(rank.region) + PeerLayout::kHeaderBytes,
                           bytes, cudaMemcpyDeviceToHost),
                "download");
      if (std::any_of(boxes.begin(), boxes.end(), [](unsigned char c) { return c != 0xFF; })) {
        return false;
      }
    }
    return true;
  }

 private:
  struct Host {
    PeerFault fault{};
    uint32_t control = 0;
  };
  struct Rank {
    void* region = nullptr;
    Host* host = nullptr;
    cudaStream_t stream = nullptr;
  };

  void Make(Rank& rank) {
    CudaCheck(cudaMalloc(&rank.region, layout_.Bytes()), "region");
    CudaCheck(cudaMemset(rank.region, 0xFF, layout_.Bytes()), "region");
    CudaCheck(cudaMemset(rank.region, 0, PeerLayout::kHeaderBytes), "region");
    CudaCheck(cudaHostAlloc(reinterpret_cast<void**>(&rank.host), sizeof(Host),
                            cudaHostAllocMapped | cudaHostAllocPortable),
              "host memory");
    *rank.host = Host();
    CudaCheck(cudaStreamCreateWithFlags(&rank.stream, cudaStreamNonBlocking), "stream");
    CudaCheck(cudaDeviceSynchronize(), "region");
  }

  Options options_;
  PeerLayout layout_;
  std::vector<Rank> ranks_;
  int max_row_blocks_ = 1;
};

}  // namespace muster::testing

#endif  // MUSTER_KERNELS_PEER_TEST_SUPPORT_H_
