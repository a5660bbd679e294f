// What schedulers might ask of a replica, at random.
#ifndef MUSTER_TESTS_EQUIVALENCE_RANDOM_SCHEDULE_H_
#define MUSTER_TESTS_EQUIVALENCE_RANDOM_SCHEDULE_H_

#include <cstdint>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include "tests/equivalence/contract_model.h"
#include "tests/equivalence/history_oracle.h"

namespace muster::testing {

// Two clients with a handful of sequences each. Most of what it makes is welcome; some of it is
// refused: positions that do not continue, forks of what is not there, more than there is room for.
class RandomSchedule {
 public:
  // All outlive it. `model` tells what is held when a request is made.
  RandomSchedule(uint64_t seed, const ContractModel& model, HistoryOracle& oracle,
                 uint32_t vocabulary)
      : random_(seed), model_(model), oracle_(oracle), vocabulary_(vocabulary) {}

  // Slices of one to four sequences: prefill chunks, decode tokens, parts of the layers.
  MeantBatch Forward();
  ForkOrder Fork();
  FreeOrder Free();

  // 0 to count - 1.
  uint32_t Below(size_t count) { return static_cast<uint32_t>(random_() % count); }
  bool Chance(int percent) { return Below(100) < static_cast<uint32_t>(percent); }

 private:
  template <typename T>
  T OneOf(std::initializer_list<T> choices) {
    return choices.begin()[Below(choices.size())];
  }
  std::string Client() { return OneOf({"a", "b"}); }
  std::string Sequence() { return OneOf({"s0", "s1", "s2", "s3", "s4", "s5"}); }

  // Adds a slice of a sequence that the batch does not have yet.
  void AddSlice(MeantBatch& meant, const std::string& sequence);
  // Layers of `held` that have the same length.
  LayerRange Layers(const ModelSequence& held);
  size_t Count();
  // Of positions from `first` on: those that a layer has seen, and further ones.
  History Tokens(const ModelSequence& held, size_t first, size_t count);
  void FeedHiddenStates(const ModelSequence& held, const History& tokens, uint32_t layer,
                        SequenceSlice& slice);
  void AskFor(LayerRange layers, SequenceSlice& slice);

  std::mt19937_64 random_;
  const ContractModel& model_;
  HistoryOracle& oracle_;
  const uint32_t vocabulary_;
};

}  // namespace muster::testing

#endif  // MUSTER_TESTS_EQUIVALENCE_RANDOM_SCHEDULE_H_
