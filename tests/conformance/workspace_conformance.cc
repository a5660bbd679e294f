// What every Workspace keeps to: the fused all-reduce + residual + RMSNorm, and the CP combine.
#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/conformance/rank_harness.h"

namespace muster::testing {
namespace {

class WorkspaceConformance : public RanksConformance {};
INSTANTIATE_CONFORMANCE(WorkspaceConformance);

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};
constexpr uint64_t kOneShot = ~uint64_t{0}, kTwoShot = 0;
constexpr float kEps = 1e-5f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Values = std::vector<float>;

// One fused norm as all ranks see it.
struct NormCase {
  int tokens = 0;
  int hidden = 0;
  DType dtype = DType::kFloat32;
  bool with_residual = true;
  std::vector<Values> partials;  // by rank
  Values residual;
  Values weight;

  size_t count() const { return static_cast<size_t>(tokens) * hidden; }
  std::string Name() const {
    return absl::StrCat(tokens, " x ", hidden, " ", muster::Name(dtype),
                        with_residual ? "" : " without residual");
  }
};

NormCase RandomCase(int world, int tokens, int hidden, DType dtype, bool with_residual = true) {
  NormCase one{.tokens = tokens, .hidden = hidden, .dtype = dtype, .with_residual = with_residual};
  for (int rank = 0; rank < world; ++rank) {
    one.partials.push_back(RandomNumbers(absl::StrCat("partial ", rank), one.count(), dtype));
  }
  one.residual =
      with_residual ? RandomNumbers("residual", one.count(), dtype) : Values(one.count(), 0.0f);
  one.weight = RandomNumbers("weight", static_cast<size_t>(hidden), DType::kFloat32);
  return one;
}

struct NormResult {
  Bytes residual;
  Bytes norm;
};

// Operands of a case on the device.
class NormOperands {
 public:
  static absl::StatusOr<NormOperands> Make(RankHarness& rank, const NormCase& one) {
    NormOperands made;
    MUSTER_ASSIGN_OR_RETURN(made.partial_,
                            rank.Upload(Encode(one.partials[rank.rank()], one.dtype)));
    MUSTER_ASSIGN_OR_RETURN(made.residual_, rank.Upload(Encode(one.residual, one.dtype)));
    MUSTER_ASSIGN_OR_RETURN(made.weight_, rank.Upload(Encode(one.weight, DType::kFloat32)));
    MUSTER_ASSIGN_OR_RETURN(made.residual_out_, rank.Allocate(made.residual_.size()));
    MUSTER_ASSIGN_OR_RETURN(made.norm_out_, rank.Allocate(made.residual_.size()));
    return made;
  }

  FusedAllReduceRmsNorm Op(const NormCase& one) const {
    return {.partial = partial_.data(),
            .residual_in = one.with_residual ? residual_.data() : nullptr,
            .weight = weight_.as<float>(),
            .residual_out = residual_out_.data(),
            .norm_out = norm_out_.data(),
            .tokens = one.tokens,
            .hidden = one.hidden,
            .eps = kEps,
            .dtype = one.dtype};
  }
  const Buffer& residual() const { return residual_; }

  absl::StatusOr<NormResult> Download(RankHarness& rank) const {
    NormResult result;
    MUSTER_ASSIGN_OR_RETURN(result.residual, rank.Download(residual_out_, residual_out_.size()));
    MUSTER_ASSIGN_OR_RETURN(result.norm, rank.Download(norm_out_, norm_out_.size()));
    return result;
  }

 private:
  Buffer partial_, residual_, weight_, residual_out_, norm_out_;
};

absl::StatusOr<NormResult> RunNorm(RankHarness& rank, Workspace& workspace, const NormCase& one) {
  MUSTER_ASSIGN_OR_RETURN(const NormOperands operands, NormOperands::Make(rank, one));
  MUSTER_RETURN_IF_ERROR(
      rank.Execute([&] { return workspace.Enqueue(rank.stream(), operands.Op(one)); }));
  return operands.Download(rank);
}

// Additions in float32 lose at most half an ulp of each partial result, whose magnitude the sum of
// magnitudes bounds; the result is rounded once more to its type.
absl::Status CheckResidual(const NormCase& one, const Values& got) {
  std::vector<double> wanted(one.count()), magnitude(one.count());
  for (size_t i = 0; i < one.count(); ++i) {
    wanted[i] = one.residual[i];
    magnitude[i] = std::abs(one.residual[i]);
    for (const Values& partial : one.partials) {
      wanted[i] += partial[i];
      magnitude[i] += std::abs(partial[i]);
    }
  }
  const double additions = static_cast<double>(one.partials.size());
  return ExpectNear(absl::StrCat("residual of ", one.Name()), got, wanted, [&](size_t i) {
    return 1.01 * (additions * kFloatRounding * magnitude[i] +
                   RoundingOf(one.dtype) * std::abs(wanted[i])) +
           TinyOf(one.dtype);
  });
}

// Of the residual that was really stored. A sum of `hidden` squares is off by at most hidden
// roundings, its root by half of that; a division, a root and two products add one each.
absl::Status CheckNorm(const NormCase& one, const Values& residual, const Values& got) {
  std::vector<double> wanted(one.count());
  for (int token = 0; token < one.tokens; ++token) {
    const float* row = residual.data() + static_cast<size_t>(token) * one.hidden;
    double squares = 0;
    for (int i = 0; i < one.hidden; ++i) squares += double{row[i]} * row[i];
    const double scale = 1 / std::sqrt(squares / one.hidden + double{kEps});
    for (int i = 0; i < one.hidden; ++i) {
      wanted[static_cast<size_t>(token) * one.hidden + i] = row[i] * scale * one.weight[i];
    }
  }
  const double relative = (one.hidden / 2.0 + 6) * kFloatRounding + RoundingOf(one.dtype);
  return ExpectNear(absl::StrCat("norm of ", one.Name()), got, wanted, [&](size_t i) {
    return 1.01 * relative * std::abs(wanted[i]) + TinyOf(one.dtype);
  });
}

absl::Status CheckNormCase(RankHarness& rank, JoinedGroup& joined, const NormCase& one) {
  joined.endpoint->SetTwoShotBytes(kOneShot);
  MUSTER_ASSIGN_OR_RETURN(const NormResult got, RunNorm(rank, *joined.workspace, one));
  const Values residual = Decode(got.residual, one.dtype);
  MUSTER_RETURN_IF_ERROR(CheckResidual(one, residual));
  MUSTER_RETURN_IF_ERROR(CheckNorm(one, residual, Decode(got.norm, one.dtype)));
  rank.Witness(absl::StrCat("residual of ", one.Name()), got.residual);
  rank.Witness(absl::StrCat("norm of ", one.Name()), got.norm);

  // Once more, and by the other way: the bits may depend on neither.
  for (uint64_t two_shot_bytes : {kOneShot, kTwoShot}) {
    joined.endpoint->SetTwoShotBytes(two_shot_bytes);
    MUSTER_ASSIGN_OR_RETURN(const NormResult again, RunNorm(rank, *joined.workspace, one));
    const std::string what =
        absl::StrCat(two_shot_bytes == kOneShot ? "a second run of " : "two shots of ", one.Name());
    MUSTER_RETURN_IF_ERROR(ExpectEqual("residual by " + what, again.residual, got.residual));
    MUSTER_RETURN_IF_ERROR(ExpectEqual("norm by " + what, again.norm, got.norm));
  }
  return absl::OkStatus();
}

RANKS_TEST(WorkspaceConformance, FusedNormMatchesTheReferenceWithTheSameBitsOnAllRanks,
           kGroupSizes) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  for (DType dtype : kDTypes) {
    // One token, an odd few, and more than the 16 KiB of the slab hold; widths no vector divides.
    for (const auto& [tokens, hidden] : {std::pair{1, 576}, {3, 37}, {17, 1}, {33, 577}}) {
      MUSTER_RETURN_IF_ERROR(
          CheckNormCase(rank, joined, RandomCase(rank.world(), tokens, hidden, dtype)));
    }
    MUSTER_RETURN_IF_ERROR(
        CheckNormCase(rank, joined, RandomCase(rank.world(), 5, 64, dtype, false)));
  }
  return absl::OkStatus();
}

RANKS_TEST(WorkspaceConformance, UnfusedNormMatchesTheReferenceAndIn32BitsTheFusedOne,
           {1, 2, 3, 4}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup fused, rank.JoinWorld());
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup unfused,
                          rank.Join(rank.WorldGroup(Epoch(2)), 16 << 10, Fusion::kUnfused));
  for (const auto& [tokens, hidden] : {std::pair{1, 576}, {3, 37}, {33, 577}}) {
    const NormCase one = RandomCase(rank.world(), tokens, hidden, DType::kFloat32);
    MUSTER_RETURN_IF_ERROR(CheckNormCase(rank, unfused, one));
    MUSTER_ASSIGN_OR_RETURN(const NormResult wanted, RunNorm(rank, *fused.workspace, one));
    MUSTER_ASSIGN_OR_RETURN(const NormResult got, RunNorm(rank, *unfused.workspace, one));
    MUSTER_RETURN_IF_ERROR(ExpectEqual("residual unfused", got.residual, wanted.residual));
    MUSTER_RETURN_IF_ERROR(ExpectEqual("norm unfused", got.norm, wanted.norm));
  }
  return absl::OkStatus();
}

RANKS_TEST(WorkspaceConformance, TheResidualMayBeUpdatedInPlaceOrNotBeWanted, {1, 2, 3}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  for (uint64_t two_shot_bytes : {kOneShot, kTwoShot}) {
    joined.endpoint->SetTwoShotBytes(two_shot_bytes);
    const NormCase one = RandomCase(rank.world(), 21, 300, DType::kBFloat16);
    MUSTER_ASSIGN_OR_RETURN(const NormResult wanted, RunNorm(rank, *joined.workspace, one));
    MUSTER_ASSIGN_OR_RETURN(const NormOperands operands, NormOperands::Make(rank, one));
    FusedAllReduceRmsNorm op = operands.Op(one);
    op.residual_out = nullptr;
    MUSTER_RETURN_IF_ERROR(
        rank.Execute([&] { return joined.workspace->Enqueue(rank.stream(), op); }));
    MUSTER_ASSIGN_OR_RETURN(NormResult got, operands.Download(rank));
    MUSTER_RETURN_IF_ERROR(ExpectEqual("norm alone", got.norm, wanted.norm));
    op.residual_out = operands.residual().data();
    MUSTER_RETURN_IF_ERROR(
        rank.Execute([&] { return joined.workspace->Enqueue(rank.stream(), op); }));
    MUSTER_ASSIGN_OR_RETURN(got.residual,
                            rank.Download(operands.residual(), wanted.residual.size()));
    MUSTER_RETURN_IF_ERROR(ExpectEqual("residual in place", got.residual, wanted.residual));
  }
  return absl::OkStatus();
}

// Rows whose sums are not ordinary numbers. Which NaN it is does not matter.
RANKS_TEST(WorkspaceConformance, ZerosSubnormalsInfinitiesAndNansGoThroughTheFusedNorm,
           {2, 3, 16}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  for (DType dtype : kDTypes) {
    const float least = static_cast<float>(2 * TinyOf(dtype));
    const struct {
      const char* what;
      float first, others, residual;  // what ranks contribute
      double sum;
    } rows[] = {
        {"minus zero of all", -0.0f, -0.0f, -0.0f, -0.0},
        {"minus zero and zero", -0.0f, 0.0f, -0.0f, 0.0},
        {"a subnormal", least, 0.0f, 0.0f, double{least}},
        {"a negative subnormal", -least, -0.0f, -0.0f, -double{least}},
        {"infinity", kInfinity, 1.0f, -1.0f, double{kInfinity}},
        {"minus infinity", 1.0f, -kInfinity, 0.0f, -double{kInfinity}},
        {"opposite infinities", kInfinity, -kInfinity, 0.0f, double{kNan}},
        {"a NaN", kNan, 1.0f, 1.0f, double{kNan}},
        {"a NaN of the residual", 1.0f, 1.0f, kNan, double{kNan}},
    };
    constexpr int kHidden = 37, kRows = static_cast<int>(std::size(rows));
    NormCase one = RandomCase(rank.world(), kRows, kHidden, dtype);
    std::vector<double> wanted;
    for (int i = 0; i < kRows * kHidden; ++i) {
      const auto& row = rows[i / kHidden];
      for (Values& partial : one.partials) partial[i] = row.others;
      one.partials[0][i] = row.first;
      one.residual[i] = row.residual;
      wanted.push_back(row.sum);
    }
    for (uint64_t two_shot_bytes : {kOneShot, kTwoShot}) {
      joined.endpoint->SetTwoShotBytes(two_shot_bytes);
      MUSTER_ASSIGN_OR_RETURN(const NormResult got, RunNorm(rank, *joined.workspace, one));
      MUSTER_RETURN_IF_ERROR(ExpectNear(absl::StrCat("residual in ", Name(dtype)),
                                        Decode(got.residual, dtype), wanted,
                                        [](size_t) { return 0.0; }));
      rank.Witness(absl::StrCat("odd residual ", Name(dtype)), got.residual);
      rank.Witness(absl::StrCat("odd norm ", Name(dtype)), got.norm);
      const Values norm = Decode(got.norm, dtype);
      for (int i = 0; i < kRows * kHidden; ++i) {
        const bool is_number = std::isfinite(wanted[i]);
        MUSTER_RETURN_IF_ERROR(ExpectTrue(std::isfinite(norm[i]) == is_number || !is_number,
                                          absl::StrCat("norm of ", rows[i / kHidden].what)));
      }
    }
  }
  return absl::OkStatus();
}

RANKS_TEST(WorkspaceConformance, AnOperationOfNoTokensOrTooLongARowIsRefusedAndDisturbsNobody,
           {2}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld(4096));
  const NormCase one = RandomCase(rank.world(), 2, 100, DType::kFloat32);
  MUSTER_ASSIGN_OR_RETURN(const NormOperands operands, NormOperands::Make(rank, one));
  FusedAllReduceRmsNorm op = operands.Op(one);
  op.tokens = 0;
  MUSTER_RETURN_IF_ERROR(ExpectStatus(joined.workspace->Enqueue(rank.stream(), op),
                                      absl::StatusCode::kInvalidArgument, "0 x 100"));
  op.tokens = 2;
  op.hidden = 4096;
  MUSTER_RETURN_IF_ERROR(ExpectStatus(joined.workspace->Enqueue(rank.stream(), op),
                                      absl::StatusCode::kInvalidArgument, "16384"));
  CpCombine combine{.partial = static_cast<const float*>(op.partial),
                    .lse = op.weight,
                    .out = static_cast<float*>(op.norm_out),
                    .tokens = 1,
                    .heads = 3,
                    .head_dim = 5};
  MUSTER_RETURN_IF_ERROR(ExpectStatus(joined.workspace->Enqueue(rank.stream(), combine),
                                      absl::StatusCode::kInvalidArgument, "3 heads x 5"));
  return CheckNormCase(rank, joined, one);
}

// One CP combine as all ranks see it.
struct CombineCase {
  int tokens = 0, heads = 0, head_dim = 0;
  std::vector<Values> partials, lse;  // by rank

  size_t width() const { return static_cast<size_t>(heads) * head_dim; }
};

CombineCase RandomCombine(int world, int tokens, int heads, int head_dim) {
  CombineCase one{.tokens = tokens, .heads = heads, .head_dim = head_dim};
  for (int rank = 0; rank < world; ++rank) {
    one.partials.push_back(
        RandomNumbers(absl::StrCat("attention ", rank), tokens * one.width(), DType::kFloat32));
    one.lse.push_back(RandomNumbers(absl::StrCat("lse ", rank), static_cast<size_t>(tokens) * heads,
                                    DType::kFloat32));
    // From near to far: up to e^20 between ranks.
    for (float& lse : one.lse.back()) lse *= 5;
  }
  return one;
}

// Every exponential of a difference d is off by |d| roundings and the few of the function itself,
// every sum by one rounding a rank; numerator and denominator both.
absl::Status CheckCombined(RankHarness& rank, const CombineCase& one, const Values& got) {
  const size_t world = one.partials.size(), slice = one.width() / world;
  std::vector<double> wanted, tolerance;
  for (size_t i = 0; i < one.tokens * slice; ++i) {
    const size_t token = i / slice;
    const size_t column = slice * static_cast<size_t>(rank.rank()) + i % slice;
    const size_t at_lse = token * one.heads + column / one.head_dim;
    double most = -std::numeric_limits<double>::infinity();
    for (const Values& lse : one.lse) most = std::max(most, double{lse[at_lse]});
    double sum = 0, magnitude = 0, weights = 0, widest = 0;
    for (size_t peer = 0; peer < world; ++peer) {
      const double lse = one.lse[peer][at_lse];
      if (lse == -std::numeric_limits<double>::infinity()) continue;
      const double weight = std::exp(lse - most);
      const double value = one.partials[peer][token * one.width() + column];
      sum += weight * value;
      magnitude += weight * std::abs(value);
      weights += weight;
      widest = std::max(widest, most - lse);
    }
    wanted.push_back(weights == 0 ? 0 : sum / weights);
    tolerance.push_back(weights == 0 ? 0
                                     : 2 * (2 * static_cast<double>(world) + 8 + widest) *
                                           kFloatRounding * magnitude / weights);
  }
  return ExpectNear(absl::StrCat("combined ", one.tokens, " x ", one.heads, " x ", one.head_dim),
                    got, wanted, [&](size_t i) { return tolerance[i]; });
}

absl::Status CheckCombineCase(RankHarness& rank, Workspace& workspace, const CombineCase& one) {
  MUSTER_ASSIGN_OR_RETURN(Buffer partial,
                          rank.Upload(Encode(one.partials[rank.rank()], DType::kFloat32)));
  MUSTER_ASSIGN_OR_RETURN(Buffer lse, rank.Upload(Encode(one.lse[rank.rank()], DType::kFloat32)));
  const size_t bytes = one.tokens * one.width() / one.partials.size() * sizeof(float);
  MUSTER_ASSIGN_OR_RETURN(Buffer out, rank.Allocate(bytes));
  const CpCombine op{.partial = partial.as<float>(),
                     .lse = lse.as<float>(),
                     .out = out.as<float>(),
                     .tokens = one.tokens,
                     .heads = one.heads,
                     .head_dim = one.head_dim};
  const auto enqueue = [&] { return workspace.Enqueue(rank.stream(), op); };
  MUSTER_RETURN_IF_ERROR(rank.Execute(enqueue));
  MUSTER_ASSIGN_OR_RETURN(const Bytes got, rank.Download(out, bytes));
  MUSTER_RETURN_IF_ERROR(CheckCombined(rank, one, Decode(got, DType::kFloat32)));
  MUSTER_RETURN_IF_ERROR(rank.Execute(enqueue));
  MUSTER_ASSIGN_OR_RETURN(const Bytes again, rank.Download(out, bytes));
  return ExpectEqual("a second combine", again, got);
}

RANKS_TEST(WorkspaceConformance, CpCombineLeavesThisRanksSliceOfTheMergedHeads, kGroupSizes) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  // Slices that are whole heads, parts of heads, and neither; more tokens than the slab holds.
  const int world = rank.world();
  for (const CombineCase& one :
       {RandomCombine(world, 1, world, 16), RandomCombine(world, 5, 2, 8 * world),
        RandomCombine(world, 3, 3, 5 * world), RandomCombine(world, 61, 3, 4 * world)}) {
    MUSTER_RETURN_IF_ERROR(CheckCombineCase(rank, *joined.workspace, one));
  }
  return absl::OkStatus();
}

RANKS_TEST(WorkspaceConformance, CpCombinePassesOverRanksWithoutKeysWhateverTheyHold, {2, 3, 5}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  const int world = rank.world();
  CombineCase one = RandomCombine(world, 4, 3, 2 * world);
  for (int peer = 0; peer < world; ++peer) {
    for (int token = 0; token < one.tokens; ++token) {
      // Token 0: all hold keys; 1: not the last rank; 2: only rank 0; 3: nobody.
      const int holders[] = {world, world - 1, 1, 0};
      if (peer < holders[token]) continue;
      std::fill_n(one.lse[peer].begin() + token * one.heads, one.heads, -kInfinity);
      std::fill_n(one.partials[peer].begin() + token * static_cast<ptrdiff_t>(one.width()),
                  one.width(), kNan);
    }
  }
  return CheckCombineCase(rank, *joined.workspace, one);
}

// STAGE and CP are the same ranks when tp = 1: one memory, one sequence for both operations.
RANKS_TEST(WorkspaceConformance, BothOperationsAndTheCommunicatorTakeTurnsInOneMemory, {2, 3}) {
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  const int world = rank.world();
  for (int round = 0; round < 3; ++round) {
    MUSTER_RETURN_IF_ERROR(
        CheckNormCase(rank, joined, RandomCase(world, 2 + round, 64, DType::kFloat32)));
    MUSTER_RETURN_IF_ERROR(
        CheckCombineCase(rank, *joined.workspace, RandomCombine(world, 7, 2, 4 * world)));
    MUSTER_RETURN_IF_ERROR(
        rank.Execute([&] { return joined.communicator->Barrier(rank.stream()); }));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace muster::testing
