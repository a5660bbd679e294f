#include "tests/support/remote_rendezvous.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace muster::testing {
namespace {

// Where a message of a rank has what:
//   gather, epoch, group (3 fields), key, value, timeout in ns, id
//   fail, epoch, group (3 fields), status
//   cancel, epoch, status
// and the answer to the first: gathered, id, status, value...
enum Field { kVerb, kEpoch, kGroupId, kGroupKind, kGroupRanks, kKey, kValue, kTimeout, kId };
constexpr int kFailStatus = kKey, kCancelStatus = kGroupId;
constexpr int kAnswerId = 1, kAnswerStatus = 2, kAnswerValues = 3;

RankMessage MessageAbout(absl::string_view verb, Epoch epoch, const Group& group) {
  return {std::string(verb), absl::StrCat(epoch.value()), absl::StrCat(group.id().value()),
          absl::StrCat(static_cast<int>(group.kind())),
          absl::StrJoin(group.spec().ranks, ",", [](std::string* out, GlobalRank rank) {
            absl::StrAppend(out, rank.value());
          })};
}

template <typename Int>
Int ParseInt(absl::string_view text) {
  Int value = 0;
  if (!absl::SimpleAtoi(text, &value)) std::abort();
  return value;
}

Group GroupOf(const RankMessage& message, GlobalRank self) {
  GroupSpec spec{.id = GroupId(ParseInt<uint64_t>(message[kGroupId])),
                 .kind = static_cast<GroupKind>(ParseInt<int>(message[kGroupKind]))};
  for (absl::string_view rank : absl::StrSplit(message[kGroupRanks], ',')) {
    spec.ranks.push_back(GlobalRank(ParseInt<int>(rank)));
  }
  return Group::Create(spec, self).value();
}

}  // namespace

// One epoch of a client. A wait in the other process cannot be taken back, so Cancel asks for it.
class RemoteRendezvous final : public Rendezvous {
 public:
  RemoteRendezvous(RendezvousClient& client, Epoch epoch) : client_(client), epoch_(epoch) {}

  absl::StatusOr<std::vector<std::string>> AllGather(const Group& group, absl::string_view key,
                                                     absl::string_view value,
                                                     absl::Duration timeout) override {
    return client_.Gather(epoch_, group, key, value, timeout);
  }
  void Fail(const Group& group, const absl::Status& reason) override {
    RankMessage message = MessageAbout("fail", epoch_, group);
    message.push_back(EncodeStatus(reason));
    client_.channel_.Send(message);
  }
  void Cancel(const absl::Status& reason) override {
    client_.channel_.Send({"cancel", absl::StrCat(epoch_.value()), EncodeStatus(reason)});
  }

 private:
  RendezvousClient& client_;
  const Epoch epoch_;
};

RendezvousClient::RendezvousClient(RankChannel& channel) : channel_(channel) {
  receiver_ = std::thread([this] { Receive(); });
}

RendezvousClient::~RendezvousClient() {
  channel_.Shutdown();
  receiver_.join();
}

std::unique_ptr<Rendezvous> RendezvousClient::Make(Epoch epoch) {
  return std::make_unique<RemoteRendezvous>(*this, epoch);
}

absl::StatusOr<std::vector<std::string>> RendezvousClient::Gather(Epoch epoch, const Group& group,
                                                                  absl::string_view key,
                                                                  absl::string_view value,
                                                                  absl::Duration timeout) {
  RankMessage message = MessageAbout("gather", epoch, group);
  const std::string id = NextId();
  message.insert(message.end(), {std::string(key), std::string(value),
                                 absl::StrCat(absl::ToInt64Nanoseconds(timeout)), id});
  channel_.Send(message);
  const RankMessage answer = Await(id);
  if (answer.empty()) return absl::UnavailableError("the rendezvous is gone");
  const absl::Status status = DecodeStatus(answer[kAnswerStatus]);
  if (!status.ok()) return status;
  return std::vector<std::string>(answer.begin() + kAnswerValues, answer.end());
}

std::string RendezvousClient::NextId() {
  absl::MutexLock lock(&mu_);
  return absl::StrCat(++last_id_);
}

RankMessage RendezvousClient::Await(const std::string& id) {
  const auto answered = [&] {
    mu_.AssertHeld();
    return gone_ || answers_.count(id) != 0;
  };
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&answered));
  RankMessage answer = std::move(answers_[id]);
  answers_.erase(id);
  return answer;
}

void RendezvousClient::Receive() {
  while (std::optional<RankMessage> message = channel_.Receive()) {
    absl::MutexLock lock(&mu_);
    std::string id = (*message)[kAnswerId];
    answers_[std::move(id)] = *std::move(message);
  }
  absl::MutexLock lock(&mu_);
  gone_ = true;
}

RendezvousServer::~RendezvousServer() {
  for (auto& [epoch, rendezvous] : rendezvous_) {
    rendezvous->Cancel(absl::CancelledError("the rank is gone"));
  }
  for (std::thread& gather : gathers_) gather.join();
}

void RendezvousServer::Handle(const RankMessage& message) {
  LocalRendezvous& rendezvous = RendezvousOf(message[kEpoch]);
  if (message[kVerb] == "gather") {
    gathers_.emplace_back([this, message, &rendezvous] { Answer(message, rendezvous); });
  } else if (message[kVerb] == "fail") {
    rendezvous.Fail(GroupOf(message, rank_), DecodeStatus(message[kFailStatus]));
  } else {
    rendezvous.Cancel(DecodeStatus(message[kCancelStatus]));
  }
}

void RendezvousServer::Answer(const RankMessage& gather, LocalRendezvous& rendezvous) {
  const absl::StatusOr<std::vector<std::string>> values =
      rendezvous.AllGather(GroupOf(gather, rank_), gather[kKey], gather[kValue],
                           absl::Nanoseconds(ParseInt<int64_t>(gather[kTimeout])));
  RankMessage answer = {"gathered", gather[kId], EncodeStatus(values.status())};
  if (values.ok()) answer.insert(answer.end(), values->begin(), values->end());
  channel_.Send(answer);
}

LocalRendezvous& RendezvousServer::RendezvousOf(const std::string& epoch) {
  std::unique_ptr<LocalRendezvous>& rendezvous = rendezvous_[epoch];
  if (rendezvous == nullptr) {
    rendezvous = std::make_unique<LocalRendezvous>(board_, Epoch(ParseInt<uint64_t>(epoch)));
  }
  return *rendezvous;
}

}  // namespace muster::testing
