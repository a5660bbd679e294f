#include "tests/equivalence/random_schedule.h"

#include <algorithm>
#include <set>

namespace muster::testing {

MeantBatch RandomSchedule::Forward() {
  MeantBatch meant{.batch = {.client_id = Client()}};
  std::set<std::string> chosen;
  for (uint32_t wanted = 1 + Below(4); wanted > 0; --wanted) chosen.insert(Sequence());
  for (const std::string& sequence : chosen) AddSlice(meant, sequence);
  std::vector<size_t> order(chosen.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random_);
  MeantBatch shuffled{.batch = {.client_id = meant.batch.client_id}};
  for (const size_t i : order) {
    shuffled.batch.slices.push_back(std::move(meant.batch.slices[i]));
    shuffled.tokens.push_back(std::move(meant.tokens[i]));
  }
  return shuffled;
}

void RandomSchedule::AddSlice(MeantBatch& meant, const std::string& sequence) {
  const int layers = model_.options().layers;
  const ModelSequence* found = model_.Find(meant.batch.client_id, sequence);
  const ModelSequence held =
      found != nullptr ? *found : ModelSequence{.lengths = std::vector<int64_t>(layers)};
  const LayerRange range = Layers(held);
  const auto first = static_cast<uint32_t>(*held.LengthOf(range));
  SequenceSlice slice{.sequence_id = sequence, .first_position = first};
  if (range != LayerRange{0, layers} || Chance(20)) slice.layers = range;
  History tokens = Tokens(held, first, Count());
  if (range.begin > 0 || Chance(10)) {
    FeedHiddenStates(held, tokens, static_cast<uint32_t>(range.begin), slice);
  } else {
    slice.token_ids = tokens;
  }
  AskFor(range, slice);
  if (Chance(2)) slice.first_position += 1 + Below(3);
  if (Chance(2)) slice.first_position -= std::min(first, 1 + Below(3));
  meant.batch.slices.push_back(std::move(slice));
  meant.tokens.push_back(std::move(tokens));
}

LayerRange RandomSchedule::Layers(const ModelSequence& held) {
  const int layers = model_.options().layers;
  const LayerRange whole{0, layers};
  if (held.LengthOf(whole).has_value() && Chance(75)) return whole;
  while (true) {
    const int begin = static_cast<int>(Below(layers));
    const LayerRange part{begin, begin + 1 + static_cast<int>(Below(layers - begin))};
    if (held.LengthOf(part).has_value()) return part;
  }
}

size_t RandomSchedule::Count() {
  if (Chance(50)) return 1;
  return 1 + Below(OneOf<size_t>({4, 16, 50}));
}

History RandomSchedule::Tokens(const ModelSequence& held, size_t first, size_t count) {
  History tokens;
  for (size_t position = first; position < first + count; ++position) {
    tokens.push_back(position < held.tokens.size() ? held.tokens[position] : Below(vocabulary_));
  }
  return tokens;
}

void RandomSchedule::FeedHiddenStates(const ModelSequence& held, const History& tokens,
                                      uint32_t layer, SequenceSlice& slice) {
  History history(held.tokens.begin(), held.tokens.begin() + slice.first_position);
  history.insert(history.end(), tokens.begin(), tokens.end());
  const std::vector<float>& all = oracle_.HiddenStates(history, layer);
  const size_t hidden = all.size() / history.size();
  slice.hidden_states.assign(all.end() - static_cast<ptrdiff_t>(tokens.size() * hidden), all.end());
}

void RandomSchedule::AskFor(LayerRange layers, SequenceSlice& slice) {
  if (Chance(25)) {
    const auto begin = static_cast<uint32_t>(layers.begin);
    slice.return_hidden_states = begin + Below(layers.end - layers.begin + 1);
  }
  if (layers.end < model_.options().layers) return;
  slice.sample = Chance(60);
  slice.top_n = OneOf({0u, 0u, 1u, 5u, 64u});
  slice.return_logits = Chance(25);
  slice.sampling = {.temperature = OneOf({0.0f, 0.7f, 1.3f}),
                    .top_k = OneOf({0u, 1u, 7u, 100u}),
                    .top_p = OneOf({1.0f, 0.9f, 0.3f}),
                    .seed = random_()};
}

ForkOrder RandomSchedule::Fork() {
  ForkOrder order{.client_id = Client()};
  // Mostly a sequence that is held, to one that is not.
  for (int tries = 0; tries < 4; ++tries) {
    order.sequence_id = Sequence();
    order.new_sequence_id = Sequence();
    if (model_.Find(order.client_id, order.sequence_id) != nullptr &&
        model_.Find(order.client_id, order.new_sequence_id) == nullptr) {
      break;
    }
  }
  const ModelSequence* parent = model_.Find(order.client_id, order.sequence_id);
  if (Chance(80) && parent != nullptr) {
    order.tokens = Chance(90) ? 1 + Below(parent->tokens.size()) : Below(3) * 100;
  }
  return order;
}

FreeOrder RandomSchedule::Free() {
  FreeOrder order{.client_id = Client()};
  if (Chance(25)) {
    order.all = true;
    return order;
  }
  for (uint32_t wanted = Below(4); wanted > 0; --wanted) order.sequence_ids.push_back(Sequence());
  return order;
}

}  // namespace muster::testing
