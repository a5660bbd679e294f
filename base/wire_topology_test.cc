#include "base/wire_topology.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr uint64_t kLargest = std::numeric_limits<uint64_t>::max();

Topology Example(const ParallelConfig& config = {.tp = 2, .cp = 2, .replicas = 3}) {
  Topology topology{.replica = ReplicaIndex(config.replicas - 1),
                    .epoch = Epoch(18),
                    .term = Term(kLargest),
                    .config = config,
                    .groups = DeriveGroups(config, Epoch(18))};
  for (int i = 0; i < config.world_size(); ++i) {
    topology.ranks.push_back({.rank = GlobalRank(i),
                              .worker_id = absl::StrCat("gpu-", i),
                              .incarnation = Incarnation(kLargest - static_cast<uint64_t>(i)),
                              .address = absl::StrCat("127.0.0.1:", 7600 + i),
                              .local_address = absl::StrCat("unix:/run/muster/", i)});
  }
  return topology;
}

ModelSpec ExampleModel() {
  return {.architecture = "LlamaForCausalLM",
          .name = "llama",
          .layers = 32,
          .hidden = 4096,
          .heads = 64,
          .kv_heads = 8,
          .head_dim = 128,
          .ffn = 11008,
          .vocabulary = 32000,
          .max_positions = 131072,
          .dtype = "bfloat16",
          .digest = "00000000000000aa",
          .weight_bytes = uint64_t{14} << 30,
          .eos_token_ids = {2, 0, 128009},
          .sliding_window = 4096};
}

// `value` as a message after `change`; reading it must be refused with `field` in the message.
template <typename Value, typename Change>
void ExpectRefused(const Value& value, const std::string& field, Change change) {
  auto wire = ToWire(value);
  change(wire);
  EXPECT_STATUS(FromWire(wire), kInvalid, field);
}

TEST(WireParallelConfig, GoesThereAndBack) {
  for (const ParallelConfig& config :
       {ParallelConfig(), ParallelConfig{.tp = 2, .cp = 3, .pp = 4, .replicas = 5},
        ParallelConfig{.tp = 1024, .cp = 1024}}) {
    ASSERT_OK_AND_ASSIGN(const ParallelConfig read, FromWire(ToWire(config)));
    EXPECT_EQ(read, config);
  }
}

TEST(WireParallelConfig, RefusesASizeOutOfRange) {
  for (const uint32_t size : {0u, 1025u, 0x80000000u, 0xffffffffu}) {
    const std::string is = absl::StrCat(" is ", size, "; it can be 1 to 1024");
    ExpectRefused(ParallelConfig(), "tp" + is, [&](auto& wire) { wire.set_tp(size); });
    ExpectRefused(ParallelConfig(), "cp" + is, [&](auto& wire) { wire.set_cp(size); });
    ExpectRefused(ParallelConfig(), "pp" + is, [&](auto& wire) { wire.set_pp(size); });
    ExpectRefused(ParallelConfig(), "replicas" + is, [&](auto& wire) { wire.set_replicas(size); });
  }
}

TEST(WireParallelConfig, RefusesMoreRanksThanThereCanBe) {
  ExpectRefused(ParallelConfig{.tp = 1024, .cp = 1024, .pp = 2},
                "tp x cp x pp x replicas is 2097152; it can be 1 to 1048576", [](auto&) {});
  // 2^40, which is 0 in 32 bits.
  ExpectRefused(ParallelConfig{.tp = 1024, .cp = 1024, .pp = 1024, .replicas = 1024},
                "is 1099511627776", [](auto&) {});
}

TEST(WireTopology, GoesThereAndBack) {
  for (const ParallelConfig& config :
       {ParallelConfig(), ParallelConfig{.tp = 2, .cp = 3, .pp = 2, .replicas = 4}}) {
    ASSERT_OK_AND_ASSIGN(const Topology read, FromWire(ToWire(Example(config))));
    EXPECT_EQ(read, Example(config));
  }
}

TEST(WireTopology, RefusesWhatIsNumberedFromOne) {
  ExpectRefused(Example(), "topology.epoch is 0", [](v1::Topology& wire) { wire.set_epoch(0); });
  ExpectRefused(Example(), "topology.term is 0", [](v1::Topology& wire) { wire.set_term(0); });
  ExpectRefused(Example(), "topology.replica is 3; it can be 0 to 2",
                [](v1::Topology& wire) { wire.set_replica(3); });
  ExpectRefused(Example(), "tp is 0", [](v1::Topology& wire) { wire.clear_config(); });
}

TEST(WireTopology, RefusesRanksThatAreMissingOrTooMany) {
  ExpectRefused(Example(), "topology has 3 ranks; its sizes imply 4",
                [](v1::Topology& wire) { wire.mutable_ranks()->RemoveLast(); });
  ExpectRefused(Example(), "topology has 5 ranks; its sizes imply 4",
                [](v1::Topology& wire) { *wire.add_ranks() = wire.ranks(3); });
  ExpectRefused(Example(), "topology has 0 ranks; its sizes imply 4",
                [](v1::Topology& wire) { wire.clear_ranks(); });
  ExpectRefused(Example(), "topology has 4 ranks; its sizes imply 1048576", [](v1::Topology& wire) {
    *wire.mutable_config() = ToWire(ParallelConfig{.tp = 1024, .cp = 1024});
    wire.set_replica(0);
  });
}

TEST(WireTopology, RefusesARankThatIsNotInItsPlace) {
  ExpectRefused(Example(), "topology.ranks[2] is rank 1",
                [](v1::Topology& wire) { *wire.mutable_ranks(2) = wire.ranks(1); });
  ExpectRefused(Example(), "topology.ranks[0] is rank 3",
                [](v1::Topology& wire) { wire.mutable_ranks()->SwapElements(0, 3); });
  const std::string place = "its place is rank 2 at pp 0 cp 1 tp 0";
  ExpectRefused(Example(), place, [](v1::Topology& w) { w.mutable_ranks(2)->set_rank(~0u); });
  ExpectRefused(Example(), place, [](v1::Topology& w) { w.mutable_ranks(2)->set_pp_rank(1); });
  ExpectRefused(Example(), place, [](v1::Topology& w) { w.mutable_ranks(2)->set_cp_rank(0); });
  ExpectRefused(Example(), place, [](v1::Topology& w) { w.mutable_ranks(2)->set_tp_rank(1); });
}

TEST(WireTopology, RefusesWorkersThatCannotBe) {
  ExpectRefused(Example(), "worker id of 0 bytes",
                [](v1::Topology& wire) { wire.mutable_ranks(1)->clear_worker_id(); });
  ExpectRefused(Example(), "address has 257 bytes; it can have 256", [](v1::Topology& wire) {
    wire.mutable_ranks(1)->set_address(std::string(257, 'a'));
  });
  ExpectRefused(Example(), "local address is 'unix:@name'",
                [](v1::Topology& wire) { wire.mutable_ranks(1)->set_local_address("unix:@name"); });
}

TEST(WireTopology, AWorkerNeedsNoLocalAddress) {
  Topology topology = Example();
  topology.ranks[2].local_address.clear();
  ASSERT_OK_AND_ASSIGN(const Topology read, FromWire(ToWire(topology)));
  EXPECT_EQ(read, topology);
}

TEST(WireTopology, RefusesOneWorkerInTwoPlaces) {
  ExpectRefused(Example(), "topology.ranks[3] is held by worker gpu-1, as is another rank",
                [](v1::Topology& wire) { wire.mutable_ranks(3)->set_worker_id("gpu-1"); });
}

TEST(WireTopology, RefusesGroupsThatItsSizesDoNotImply) {
  ExpectRefused(Example(), "topology has 4 groups; its sizes imply 5",
                [](v1::Topology& wire) { wire.mutable_groups()->RemoveLast(); });
  ExpectRefused(Example(), "topology has 6 groups; its sizes imply 5",
                [](v1::Topology& wire) { *wire.add_groups() = wire.groups(4); });
  const std::string third = "topology.groups[3] is not CP[0,2] with id ";
  ExpectRefused(Example(), third,
                [](v1::Topology& wire) { wire.mutable_groups()->SwapElements(3, 4); });
  ExpectRefused(Example(), third,
                [](v1::Topology& wire) { wire.mutable_groups(3)->set_kind(v1::GROUP_KIND_TP); });
  ExpectRefused(Example(), third, [](v1::Topology& wire) {
    wire.mutable_groups(3)->mutable_ranks()->SwapElements(0, 1);
  });
  ExpectRefused(Example(), third, [](v1::Topology& wire) { wire.mutable_groups(3)->add_ranks(4); });
  ExpectRefused(Example(), third,
                [](v1::Topology& wire) { wire.mutable_groups(3)->mutable_ranks()->RemoveLast(); });
  ExpectRefused(Example(), third, [](v1::Topology& wire) { wire.mutable_groups(3)->clear_id(); });
}

TEST(WireTopology, RefusesTheGroupsOfAnotherEpoch) {
  ExpectRefused(Example(), "topology.groups[0] is not STAGE[0,1,2,3] with id ",
                [](v1::Topology& wire) { wire.set_epoch(19); });
}

TEST(WireModelSpec, GoesThereAndBack) {
  ASSERT_OK_AND_ASSIGN(const ModelSpec read, FromWire(ToWire(ExampleModel())));
  EXPECT_EQ(read, ExampleModel());
}

TEST(WireModelSpec, RefusesEveryDimensionOutOfRange) {
  using Set = void (*)(v1::ModelSpec&, uint32_t);
  struct Dimension {
    const char* name;
    uint32_t least;
    uint32_t most;
    Set set;
  };
  const Dimension dimensions[] = {
      {"layers", 0, 4096, [](v1::ModelSpec& wire, uint32_t n) { wire.set_layers(n); }},
      {"hidden", 1, 1 << 20, [](v1::ModelSpec& wire, uint32_t n) { wire.set_hidden(n); }},
      {"heads", 1, 1 << 14, [](v1::ModelSpec& wire, uint32_t n) { wire.set_heads(n); }},
      {"kv_heads", 1, 1 << 14, [](v1::ModelSpec& wire, uint32_t n) { wire.set_kv_heads(n); }},
      {"head_dim", 1, 1 << 14, [](v1::ModelSpec& wire, uint32_t n) { wire.set_head_dim(n); }},
      {"ffn", 1, 1 << 24, [](v1::ModelSpec& wire, uint32_t n) { wire.set_ffn(n); }},
      {"vocabulary", 1, 1 << 26, [](v1::ModelSpec& wire, uint32_t n) { wire.set_vocabulary(n); }},
      {"max_positions", 1, 1 << 30,
       [](v1::ModelSpec& wire, uint32_t n) { wire.set_max_positions(n); }},
      {"sliding_window", 0, 1 << 30,
       [](v1::ModelSpec& wire, uint32_t n) { wire.set_sliding_window(n); }}};
  for (const auto& [name, least, most, set] : dimensions) {
    std::vector<uint32_t> refused = {most + 1, 0xffffffffu};
    if (least > 0) refused.push_back(least - 1);
    for (const uint32_t bad : refused) {
      ExpectRefused(ExampleModel(),
                    absl::StrCat("model.", name, " is ", bad, "; it can be ", least, " to ", most),
                    [&, set = set](v1::ModelSpec& wire) { set(wire, bad); });
    }
    for (const uint32_t good : {least, most}) {
      v1::ModelSpec wire = ToWire(ExampleModel());
      set(wire, good);
      EXPECT_OK(FromWire(wire)) << name;
    }
  }
}

TEST(WireModelSpec, RefusesLongTextsAndManyEndTokens) {
  const std::string text(257, 'x');
  const std::string long_text = " has 257 bytes; it can have 256";
  ExpectRefused(ExampleModel(), "model.architecture" + long_text,
                [&](v1::ModelSpec& wire) { wire.set_architecture(text); });
  ExpectRefused(ExampleModel(), "model.name" + long_text,
                [&](v1::ModelSpec& wire) { wire.set_name(text); });
  ExpectRefused(ExampleModel(), "model.dtype" + long_text,
                [&](v1::ModelSpec& wire) { wire.set_dtype(text); });
  ExpectRefused(ExampleModel(), "model.digest" + long_text,
                [&](v1::ModelSpec& wire) { wire.set_digest(text); });
  ExpectRefused(ExampleModel(), "model.eos_token_ids is 4294967295",
                [&](v1::ModelSpec& wire) { wire.add_eos_token_ids(~0u); });
  ExpectRefused(ExampleModel(), "model.eos_token_ids (count) is 257; it can be 0 to 256",
                [&](v1::ModelSpec& wire) { wire.mutable_eos_token_ids()->Resize(257, 1); });
}

TEST(CheckWorkerId, AllowsWhatPodsAreCalled) {
  for (const std::string id : {"w", "gpu-3.cluster_A", "0", "..."}) EXPECT_OK(CheckWorkerId(id));
  EXPECT_OK(CheckWorkerId(std::string(128, 'w')));
}

TEST(CheckWorkerId, RefusesEverythingElseWithoutRepeatingIt) {
  for (const std::string& id :
       {std::string(), std::string(129, 'w'), std::string("a b"), std::string("a/b"),
        std::string("a\n"), std::string("\0", 1), std::string("é"), std::string("\xff")}) {
    EXPECT_STATUS(CheckWorkerId(id), kInvalid,
                  absl::StrCat("worker id of ", id.size(), " bytes; it can be 1 to 128"));
  }
}

}  // namespace
}  // namespace muster
