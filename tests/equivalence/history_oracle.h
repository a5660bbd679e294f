// What a model says of a history of tokens, worked out the plainest way.
#ifndef MUSTER_TESTS_EQUIVALENCE_HISTORY_ORACLE_H_
#define MUSTER_TESTS_EQUIVALENCE_HISTORY_ORACLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/support/local_replica.h"
#include "worker/model/model_source.h"

namespace muster::testing {

// All tokens of a sequence, from its first.
using History = std::vector<uint32_t>;

// Runs each history alone, from its first token, in one piece and on one rank; and remembers what
// came of it, so that a second look costs nothing.
class HistoryOracle {
 public:
  // `model` outlives it.
  static absl::StatusOr<std::unique_ptr<HistoryOracle>> Create(const ModelSource& model);

  // [vocabulary]: after the last token.
  const std::vector<float>& Logits(const History& history);
  // [tokens, hidden]: as they enter `layer`; the number of layers: as they leave the last one.
  const std::vector<float>& HiddenStates(const History& history, uint32_t layer);

 private:
  explicit HistoryOracle(std::unique_ptr<LocalReplica> replica) : replica_(std::move(replica)) {}

  SliceOutput Run(SequenceSlice slice);

  const std::unique_ptr<LocalReplica> replica_;
  std::map<History, std::vector<float>> logits_;
  std::map<std::pair<History, uint32_t>, std::vector<float>> hidden_;
};

}  // namespace muster::testing

#endif  // MUSTER_TESTS_EQUIVALENCE_HISTORY_ORACLE_H_
