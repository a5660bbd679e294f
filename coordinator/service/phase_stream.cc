#include "coordinator/service/phase_stream.h"

#include "absl/strings/str_cat.h"

namespace muster {
namespace {

constexpr size_t kMaxDigestBytes = 64;
constexpr uint32_t kMaxBlockTokens = 1 << 16;

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
