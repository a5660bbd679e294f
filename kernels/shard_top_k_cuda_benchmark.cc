// Device times of ShardTopKCuda over the vocabulary of an 8B Llama, beside the time in which the
// logits alone are read at the rate that StreamingReadCuda reaches.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "kernels/cuda_test_support.h"
#include "kernels/shard_top_k.h"
#include "kernels/streaming_read.h"

namespace muster {
namespace {

using ::muster::testing::CudaCheck;
using ::muster::testing::DeviceBytes;
using ::muster::testing::RandomFloats;

constexpr int64_t kVocabulary = 128256;
constexpr int kOps = 20;  // in a graph
constexpr int kLaunches = 9;

// The median time of one op in microseconds.
double Time(const std::function<CudaLaunch(CudaStream)>& op) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CudaCheck(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  CudaCheck(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin");
  for (int i = 0; i < kOps; ++i) CudaCheck(static_cast<cudaError_t>(op(stream).error), "op");
  CudaCheck(cudaStreamEndCapture(stream, &graph), "end");
  CudaCheck(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  cudaEvent_t events[kLaunches + 1];
  for (cudaEvent_t& event : events) {
    CudaCheck(cudaEventCreate(&event), "event");
    CudaCheck(cudaGraphLaunch(exec, stream), "launch");
    CudaCheck(cudaEventRecord(event, stream), "record");
  }
  CudaCheck(cudaStreamSynchronize(stream), "run");
  std::vector<float> times(kLaunches);
  for (int i = 0; i < kLaunches; ++i) {
    CudaCheck(cudaEventElapsedTime(&times[i], events[i], events[i + 1]), "time");
  }
  for (cudaEvent_t event : events) CudaCheck(cudaEventDestroy(event), "destroy");
  CudaCheck(cudaGraphExecDestroy(exec), "destroy");
  CudaCheck(cudaGraphDestroy(graph), "destroy");
  CudaCheck(cudaStreamDestroy(stream), "destroy");
  std::nth_element(times.begin(), times.begin() + kLaunches / 2, times.end());
  return times[kLaunches / 2] * 1e3 / kOps;
}

int Multiprocessors() {
  int count = 0;
  CudaCheck(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0), "attribute");
  return count;
}

// Bytes per microsecond.
double ReadRate() {
  constexpr size_t kBytes = size_t{512} << 20;
  const DeviceBytes memory(kBytes), seen(4);
  return kBytes / Time([&](CudaStream stream) {
           return StreamingReadCuda(memory.data(), kBytes, seen.as<uint32_t>(), Multiprocessors(),
                                    stream);
         });
}

int Main() {
  std::vector<float> host(kMaxCudaShards * kVocabulary);
  RandomFloats random(1);
  for (float& logit : host) logit = random.Uniform(-15, 15);
  const DeviceBytes logits(host.data(), host.size() * sizeof(float));
  const DeviceBytes candidates(kMaxCudaShards * kMaxCudaCandidates * sizeof(Candidate));
  const DeviceBytes counts(kMaxCudaShards * sizeof(int64_t));
  const DeviceBytes summaries(kMaxCudaShards * sizeof(LogitSummary));
  const DeviceBytes scratch(
      static_cast<size_t>(ShardTopKScratchBytes(kMaxCudaShards, kVocabulary, kMaxCudaCandidates)));
  const DeviceBytes draws(kMaxCudaShards * sizeof(ShardDraw));
  const double rate = ReadRate();
  std::printf("%ld logits each; plain read %.2f TB/s\n", static_cast<long>(kVocabulary),
              rate * 1e-6);
  std::printf("%6s %5s %9s %9s %9s\n", "shards", "k", "us", "drawn us", "read us");
  for (const int count : {1, 8, kMaxCudaShards}) {
    for (const int64_t k : {0, 1, 20, 64, 256}) {
      std::vector<ShardTopKParams> shards;
      for (int i = 0; i < count; ++i) {
        shards.push_back({.logits = logits.as<float>() + i * kVocabulary,
                          .vocab_local = kVocabulary,
                          .vocab_begin = 0,
                          .k = k,
                          .inverse_temperature = 0.8f,
                          .candidates = candidates.as<Candidate>() + i * kMaxCudaCandidates,
                          .candidate_count = counts.as<int64_t>() + i,
                          .summary = summaries.as<LogitSummary>() + i});
      }
      const auto time = [&] {
        return Time([&](CudaStream stream) {
          return ShardTopKCuda(shards.data(), count, scratch.data(), stream);
        });
      };
      const double us = time();
      for (int i = 0; i < count; ++i) {
        shards[i].draw = draws.as<ShardDraw>() + i;
        shards[i].key = {.seed = static_cast<uint64_t>(i), .position = i};
      }
      std::printf("%6d %5ld %9.1f %9.1f %9.1f\n", count, static_cast<long>(k), us, time(),
                  static_cast<double>(count * kVocabulary * int64_t{sizeof(float)}) / rate);
    }
  }
  return 0;
}

}  // namespace
}  // namespace muster

int main() { return muster::Main(); }
