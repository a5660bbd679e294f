#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/all_reduce_rms_norm.h"
#include "tests/support/status_matchers.h"
#include "worker/collective/shm/shm_ranks.h"

namespace muster {
namespace {

using testing::ShmRanks;

constexpr uint64_t kNever = ~uint64_t{0};

std::vector<float> RandomValues(size_t count, int seed) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

struct Outcome {
  std::vector<float> residual, norm;
  friend bool operator==(const Outcome& a, const Outcome& b) {
    return std::memcmp(a.residual.data(), b.residual.data(), a.residual.size() * 4) == 0 &&
           std::memcmp(a.norm.data(), b.norm.data(), a.norm.size() * 4) == 0;
  }
};

struct NormCase {
  int ranks, tokens, hidden, threads;
};

void PrintTo(const NormCase& c, std::ostream* os) {
  *os << c.ranks << " ranks x " << c.tokens << " x " << c.hidden << " by " << c.threads;
}

class ShmNormTest : public ::testing::TestWithParam<NormCase> {
 protected:
  std::vector<float> Partial(int rank) const { return RandomValues(count_, 100 + rank); }

  // What the kernel makes of all parts at once.
  Outcome Expected() const {
    Outcome outcome{residual_, std::vector<float>(count_)};
    std::vector<std::vector<float>> parts;
    AllReduceRmsNormParams params{.world = GetParam().ranks,
                                  .dtype = DType::kFloat32,
                                  .residual_in = outcome.residual.data(),
                                  .residual_out = outcome.residual.data(),
                                  .residual_dtype = DType::kFloat32,
                                  .weight = weight_.data(),
                                  .eps = 1e-5f,
                                  .hidden = GetParam().hidden,
                                  .norm_out = outcome.norm.data(),
                                  .norm_dtype = DType::kFloat32};
    for (int rank = 0; rank < GetParam().ranks; ++rank) parts.push_back(Partial(rank));
    for (int rank = 0; rank < GetParam().ranks; ++rank) params.parts[rank] = parts[rank].data();
    AllReduceRmsNormCpu(params, {0, GetParam().tokens});
    return outcome;
  }

  absl::Status RunRank(ShmRanks::Rank& rank, Fusion fusion, uint64_t two_shot_bytes,
                       Outcome* outcome) const {
    const std::vector<float> partial = Partial(rank.group.rank().value());
    *outcome = {residual_, std::vector<float>(count_)};
    rank.endpoint->SetTwoShotBytes(two_shot_bytes);
    return rank.endpoint->MakeWorkspace(rank.group, fusion)
        ->Enqueue(*rank.stream, FusedAllReduceRmsNorm{.partial = partial.data(),
                                                      .residual_in = outcome->residual.data(),
                                                      .weight = weight_.data(),
                                                      .residual_out = outcome->residual.data(),
                                                      .norm_out = outcome->norm.data(),
                                                      .tokens = GetParam().tokens,
                                                      .hidden = GetParam().hidden,
                                                      .eps = 1e-5f});
  }

  const size_t count_ = static_cast<size_t>(GetParam().tokens) * GetParam().hidden;
  const std::vector<float> residual_ = RandomValues(count_, 1);
  const std::vector<float> weight_ = RandomValues(GetParam().hidden, 2);
};

TEST_P(ShmNormTest, GivesTheKernelsBitsOnAllRanksOnEveryPath) {
  ShmRanks ranks(GetParam().ranks, {.threads = GetParam().threads});
  const Outcome expected = Expected();
  for (Fusion fusion : {Fusion::kFused, Fusion::kUnfused}) {
    for (uint64_t two_shot_bytes : {kNever, uint64_t{0}}) {
      std::vector<Outcome> outcomes(ranks.size());
      const auto statuses = ranks.Run([&](ShmRanks::Rank& rank) {
        return RunRank(rank, fusion, two_shot_bytes, &outcomes[rank.group.rank().value()]);
      });
      for (int rank = 0; rank < ranks.size(); ++rank) {
        ASSERT_OK(statuses[rank]);
        EXPECT_TRUE(outcomes[rank] == expected) << "rank " << rank;
      }
    }
  }
}

// The slab has 16 KiB: 4,096 values.
INSTANTIATE_TEST_SUITE_P(Shapes, ShmNormTest,
                         ::testing::Values(NormCase{1, 5, 64, 1}, NormCase{2, 1, 576, 1},
                                           NormCase{2, 37, 576, 2}, NormCase{3, 2, 1000, 1},
                                           NormCase{4, 33, 96, 1}, NormCase{5, 3, 4096, 2},
                                           NormCase{16, 20, 33, 1}));

TEST(ShmWorkspaceTest, RefusesARowThatIsLongerThanTheSlab) {
  ShmRanks ranks(2, {});
  std::vector<float> data(8192);
  const FusedAllReduceRmsNorm op{.partial = data.data(),
                                 .weight = data.data(),
                                 .norm_out = data.data(),
                                 .tokens = 1,
                                 .hidden = 8192};
  EXPECT_STATUS(ranks[0]
                    .endpoint->MakeWorkspace(ranks[0].group, Fusion::kFused)
                    ->Enqueue(*ranks[0].stream, op),
                absl::StatusCode::kInvalidArgument,
                "needs 32768 bytes of workspace per token; it has 16384");
}

TEST(ShmWorkspaceTest, RefusesACombineThatCannotBeCut) {
  ShmRanks ranks(3, {});
  std::vector<float> data(64);
  const CpCombine op{.partial = data.data(),
                     .lse = data.data(),
                     .out = data.data(),
                     .tokens = 1,
                     .heads = 4,
                     .head_dim = 4};
  EXPECT_STATUS(ranks[0]
                    .endpoint->MakeWorkspace(ranks[0].group, Fusion::kFused)
                    ->Enqueue(*ranks[0].stream, op),
                absl::StatusCode::kInvalidArgument,
                "4 heads x 4 cannot be cut into slices for 3 ranks");
}

TEST(ShmWorkspaceTest, CombinesInSlicesOfTokensAsInOnePiece) {
  const int tokens = 23, heads = 6, head_dim = 64, size = 4, width = heads * head_dim;
  std::vector<std::vector<float>> outs[2];
  for (const uint64_t slab_bytes : {uint64_t{4096}, uint64_t{1} << 20}) {
    ShmRanks ranks(size, {.slab_bytes = slab_bytes});
    std::vector<std::vector<float>> out(size, std::vector<float>(tokens * width / size));
    const auto statuses = ranks.Run([&](ShmRanks::Rank& rank) {
      const int self = rank.group.rank().value();
      const std::vector<float> partial = RandomValues(tokens * width, self);
      std::vector<float> lse = RandomValues(tokens * heads, 50 + self);
      for (size_t i = 0; i < lse.size(); i += 3) lse[i] = -std::numeric_limits<float>::infinity();
      return rank.endpoint->MakeWorkspace(rank.group, Fusion::kFused)
          ->Enqueue(*rank.stream, CpCombine{.partial = partial.data(),
                                            .lse = lse.data(),
                                            .out = out[self].data(),
                                            .tokens = tokens,
                                            .heads = heads,
                                            .head_dim = head_dim});
    });
    for (const absl::Status& status : statuses) ASSERT_OK(status);
    outs[slab_bytes == 4096] = out;
  }
  EXPECT_EQ(outs[0], outs[1]);
}

}  // namespace
}  // namespace muster
