// The small models under tests/testdata/goldens and what transformers makes of them.
#ifndef MUSTER_WORKER_MODEL_GOLDEN_H_
#define MUSTER_WORKER_MODEL_GOLDEN_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace muster {

struct Golden {
  std::string directory;
  std::vector<int> prompt;
  std::vector<int> tokens;                        // greedy
  std::vector<std::vector<float>> logits;         // [tokens][vocabulary]: tokens[i] comes of row i
  std::vector<std::vector<float>> prompt_logits;  // [prompt][vocabulary]
  std::vector<std::vector<float>> logits_bf16;    // as logits, arithmetic in bfloat16; or empty
};

absl::StatusOr<Golden> ReadGolden(const std::string& name);

}  // namespace muster

#endif  // MUSTER_WORKER_MODEL_GOLDEN_H_
