#include "worker/collective/warmup_vote.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "worker/device/byte_size.h"

namespace muster {

std::string WarmupVote::Encode() const {
  return absl::StrCat(static_cast<int>(status.code()), ";", wanted_bytes, ";", free_bytes, ";",
                      status.message());
}

absl::StatusOr<WarmupVote> WarmupVote::Decode(absl::string_view text) {
  const std::vector<std::string> fields = absl::StrSplit(text, absl::MaxSplits(';', 3));
  int code = 0;
  WarmupVote vote;
  if (fields.size() != 4 || !absl::SimpleAtoi(fields[0], &code) || code < 0 || code > 16 ||
      !absl::SimpleAtoi(fields[1], &vote.wanted_bytes) ||
      !absl::SimpleAtoi(fields[2], &vote.free_bytes)) {
    return absl::InvalidArgumentError("not a vote");
  }
  vote.status = absl::Status(static_cast<absl::StatusCode>(code), fields[3]);
  return vote;
}

namespace {

std::string Describe(GlobalRank rank, const WarmupVote& vote) {
  if (vote.status.code() != absl::StatusCode::kResourceExhausted) {
    return absl::StrCat("rank ", rank.value(), ": ", vote.status.message());
  }
  return absl::StrCat("rank ", rank.value(), " wanted ", ByteSizeString(vote.wanted_bytes),
                      " for workspaces, ", ByteSizeString(vote.free_bytes), " free (",
                      vote.status.message(), ")");
}

}  // namespace

absl::Status CountVotes(const Group& group, const std::vector<std::string>& votes) {
  absl::StatusCode code = absl::StatusCode::kOk;
  ErrorDetail detail;
  std::vector<std::string> failed, released;
  for (int i = 0; i < group.size(); ++i) {
    const GlobalRank rank = group.ToGlobal(GroupRank(i));
    MUSTER_ASSIGN_OR_RETURN(const WarmupVote vote, WarmupVote::Decode(votes[i]));
    if (vote.status.ok()) {
      released.push_back(absl::StrCat(rank.value()));
      continue;
    }
    if (code == absl::StatusCode::kOk) code = vote.status.code();
    detail.ranks.push_back(rank);
    failed.push_back(Describe(rank, vote));
  }
  if (failed.empty()) return absl::OkStatus();
  detail.reason = code == absl::StatusCode::kResourceExhausted ? ErrorReason::kOutOfMemory
                                                               : ErrorReason::kRankFailed;
  std::string message = absl::StrJoin(failed, "; ");
  if (!released.empty()) {
    absl::StrAppend(&message, "; ranks ", absl::StrJoin(released, ", "), " succeeded and let go");
  }
  return MakeError(code, message, detail);
}

}  // namespace muster
