// What a step has to do at the least: the bytes it reads and the operations it computes.
#ifndef MUSTER_CLIENT_CTL_BENCH_WORK_H_
#define MUSTER_CLIENT_CTL_BENCH_WORK_H_

#include <cstdint>

#include "proto/muster/v1/fleet.pb.h"

namespace muster::ctl {

struct StepWork {
  double bytes = 0;  // that all ranks together read
  double flops = 0;  // 2 per multiplication and addition
};

// Of one replica.
class BenchWork {
 public:
  // `replica` has a topology; its ledgers say what the ranks hold, some of it more than once. Where
  // they do not, the weights count once.
  BenchWork(const v1::ModelSpec& model, const v1::ReplicaStatus& replica);

  // A new token of each of `sequences`, each `context` tokens long with it. What is read: all
  // weights but the rows of an embedding that is no output matrix as well, keys and values.
  StepWork Decode(uint64_t sequences, uint64_t context) const;
  // A prompt of `tokens`, whose last token alone gets logits.
  StepWork Prefill(uint64_t tokens) const;

 private:
  // `pairs` of a token with one that it attends to.
  double Flops(uint64_t rows, uint64_t outputs, double pairs) const;

  const v1::ModelSpec model_;
  uint64_t weight_bytes_ = 0;    // read in a step
  uint64_t kv_token_bytes_ = 0;  // keys and values of a token
};

}  // namespace muster::ctl

#endif  // MUSTER_CLIENT_CTL_BENCH_WORK_H_
