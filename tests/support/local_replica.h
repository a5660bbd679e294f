// All ranks of a replica in this process, each with its own device: what a fleet forms with
// processes, without a coordinator.
#ifndef MUSTER_TESTS_SUPPORT_LOCAL_REPLICA_H_
#define MUSTER_TESTS_SUPPORT_LOCAL_REPLICA_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/topology.h"
#include "tests/support/local_rendezvous.h"
#include "worker/engine/cpu_engine_backend.h"
#include "worker/engine/epoch_context.h"
#include "worker/model/model_source.h"

namespace muster::testing {

// The topology of `config` on workers "w0", "w1", ..., numbered on from `first_worker`.
Topology MakeTopology(const ParallelConfig& config, Epoch epoch,
                      ReplicaIndex replica = ReplicaIndex(0), int first_worker = 0);

// Runs `rank(index)` for 0 .. world - 1, each on a thread of its own; the first error.
absl::Status OnAllRanks(int world, const std::function<absl::Status(int rank)>& rank);

// Waits for the answer.
absl::StatusOr<ForwardResult> ForwardAndWait(Engine& engine, ForwardBatch batch);

// How tokens are written.
struct Writing {
  std::string sequence = "s";
  int chunk = 512;  // tokens of the prompt per step
  SamplingOptions sampling;
};
// A prompt and `count` tokens after it, with the sampled tokens' log-probabilities. The sequence
// is freed in the end.
absl::StatusOr<std::vector<TokenLogprob>> Write(Engine& engine, const std::vector<int>& prompt,
                                                int count, const Writing& writing);
// Without their log-probabilities.
std::vector<int> TokensOf(const std::vector<TokenLogprob>& written);

class LocalReplica {
 public:
  struct Options {
    ParallelConfig config;
    Epoch epoch = Epoch(1);
    ReplicaIndex replica;
    int first_device = 0;  // ordinal of rank 0
    EpochContext::Options context = {.kv_memory = uint64_t{8} << 20};
  };
  // Forms all ranks up to SERVING. `model` outlives the replica.
  static absl::StatusOr<std::unique_ptr<LocalReplica>> Form(const ModelSource& model,
                                                            const Options& options);

  int world() const { return static_cast<int>(contexts_.size()); }
  EpochContext& context(int rank) { return *contexts_[rank]; }
  CpuEngineBackend& backend(int rank) { return *backends_[rank]; }
  Engine& engine() { return *contexts_[0]->engine(); }
  // Ends a rank, as its worker would on Release.
  void Destroy(int rank) { contexts_[rank].reset(); }

 private:
  LocalReplica() = default;

  LocalRendezvousBoard board_;
  std::vector<std::unique_ptr<CpuEngineBackend>> backends_;
  std::vector<std::unique_ptr<EpochContext>> contexts_;
};

}  // namespace muster::testing

#endif  // MUSTER_TESTS_SUPPORT_LOCAL_REPLICA_H_
