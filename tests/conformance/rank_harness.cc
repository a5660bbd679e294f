#include "tests/conformance/rank_harness.h"

#include <filesystem>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/digest.h"
#include "base/status_macros.h"

namespace muster::testing {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(25);

int OpenDescriptors() {
  namespace fs = std::filesystem;
  return static_cast<int>(
      std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
}

std::string Encode(const Variant& variant) {
  return absl::StrCat(variant.backend, ";", static_cast<int>(variant.as), ";",
                      static_cast<int>(variant.mode));
}

Variant DecodeVariant(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ';');
  return {parts[0], static_cast<RanksAs>(std::stoi(parts[1])),
          static_cast<RunMode>(std::stoi(parts[2]))};
}

}  // namespace

absl::Status RankHarness::Run(RankContext& context, const Case& body) {
  const Variant variant = DecodeVariant(context.args);
  int descriptors = 0;
  {
    RankHarness harness(context, variant);
    MUSTER_RETURN_IF_ERROR(harness.UseBackend({}));
    descriptors = OpenDescriptors();  // a GPU's driver opens its own once, for good
    MUSTER_RETURN_IF_ERROR(body(harness));
    MUSTER_RETURN_IF_ERROR(harness.AgreeOnWitnesses());
    for (const LedgerEntry& entry : harness.ledger_.Entries()) {
      return absl::DataLossError(absl::StrCat(entry.bytes, " bytes of ", entry.tag, " leaked"));
    }
  }
  if (variant.as == RanksAs::kThreads || OpenDescriptors() == descriptors) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(OpenDescriptors() - descriptors, " descriptors leaked"));
}

absl::Status RankHarness::UseBackend(RankOptions options) {
  // No rank is its device's ordinal.
  options.ordinal = DeviceOrdinal(world() - rank());
  options.world = world();
  stream_.reset();
  MUSTER_ASSIGN_OR_RETURN(backend_, FindBackend(variant_.backend)(options));
  MUSTER_ASSIGN_OR_RETURN(stream_, device().CreateStream());
  return absl::OkStatus();
}

Group RankHarness::WorldGroup(Epoch epoch) const {
  std::vector<int> ranks;
  for (int rank = 0; rank < world(); ++rank) ranks.push_back(rank);
  return GroupOf(GroupKind::kStage, ranks, epoch).value();
}

absl::StatusOr<Group> RankHarness::GroupOf(GroupKind kind, const std::vector<int>& ranks,
                                           Epoch epoch) const {
  GroupSpec spec{.kind = kind};
  for (int rank : ranks) spec.ranks.push_back(GlobalRank(rank));
  spec.id = DigestGroup(epoch, kind, spec.ranks);
  return Group::Create(spec, context_.rank);
}

absl::StatusOr<JoinedGroup> RankHarness::Join(const Group& group, uint64_t slab_bytes,
                                              Fusion fusion) {
  const WorkspacePlan plan{.ranks = group.spec().ranks,
                           .kinds = {group.kind()},
                           .slab_bytes = slab_bytes,
                           .tag = "workspace"};
  JoinedGroup joined{.group = group};
  MUSTER_ASSIGN_OR_RETURN(joined.endpoint, collectives().Allocate(group, plan, ledger_));
  MUSTER_ASSIGN_OR_RETURN(
      const std::vector<std::string> handles,
      context_.rendezvous.AllGather(group, "handles", joined.endpoint->Handle(), kPatience));
  MUSTER_RETURN_IF_ERROR(joined.endpoint->Open(handles));
  MUSTER_RETURN_IF_ERROR(context_.rendezvous.AllGather(group, "opened", "", kPatience).status());
  joined.endpoint->StopExporting();
  joined.workspace = joined.endpoint->MakeWorkspace(group, fusion);
  joined.communicator = joined.endpoint->MakeCommunicator(group);
  return joined;
}

absl::StatusOr<JoinedGroup> RankHarness::JoinWorld(uint64_t slab_bytes) {
  return Join(WorldGroup(), slab_bytes);
}

absl::Status RankHarness::Execute(absl::FunctionRef<absl::Status()> enqueue) {
  if (mode() == RunMode::kStream) {
    MUSTER_RETURN_IF_ERROR(enqueue());
    return stream_->Synchronize();
  }
  MUSTER_ASSIGN_OR_RETURN(const std::unique_ptr<Graph> graph, device().Capture(*stream_, enqueue));
  const absl::Status launched = graph->Launch(*stream_);
  const absl::Status ran = stream_->Synchronize();
  return launched.ok() ? ran : launched;
}

absl::StatusOr<Buffer> RankHarness::Allocate(size_t bytes) {
  return device().Allocate(bytes, "operand", ledger_);
}

absl::StatusOr<Buffer> RankHarness::Upload(const Bytes& bytes) {
  MUSTER_ASSIGN_OR_RETURN(Buffer buffer, Allocate(bytes.size()));
  MUSTER_RETURN_IF_ERROR(Upload(bytes, buffer));
  return buffer;
}

absl::Status RankHarness::Upload(const Bytes& bytes, Buffer& to) {
  MUSTER_RETURN_IF_ERROR(device().Copy(*stream_, to.data(), bytes.data(), bytes.size()));
  return stream_->Synchronize();
}

absl::StatusOr<Bytes> RankHarness::Download(const Buffer& from, size_t bytes) {
  Bytes result(bytes);
  MUSTER_RETURN_IF_ERROR(device().Copy(*stream_, result.data(), from.data(), bytes));
  MUSTER_RETURN_IF_ERROR(stream_->Synchronize());
  return result;
}

absl::StatusOr<std::vector<std::string>> RankHarness::Meet(absl::string_view key,
                                                           absl::string_view value) {
  return context_.rendezvous.AllGather(WorldGroup(), key, value, kPatience);
}

void RankHarness::Witness(absl::string_view what, const Bytes& bytes) {
  Digest digest;
  digest.Add(absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  witnesses_.push_back(absl::StrCat(what, " = ", DigestString(digest.value())));
}

absl::Status RankHarness::AgreeOnWitnesses() {
  if (witnesses_.empty()) return absl::OkStatus();
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                          Meet("witnesses", absl::StrJoin(witnesses_, "\n")));
  for (size_t peer = 0; peer < all.size(); ++peer) {
    const std::vector<std::string> theirs = absl::StrSplit(all[peer], '\n');
    for (size_t i = 0; i < std::min(theirs.size(), witnesses_.size()); ++i) {
      if (theirs[i] == witnesses_[i]) continue;
      return absl::DataLossError(absl::StrCat("rank ", rank(), " has ", witnesses_[i], ", rank ",
                                              peer, " has ", theirs[i]));
    }
  }
  witnesses_.clear();
  return absl::OkStatus();
}

std::vector<RankResult> RanksConformance::Run(int world, absl::string_view case_name) {
  return RunRanks(world, case_name, {.as = GetParam().as, .args = Encode(GetParam())});
}

void RanksConformance::RunCase(absl::string_view case_name, const std::vector<int>& worlds) {
  for (int world : worlds) {
    if (world > MostRanksOf(GetParam().backend)) continue;
    SCOPED_TRACE(absl::StrCat(world, " ranks"));
    const int descriptors = OpenDescriptors();
    const std::vector<RankResult> results = Run(world, case_name);
    ASSERT_TRUE(AllOk(results).ok()) << AllOk(results);
    EXPECT_EQ(OpenDescriptors(), descriptors) << "descriptors leaked";
  }
}

}  // namespace muster::testing
