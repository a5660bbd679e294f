#include "tests/equivalence/history_oracle.h"

#include <utility>

#include "absl/memory/memory.h"
#include "base/status_macros.h"

namespace muster::testing {

absl::StatusOr<std::unique_ptr<HistoryOracle>> HistoryOracle::Create(const ModelSource& model) {
  LocalReplica::Options options{.first_device = 64};
  MUSTER_ASSIGN_OR_RETURN(auto replica, LocalReplica::Form(model, options));
  return absl::WrapUnique(new HistoryOracle(std::move(replica)));
}

const std::vector<float>& HistoryOracle::Logits(const History& history) {
  const auto [place, is_new] = logits_.try_emplace(history);
  if (is_new) place->second = Run({.token_ids = history, .return_logits = true}).logits;
  return place->second;
}

const std::vector<float>& HistoryOracle::HiddenStates(const History& history, uint32_t layer) {
  const auto [place, is_new] = hidden_.try_emplace({history, layer});
  if (is_new) {
    place->second = Run({.token_ids = history, .return_hidden_states = layer}).hidden_states;
  }
  return place->second;
}

SliceOutput HistoryOracle::Run(SequenceSlice slice) {
  slice.sequence_id = "alone";
  ForwardBatch batch{.client_id = "oracle", .slices = {std::move(slice)}};
  ForwardResult result = ForwardAndWait(replica_->engine(), std::move(batch)).value();
  replica_->engine().Free({.client_id = "oracle", .all = true}, [](const absl::StatusOr<int>&) {});
  return std::move(result.outputs[0]);
}

}  // namespace muster::testing
