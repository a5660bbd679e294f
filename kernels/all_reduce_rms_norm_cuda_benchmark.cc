// Times the fused all-reduce + residual + RMSNorm between processes, which take turns over the
// GPUs: several on one want MPS.
//   all_reduce_rms_norm_cuda_benchmark [ranks...]     2, 4 and 8 without arguments
#include <cuda_runtime_api.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/all_reduce_rms_norm.h"
#include "kernels/cuda_test_support.h"
#include "kernels/kernel_test_support.h"

namespace muster {
namespace {

using testing::CudaCheck;
using testing::RandomFloats;
using testing::TypedArray;

constexpr int kOps = 20, kReplays = 61, kMostTokens = 2048, kMostHidden = 7168;
constexpr DType kDType = DType::kBFloat16;

// What the processes share on the host.
struct Shared {
  std::atomic<int> arrived{0};
  std::atomic<int> round{0};
  cudaIpcMemHandle_t handles[kMaxPeers];
  double micros[kMaxPeers];
  unsigned long long digest[kMaxPeers];
};

class Rank {
 public:
  Rank(Shared& shared, int rank, int world) : shared_(shared), rank_(rank), world_(world) {
    int gpus = 0;
    CudaCheck(cudaGetDeviceCount(&gpus), "devices");
    const int ranks_on_gpu = (world + gpus - 1) / gpus;
    CudaCheck(cudaSetDevice(rank % gpus), "device");
    layout_ = {.world = world, .slot_bytes = (8 << 20) / world, .slice_bytes = 32 << 20};
    void* region = nullptr;
    CudaCheck(cudaMalloc(&region, layout_.Bytes()), "region");
    CudaCheck(cudaMemset(region, 0xFF, layout_.Bytes()), "region");
    CudaCheck(cudaMemset(region, 0, PeerLayout::kHeaderBytes), "region");
    CudaCheck(cudaDeviceSynchronize(), "region");
    CudaCheck(cudaIpcGetMemHandle(&shared.handles[rank], region), "export");
    Barrier();
    peers_ = {.layout = layout_, .rank = rank, .timeout_ns = 2'000'000'000};
    for (int r = 0; r < world; ++r) {
      void* mapped = region;
      if (r != rank) {
        CudaCheck(cudaIpcOpenMemHandle(&mapped, shared.handles[r], cudaIpcMemLazyEnablePeerAccess),
                  "import");
      }
      peers_.regions[r] = static_cast<std::byte*>(mapped);
    }
    CudaCheck(cudaHostAlloc(reinterpret_cast<void**>(&peers_.fault), sizeof(PeerFault), 0), "host");
    *peers_.fault = PeerFault();
    uint32_t* control = nullptr;
    CudaCheck(cudaHostAlloc(reinterpret_cast<void**>(&control), 4, 0), "host");
    *control = 0;
    peers_.control = control;
    int sms = 0;
    CudaCheck(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0), "attribute");
    int major = 0;
    CudaCheck(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "attribute");
    peers_.max_row_blocks = MaxRowBlocks(major * 10);
    peers_.max_blocks = std::min(sms / ranks_on_gpu, kMaxPeerBlocks);
    CudaCheck(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    Fill();
    Barrier();
  }

  void Run() {
    if (rank_ == 0) {
      std::printf("\n%d processes, bfloat16, graph of %d, median of %d replays, slowest rank, us\n",
                  world_, kOps, kReplays);
      std::printf("| hidden | tokens | one shot | 1 block | 2 | 4 | 8 | two shots |\n");
      std::printf("|---|---|---|---|---|---|---|---|\n");
    }
    for (int hidden : {4096, 7168}) {
      for (int tokens : {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048}) RunSize(hidden, tokens);
    }
    Barrier();
  }

 private:
  void Fill() {
    const size_t count = size_t{kMostTokens} * kMostHidden;
    for (void** array : {&partial_, &residual_, &norm_, &residual_out_}) {
      CudaCheck(cudaMalloc(array, count * 2), "operand");
    }
    CudaCheck(cudaMalloc(&weight_, kMostHidden * 4), "operand");
    std::vector<uint16_t> host(count);
    RandomFloats random(static_cast<uint32_t>(rank_ + 1)), same(99);
    for (uint16_t& x : host) x = BFloat16(random.Uniform(-2, 2)).bits;
    CudaCheck(cudaMemcpy(partial_, host.data(), count * 2, cudaMemcpyHostToDevice), "upload");
    for (uint16_t& x : host) x = BFloat16(same.Uniform(-2, 2)).bits;
    CudaCheck(cudaMemcpy(residual_, host.data(), count * 2, cudaMemcpyHostToDevice), "upload");
    std::vector<float> weight(kMostHidden, 1.25f);
    CudaCheck(cudaMemcpy(weight_, weight.data(), kMostHidden * 4, cudaMemcpyHostToDevice),
              "upload");
  }

  void RunSize(int hidden, int tokens) {
    if (rank_ == 0) std::printf("| %d | %d |", hidden, tokens);
    unsigned long long digest = 0;
    for (const int blocks : {0, 1, 2, 4, 8, -1}) {
      const double micros = Time(hidden, tokens, blocks);
      if (rank_ != 0) continue;
      if (micros < 0) {
        std::printf(" - |");
        continue;
      }
      if (digest == 0) digest = shared_.digest[0];
      bool same = true;
      for (int r = 0; r < world_; ++r) same = same && shared_.digest[r] == digest;
      std::printf(" %.2f%s |", micros, same ? "" : " OTHER BITS");
    }
    if (rank_ == 0) std::printf("\n");
    std::fflush(stdout);
  }

  // blocks < 0: two shots. Negative when it does not fit.
  double Time(int hidden, int tokens, int blocks) {
    const AllReduceRmsNormCudaParams params{.peers = peers_,
                                            .stamp = {.what = 1,
                                                      .rows = static_cast<uint32_t>(tokens),
                                                      .row_bytes = static_cast<uint32_t>(hidden)},
                                            .partial = partial_,
                                            .residual_in = residual_,
                                            .weight = static_cast<const float*>(weight_),
                                            .eps = 1e-5f,
                                            .hidden = hidden,
                                            .residual_out = residual_out_,
                                            .norm_out = norm_,
                                            .dtype = kDType,
                                            .blocks_per_row = std::max(blocks, 0)};
    CudaCheck(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capture");
    bool fits = true;
    for (int i = 0; i < kOps && fits; ++i) {
      if (tokens > 128 && blocks > 1)
        fits = false;
      else
        fits = (blocks < 0 ? AllReduceRmsNormTwoShotCuda(params, tokens, stream_)
                           : AllReduceRmsNormOneShotCuda(params, tokens, stream_))
                   .ok();
    }
    cudaGraph_t graph;
    CudaCheck(cudaStreamEndCapture(stream_, &graph), "capture");
    cudaGraphExec_t exec;
    CudaCheck(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    const double micros = fits ? Median(exec) : -1;
    if (fits) Digest(hidden, tokens);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    shared_.micros[rank_] = micros;
    Barrier();
    const double slowest = *std::max_element(shared_.micros, shared_.micros + world_);
    Barrier();
    return fits ? slowest : -1;
  }

  double Median(cudaGraphExec_t exec) {
    cudaEvent_t begin, end;
    CudaCheck(cudaEventCreate(&begin), "event");
    CudaCheck(cudaEventCreate(&end), "event");
    std::vector<double> times;
    for (int i = 0; i < kReplays + 5; ++i) {
      Barrier();
      CudaCheck(cudaEventRecord(begin, stream_), "event");
      CudaCheck(cudaGraphLaunch(exec, stream_), "launch");
      CudaCheck(cudaEventRecord(end, stream_), "event");
      CudaCheck(cudaStreamSynchronize(stream_), "kernel");
      if (peers_.fault->failed_operations != 0) {
        std::printf("rank %d failed: %u, peer %d\n", rank_,
                    static_cast<unsigned>(peers_.fault->failure), peers_.fault->peer);
        std::exit(1);
      }
      float ms;
      CudaCheck(cudaEventElapsedTime(&ms, begin, end), "event");
      if (i >= 5) times.push_back(ms * 1e3 / kOps);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    std::nth_element(times.begin(), times.begin() + kReplays / 2, times.end());
    return times[kReplays / 2];
  }

  void Digest(int hidden, int tokens) {
    std::vector<unsigned long long> host(size_t{2} * hidden * tokens / 8);
    CudaCheck(cudaMemcpy(host.data(), norm_, host.size() * 8, cudaMemcpyDeviceToHost), "download");
    unsigned long long digest = 1469598103934665603ull;
    for (unsigned long long word : host) digest = (digest ^ word) * 1099511628211ull;
    shared_.digest[rank_] = digest;
    CudaCheck(cudaMemset(norm_, 0, host.size() * 8), "clear");
  }

  void Barrier() {
    const int round = shared_.round.load();
    if (shared_.arrived.fetch_add(1) + 1 == world_) {
      shared_.arrived = 0;
      shared_.round = round + 1;
    }
    while (shared_.round.load() == round) {
    }
  }

  Shared& shared_;
  const int rank_, world_;
  PeerLayout layout_;
  Peers peers_;
  cudaStream_t stream_ = nullptr;
  void *partial_ = nullptr, *residual_ = nullptr, *norm_ = nullptr, *residual_out_ = nullptr;
  void* weight_ = nullptr;
};

int Spawn(int world) {
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  Shared& shared = *new (memory) Shared;
  for (int rank = 0; rank < world; ++rank) {
    if (fork() != 0) continue;  // CUDA has not started
    Rank(shared, rank, world).Run();
    std::exit(0);
  }
  int failed = 0, status = 0;
  while (wait(&status) > 0) failed += status != 0;
  return failed;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) {
  std::vector<int> worlds = {2, 4, 8};
  if (argc > 1) worlds.clear();
  for (int i = 1; i < argc; ++i) worlds.push_back(std::atoi(argv[i]));
  int failed = 0;
  for (int world : worlds) failed += muster::Spawn(world);
  return failed == 0 ? 0 : 1;
}
