// The steps of a benchmark, run through a leader.
#ifndef MUSTER_CLIENT_CTL_BENCH_RUN_H_
#define MUSTER_CLIENT_CTL_BENCH_RUN_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/ctl/fleet_client.h"

namespace muster::ctl {

struct BenchOptions {
  uint32_t context = 64;          // tokens of each sequence that decodes
  uint32_t repetitions = 20;      // steps per batch
  std::vector<uint32_t> batches;  // sequences that decode at once; empty: the captured buckets
  std::vector<uint32_t> prompts;  // tokens; empty: 64, 256 and what a step holds
};

struct BenchStep {
  uint32_t size = 0;           // sequences that decode, or tokens of the prompt
  uint32_t bucket = 0;         // rows that the step ran with
  double context = 0;          // of the sequences that decode, their mean length in tokens
  absl::Duration device_time;  // median
  std::string left_out;        // why there is no time; empty otherwise
};

struct BenchSteps {
  uint64_t epoch = 0;
  std::vector<BenchStep> decode;
  std::vector<BenchStep> prefill;
};

class BenchRun {
 public:
  // `leader` outlives it. `tell` says what comes next.
  BenchRun(const InferenceClient& leader, const v1::GetModelResponse& model, BenchOptions options,
           std::function<void(absl::string_view)> tell);

  // Runs all steps, on sequences of its own, and frees these however it ends. A size that the KV
  // cache has no room for is left out, with what the leader said.
  // Errors: CANCELLED (Stop), INVALID_ARGUMENT (the context is longer than the model's), and as of
  // Inference.Forward.
  absl::StatusOr<BenchSteps> Run();
  // Ends Run after the step that it is in. Any thread.
  void Stop() { stopped_ = true; }
  // Gives back all sequences through another client, beside a Run that was stopped. Any thread.
  void FreeThrough(const InferenceClient& leader) const;

 private:
  absl::StatusOr<BenchStep> Decode(uint32_t batch);
  absl::StatusOr<BenchStep> Prefill(uint32_t tokens);
  // The same, but one for which there is no room.
  absl::StatusOr<BenchStep> Try(uint32_t size,
                                absl::StatusOr<BenchStep> (BenchRun::*step)(uint32_t));
  void Free() const { FreeThrough(leader_); }
  // Brings `count` new sequences to `tokens` tokens.
  absl::Status Fill(uint32_t count, uint32_t tokens);
  v1::SequenceSlice* AddSlice(v1::ForwardRequest& request, uint32_t sequence, uint32_t tokens);
  absl::StatusOr<v1::ForwardResponse> Forward(v1::ForwardRequest& request);

  const InferenceClient& leader_;
  const v1::GetModelResponse model_;
  const BenchOptions options_;
  const std::function<void(absl::string_view)> tell_;
  const std::string client_id_;
  std::atomic<bool> stopped_{false};
  uint64_t epoch_ = 0;
  std::vector<uint32_t> lengths_;  // by sequence
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_BENCH_RUN_H_
