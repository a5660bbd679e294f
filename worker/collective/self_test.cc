#include "worker/collective/self_test.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr uint64_t kNever = ~uint64_t{0};
constexpr int kMostTokens = 9;

class SelfTest {
 public:
  SelfTest(Device& device, Stream& stream, const Group& group, CollectiveEndpoint& endpoint,
           Ledger& ledger)
      : device_(device),
        stream_(stream),
        group_(group),
        endpoint_(endpoint),
        ledger_(ledger),
        random_(static_cast<uint32_t>(group.rank().value() + 1)) {}

  // In one shot and in two, unfused and fused, all give the same bits, as they do on all ranks.
  absl::Status TryNorm(const SelfTestShape& shape);
  // The same of bfloat16, whose unfused norm rounds once more and is left out.
  absl::Status TryNarrowNorm(const SelfTestShape& shape);
  absl::Status TryCombine(const SelfTestShape& shape);

 private:
  std::vector<float> Random(size_t count);
  absl::StatusOr<Buffer> ToDevice(const std::vector<float>& values);
  absl::StatusOr<Buffer> ToDeviceNarrow(const std::vector<float>& values);
  absl::StatusOr<std::vector<float>> ToHost(const Buffer& buffer);
  absl::Status SameOnAllRanks(const std::vector<float>& values);
  absl::StatusOr<std::vector<float>> GatherAll(const Buffer& own);

  Device& device_;
  Stream& stream_;
  const Group& group_;
  CollectiveEndpoint& endpoint_;
  Ledger& ledger_;
  std::mt19937 random_;
};

std::vector<float> SelfTest::Random(size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random_);
  return values;
}

absl::StatusOr<Buffer> SelfTest::ToDevice(const std::vector<float>& values) {
  const size_t bytes = values.size() * sizeof(float);
  MUSTER_ASSIGN_OR_RETURN(Buffer buffer, device_.Allocate(bytes, "self-test", ledger_));
  MUSTER_RETURN_IF_ERROR(device_.Copy(stream_, buffer.data(), values.data(), bytes));
  MUSTER_RETURN_IF_ERROR(stream_.Synchronize());
  return buffer;
}

absl::StatusOr<Buffer> SelfTest::ToDeviceNarrow(const std::vector<float>& values) {
  // A whole number of words, which is how they come back.
  std::vector<float> words((values.size() + 1) / 2);
  for (size_t i = 0; i < values.size(); ++i) {
    const BFloat16 narrow(values[i]);
    std::memcpy(reinterpret_cast<std::byte*>(words.data()) + i * sizeof(narrow), &narrow,
                sizeof(narrow));
  }
  return ToDevice(words);
}

absl::StatusOr<std::vector<float>> SelfTest::ToHost(const Buffer& buffer) {
  std::vector<float> values(buffer.size() / sizeof(float));
  MUSTER_RETURN_IF_ERROR(device_.Copy(stream_, values.data(), buffer.data(), buffer.size()));
  MUSTER_RETURN_IF_ERROR(stream_.Synchronize());
  return values;
}

absl::StatusOr<std::vector<float>> SelfTest::GatherAll(const Buffer& own) {
  MUSTER_ASSIGN_OR_RETURN(
      Buffer all,
      device_.Allocate(own.size() * static_cast<size_t>(group_.size()), "self-test", ledger_));
  MUSTER_RETURN_IF_ERROR(
      endpoint_.MakeCommunicator(group_)->AllGather(stream_, own.data(), all.data(), own.size()));
  return ToHost(all);
}

absl::Status SelfTest::SameOnAllRanks(const std::vector<float>& values) {
  Digest digest;
  digest.Add(absl::string_view(reinterpret_cast<const char*>(values.data()),
                               values.size() * sizeof(float)));
  std::vector<float> words(2);
  const uint64_t value = digest.value();
  std::memcpy(words.data(), &value, sizeof(value));
  MUSTER_ASSIGN_OR_RETURN(const Buffer own, ToDevice(words));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<float> all, GatherAll(own));
  for (int rank = 0; rank < group_.size(); ++rank) {
    if (std::memcmp(&all[2 * rank], words.data(), sizeof(value)) == 0) continue;
    return absl::InternalError(
        absl::StrCat("self-test of ", group_.DebugString(), ": rank ",
                     group_.ToGlobal(GroupRank(rank)).value(), " has other bits than rank ",
                     group_.ToGlobal(group_.rank()).value(), " after all-reduce-rms-norm"));
  }
  return absl::OkStatus();
}

absl::Status SelfTest::TryNorm(const SelfTestShape& shape) {
  const size_t count = static_cast<size_t>(shape.hidden) * shape.tokens;
  // The residual and the weight are the same on all ranks, as in a model.
  std::vector<float> residual(count), weight(shape.hidden);
  for (size_t i = 0; i < count; ++i) residual[i] = std::sin(static_cast<float>(i));
  for (int i = 0; i < shape.hidden; ++i) weight[i] = 1 + std::cos(static_cast<float>(i)) / 8;
  MUSTER_ASSIGN_OR_RETURN(const Buffer partial, ToDevice(Random(count)));
  MUSTER_ASSIGN_OR_RETURN(const Buffer residual_in, ToDevice(residual));
  MUSTER_ASSIGN_OR_RETURN(const Buffer weights, ToDevice(weight));
  MUSTER_ASSIGN_OR_RETURN(const Buffer residual_out, ToDevice(std::vector<float>(count)));
  MUSTER_ASSIGN_OR_RETURN(const Buffer norm_out, ToDevice(std::vector<float>(count)));
  const FusedAllReduceRmsNorm op{.partial = partial.data(),
                                 .residual_in = residual_in.data(),
                                 .weight = weights.as<float>(),
                                 .residual_out = residual_out.data(),
                                 .norm_out = norm_out.data(),
                                 .tokens = shape.tokens,
                                 .hidden = shape.hidden,
                                 .eps = 1e-5f};
  std::vector<float> expected;
  for (Fusion fusion : {Fusion::kUnfused, Fusion::kFused}) {
    const std::unique_ptr<Workspace> workspace = endpoint_.MakeWorkspace(group_, fusion);
    for (uint64_t two_shot_bytes : {kNever, uint64_t{0}}) {
      endpoint_.SetTwoShotBytes(two_shot_bytes);
      MUSTER_RETURN_IF_ERROR(workspace->Enqueue(stream_, op));
      MUSTER_ASSIGN_OR_RETURN(std::vector<float> got, ToHost(norm_out));
      MUSTER_ASSIGN_OR_RETURN(const std::vector<float> sums, ToHost(residual_out));
      got.insert(got.end(), sums.begin(), sums.end());
      if (expected.empty()) expected = got;
      if (std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) != 0) {
        return absl::InternalError(absl::StrCat(
            "self-test of ", group_.DebugString(), ": ",
            fusion == Fusion::kFused ? "fused" : "unfused", " all-reduce-rms-norm in ",
            two_shot_bytes == 0 ? "two shots" : "one shot", " differs from the plain one"));
      }
    }
  }
  endpoint_.SetTwoShotBytes(kNever);
  return SameOnAllRanks(expected);
}

absl::Status SelfTest::TryNarrowNorm(const SelfTestShape& shape) {
  const size_t count = static_cast<size_t>(shape.hidden) * shape.tokens;
  std::vector<float> residual(count), zeros(count);
  for (size_t i = 0; i < count; ++i) residual[i] = std::sin(static_cast<float>(i));
  MUSTER_ASSIGN_OR_RETURN(const Buffer partial, ToDeviceNarrow(Random(count)));
  MUSTER_ASSIGN_OR_RETURN(const Buffer residual_in, ToDeviceNarrow(residual));
  MUSTER_ASSIGN_OR_RETURN(const Buffer weights, ToDevice(std::vector<float>(shape.hidden, 1.5f)));
  MUSTER_ASSIGN_OR_RETURN(const Buffer norm_out, ToDeviceNarrow(zeros));
  const FusedAllReduceRmsNorm op{.partial = partial.data(),
                                 .residual_in = residual_in.data(),
                                 .weight = weights.as<float>(),
                                 .norm_out = norm_out.data(),
                                 .tokens = shape.tokens,
                                 .hidden = shape.hidden,
                                 .eps = 1e-5f,
                                 .dtype = DType::kBFloat16};
  const std::unique_ptr<Workspace> workspace = endpoint_.MakeWorkspace(group_, Fusion::kFused);
  endpoint_.SetTwoShotBytes(kNever);
  MUSTER_RETURN_IF_ERROR(workspace->Enqueue(stream_, op));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<float> one_shot, ToHost(norm_out));
  endpoint_.SetTwoShotBytes(0);
  MUSTER_RETURN_IF_ERROR(workspace->Enqueue(stream_, op));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<float> two_shots, ToHost(norm_out));
  endpoint_.SetTwoShotBytes(kNever);
  if (std::memcmp(one_shot.data(), two_shots.data(), one_shot.size() * sizeof(float)) != 0) {
    return absl::InternalError(absl::StrCat("self-test of ", group_.DebugString(),
                                            ": all-reduce-rms-norm of bfloat16 in two shots "
                                            "differs from that in one"));
  }
  return SameOnAllRanks(one_shot);
}

absl::Status SelfTest::TryCombine(const SelfTestShape& shape) {
  const int size = group_.size(), heads = size, head_dim = 4, tokens = shape.tokens;
  const size_t width = static_cast<size_t>(heads) * head_dim;
  std::vector<float> own_lse = Random(static_cast<size_t>(tokens) * heads);
  // A rank without keys, and a head that nobody has keys for.
  if (group_.rank().value() == size - 1 && size > 1) own_lse[0] = -INFINITY;
  own_lse.back() = -INFINITY;
  MUSTER_ASSIGN_OR_RETURN(const Buffer partial, ToDevice(Random(tokens * width)));
  MUSTER_ASSIGN_OR_RETURN(const Buffer lse, ToDevice(own_lse));
  MUSTER_ASSIGN_OR_RETURN(const Buffer out, ToDevice(std::vector<float>(tokens * head_dim)));
  const CpCombine op{.partial = partial.as<float>(),
                     .lse = lse.as<float>(),
                     .out = out.as<float>(),
                     .tokens = tokens,
                     .heads = heads,
                     .head_dim = head_dim};
  MUSTER_RETURN_IF_ERROR(endpoint_.MakeWorkspace(group_, Fusion::kFused)->Enqueue(stream_, op));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<float> got, ToHost(out));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<float> partials, GatherAll(partial));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<float> lses, GatherAll(lse));
  const int head = group_.rank().value();  // as many heads as ranks: slice c is head c
  for (int token = 0; token < tokens; ++token) {
    for (int i = 0; i < head_dim; ++i) {
      double sum = 0, weights = 0;
      for (int peer = 0; peer < size; ++peer) {
        const size_t row = static_cast<size_t>(peer) * tokens + token;
        const double weight = std::exp(double{lses[row * heads + head]});
        weights += weight;
        sum += weight * double{partials[row * width + head * head_dim + i]};
      }
      const double expected = weights == 0 ? 0 : sum / weights;
      if (!(std::abs(double{got[token * head_dim + i]} - expected) < 1e-4)) {
        return absl::InternalError(absl::StrCat("self-test of ", group_.DebugString(),
                                                ": cp-combine gives ", got[token * head_dim + i],
                                                " for ", expected));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

SelfTestShape SelfTestShape::For(const WorkspacePlan& plan,
                                 const std::vector<CollectiveUse>& uses) {
  SelfTestShape shape;
  for (const CollectiveUse& use : uses) {
    if (use.group != plan.kinds.front()) continue;
    shape.hidden = static_cast<int>(std::max<uint64_t>(use.row_bytes / sizeof(float), 1));
    shape.tokens = std::min(use.max_rows, kMostTokens);
    break;
  }
  return shape;
}

absl::Status RunSelfTest(Device& device, Stream& stream, const Group& group,
                         CollectiveEndpoint& endpoint, const SelfTestShape& shape, Ledger& ledger) {
  SelfTest test(device, stream, group, endpoint, ledger);
  MUSTER_RETURN_IF_ERROR(test.TryNorm(shape));
  MUSTER_RETURN_IF_ERROR(test.TryNarrowNorm(shape));
  return test.TryCombine(shape);
}

}  // namespace muster
