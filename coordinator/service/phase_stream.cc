#include "coordinator/service/phase_stream.h"

#include "absl/strings/str_cat.h"

namespace muster {
namespace {

constexpr size_t kMaxDigestBytes = 64;
constexpr uint32_t kMaxBlockTokens = 1 << 16;
constexpr int kMaxBuckets = 32;
constexpr uint32_t kMaxBucketRows = 1 << 16;

absl::StatusOr<std::vector<int>> BucketsFromWire(
    const google::protobuf::RepeatedField<uint32_t>& wire) {
  if (wire.size() > kMaxBuckets) {
    return absl::InvalidArgumentError(
        absl::StrCat("buckets has ", wire.size(), " entries; it can have ", kMaxBuckets));
  }
  for (int i = 0; i < wire.size(); ++i) {
    if (wire[i] >= 1 && wire[i] <= kMaxBucketRows) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("buckets[", i, "] is ", wire[i], "; it can be 1 to ", kMaxBucketRows));
  }
  return std::vector<int>(wire.begin(), wire.end());
}

}  // namespace

absl::StatusOr<PhaseResult> ResultFromWire(const v1::LoadResult& /*wire*/) { return PhaseResult{}; }

absl::StatusOr<PhaseResult> ResultFromWire(const v1::WarmupResult& wire) {
  PhaseResult result;
  MUSTER_ASSIGN_OR_RETURN(result.ledger, FromWire(wire.ledger()));
  return result;
}

absl::StatusOr<PhaseResult> ResultFromWire(const v1::CaptureResult& wire) {
  PhaseResult result{.kv_blocks = wire.kv_blocks(), .agreement_digest = wire.agreement_digest()};
  MUSTER_ASSIGN_OR_RETURN(result.ledger, FromWire(wire.ledger()));
  if (wire.block_tokens() > kMaxBlockTokens) {
    return absl::InvalidArgumentError(absl::StrCat("block_tokens is ", wire.block_tokens(),
                                                   "; it can be 0 to ", kMaxBlockTokens));
  }
  result.block_tokens = static_cast<int>(wire.block_tokens());
  MUSTER_ASSIGN_OR_RETURN(result.buckets, BucketsFromWire(wire.buckets()));
  if (wire.agreement_digest().size() > kMaxDigestBytes) {
    return absl::InvalidArgumentError(absl::StrCat("agreement_digest has ",
                                                   wire.agreement_digest().size(),
                                                   " bytes; it can have ", kMaxDigestBytes));
  }
  return result;
}

absl::StatusOr<PhaseResult> ResultFromWire(const v1::ActivateResult& wire) {
  PhaseResult result;
  MUSTER_ASSIGN_OR_RETURN(result.takeover, FromWire(wire));
  return result;
}

}  // namespace muster
