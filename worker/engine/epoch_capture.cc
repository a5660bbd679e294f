// EpochContext from WARM to AGREED.
#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "worker/cache/kv_arena.h"
#include "worker/collective/warmup_vote.h"
#include "worker/device/byte_size.h"
#include "worker/engine/epoch_context.h"

namespace muster {
namespace {

std::string DigestOf(const Topology& topology) {
  Digest digest;
  for (const int64_t value :
       {int64_t{topology.replica.value()}, static_cast<int64_t>(topology.epoch.value()),
        int64_t{topology.config.tp}, int64_t{topology.config.cp}, int64_t{topology.config.pp}}) {
    digest.Add(static_cast<uint64_t>(value));
  }
  for (const RankPlacement& rank : topology.ranks) {
    digest.Add(rank.worker_id);
    digest.Add(rank.incarnation.value());
  }
  return DigestString(digest.value());
}

std::string DigestOf(const std::vector<GroupSpec>& groups) {
  Digest digest;
  for (const GroupSpec& group : groups) digest.Add(group.id.value());
  return DigestString(digest.value());
}

std::string DigestOf(const std::vector<CollectiveUse>& uses) {
  Digest digest;
  for (const CollectiveUse& use : uses) {
    digest.Add(static_cast<uint64_t>(use.group));
    digest.Add(use.row_bytes);
    digest.Add(static_cast<uint64_t>(use.max_rows));
  }
  return DigestString(digest.value());
}

std::string DigestOf(const StepLimits& limits) {
  return absl::StrCat(limits.max_rows, "/", limits.max_outputs, "/", limits.max_sequences, "/",
                      limits.max_local_blocks);
}

// The fields ("name=value", joined by newlines) in which rank `other` differs from this one.
std::vector<std::string> Differences(const std::string& ours, const std::string& theirs) {
  const std::vector<std::string> mine = absl::StrSplit(ours, '\n');
  const std::vector<std::string> other = absl::StrSplit(theirs, '\n');
  if (mine.size() != other.size()) return {"the list of fields"};
  std::vector<std::string> names;
  for (size_t i = 0; i < mine.size(); ++i) {
    if (mine[i] != other[i]) names.push_back(mine[i].substr(0, mine[i].find('=')));
  }
  return names;
}

}  // namespace

absl::StatusOr<EpochContext::Captured> EpochContext::Capture(absl::Duration timeout) {
  const absl::Time deadline = Clock::Real().Now() + timeout;
  deadline_ = deadline;
  MUSTER_RETURN_IF_ERROR(RunPhase(WorkerState::kWarm, WorkerState::kAgreed, [&]() -> absl::Status {
    EnterPhase("capture/graphs");
    if (const absl::Status made = CaptureGraphs(); !made.ok()) return FailOthers(made);
    EnterPhase("capture/kv");
    MUSTER_RETURN_IF_ERROR(SizeKv(deadline));
    MUSTER_RETURN_IF_ERROR(ShareArenas(deadline));
    EnterPhase("capture/agree");
    MUSTER_ASSIGN_OR_RETURN(const std::string digest, Agree(deadline));
    captured_ = {.buckets = options_.buckets,
                 .kv_blocks = kv_->blocks(),
                 .block_tokens = kKvBlockTokens,
                 .block_bytes = kv_->arena()->block_bytes(),
                 .agreement_digest = digest,
                 .copy_rate = leads() ? assignment_.backend.copier().Bandwidth() : 0};
    MakeEngine();
    // The leader of an epoch that follows another starts in TakeOver.
    if (!leads() || !follows()) Start();
    return absl::OkStatus();
  }));
  return captured_;
}

absl::Status EpochContext::BuildModel() {
  Device& device = assignment_.backend.device();
  MUSTER_ASSIGN_OR_RETURN(stream_, device.CreateStream());
  ops_ = assignment_.backend.MakeOps(ledger_);
  MUSTER_ASSIGN_OR_RETURN(kv_,
                          KvCache::Create({.layout = loaded_->kv_layout(),
                                           .max_sequences = options_.limits.max_sequences,
                                           .max_local_blocks = options_.limits.max_local_blocks},
                                          device, ledger_));
  MUSTER_ASSIGN_OR_RETURN(Workspace* const stage, collectives_->workspace(GroupKind::kStage));
  Workspace* cp = nullptr;
  if (shape_.cp_size > 1) {
    MUSTER_ASSIGN_OR_RETURN(cp, collectives_->workspace(GroupKind::kCp));
  }
  MUSTER_ASSIGN_OR_RETURN(
      model_,
      loaded_->BuildModel(
          {.ops = *ops_, .kv = *kv_, .stage = *stage, .cp = cp, .limits = options_.limits}));
  MUSTER_ASSIGN_OR_RETURN(Communicator* const all, collectives_->communicator(GroupKind::kStage));
  MUSTER_ASSIGN_OR_RETURN(
      sampler_,
      Sampler::Create(
          {.max_outputs = options_.limits.max_outputs, .vocabulary = model().spec.vocabulary},
          {.stage = *all, .ops = *ops_, .device = device, .ledger = ledger_}));
  return absl::OkStatus();
}

absl::Status EpochContext::CaptureGraphs() {
  MUSTER_RETURN_IF_ERROR(BuildModel());
  runner_ = std::make_unique<StepRunner>(
      StepRunner::Options{.limits = options_.limits,
                          .cp_rank = shape_.cp_rank,
                          .cp = shape_.cp_size,
                          .buckets = options_.buckets,
                          .exclusively = [this](auto work) { return Exclusively(work); }},
      StepRunner::Parts{.device = assignment_.backend.device(),
                        .stream = *stream_,
                        .model = *model_,
                        .kv = *kv_,
                        .sampler = *sampler_,
                        .ledger = ledger_,
                        .tally = collectives_->tally(),
                        .counters = *options_.counters,
                        .collectives = assignment_.backend.collectives(),
                        .spans = spans_});
  return runner_->Capture([this](int done, int total) {
    SetProgress({.phase = "capture/graphs",
                 .done = static_cast<uint64_t>(done),
                 .total = static_cast<uint64_t>(total),
                 .unit = "graphs"});
  });
}

// What an epoch that follows this one loads, which is nothing where it has the same size, and what
// it makes beside weights and KV: about as much as this one has made.
uint64_t EpochContext::ReserveBytes() const {
  uint64_t bytes = options_.reserve_bytes;
  for (const LedgerEntry& entry : ledger_.Entries()) {
    if (entry.tag != "weights") bytes += entry.bytes;
  }
  return bytes;
}

absl::StatusOr<int64_t> EpochContext::AffordableBlocks() const {
  const auto block = static_cast<uint64_t>(KvBlockBytes(loaded_->kv_layout()));
  // Blocks of a model without layers take no bytes: as many as the tables can name.
  if (block == 0) return int64_t{options_.limits.max_sequences} * options_.limits.max_local_blocks;
  const uint64_t free = assignment_.backend.device().Report().free_bytes;
  // What goes over has its size already; nothing is set aside from it here.
  const uint64_t kept = KeepsKv() ? 0 : ReserveBytes();
  const uint64_t spare = KeepsKv() ? 0 : free / 100 * static_cast<uint64_t>(options_.spare_percent);
  const uint64_t usable = free - spare;
  const uint64_t memory = std::min(options_.kv_memory, usable - std::min(usable, kept));
  const uint64_t blocks =
      std::min<uint64_t>(memory / block, std::numeric_limits<int32_t>::max() / 2);
  if (blocks > 0) return static_cast<int64_t>(blocks);
  return MakeError(absl::StatusCode::kResourceExhausted,
                   absl::StrCat("rank ", rank().value(), ": no room for KV: a block of ",
                                kKvBlockTokens, " tokens takes ", ByteSizeString(block), "; ",
                                ByteSizeString(options_.kv_memory), " are allowed for KV, ",
                                ByteSizeString(free), " are free and ", ByteSizeString(kept),
                                " of them are kept for a resize (--resize-range)"),
                   {.reason = ErrorReason::kOutOfMemory, .ranks = {rank()}, .phase = "capture/kv"});
}

absl::Status EpochContext::AttachArena(int64_t blocks) {
  if (InheritsArena()) return kv_->Attach(former()->estate().arena);
  MUSTER_ASSIGN_OR_RETURN(
      std::shared_ptr<KvArena> arena,
      KvArena::Create(loaded_->kv_layout(), blocks, assignment_.backend.kv_means()));
  if (options_.falsify_seals) arena->FalsifySeals();
  return kv_->Attach(std::move(arena));
}

// All arenas get as many blocks as the smallest can hold. Where KV goes over they have as many as
// before, which the leader knows.
absl::Status EpochContext::SizeKv(absl::Time deadline) {
  const absl::StatusOr<int64_t> affordable =
      InheritsArena() ? former()->estate().arena->blocks() : AffordableBlocks();
  if (!affordable.ok()) return FailOthers(affordable.status());
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                          Gather("capture/kv", absl::StrCat(*affordable), deadline));
  std::vector<int64_t> counts;
  for (const std::string& text : all) {
    int64_t& blocks = counts.emplace_back();
    if (!absl::SimpleAtoi(text, &blocks) || blocks < 1) {
      return FailOthers(absl::DataLossError(absl::StrCat("a peer's KV of '", text, "' blocks")));
    }
  }
  const int64_t blocks = KeepsKv() ? counts[0] : *std::min_element(counts.begin(), counts.end());
  MUSTER_RETURN_IF_ERROR(CheckRoom(counts, blocks));
  const uint64_t reserve = ReserveBytes();
  WarmupVote vote{.status = AttachArena(blocks)};
  vote.wanted_bytes = static_cast<uint64_t>(blocks * KvBlockBytes(loaded_->kv_layout()));
  vote.free_bytes = assignment_.backend.device().Report().free_bytes;
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> votes,
                          Gather("capture/kv-vote", vote.Encode(), deadline));
  MUSTER_RETURN_IF_ERROR(CountVotes(stage(), votes));
  kv_total_ = blocks;
  reserve_ = LedgerCharge(ledger_, "resize reserve", reserve);
  return absl::OkStatus();
}

// All ranks come to the same verdict.
absl::Status EpochContext::CheckRoom(const std::vector<int64_t>& affordable, int64_t wanted) const {
  ErrorDetail detail{.reason = ErrorReason::kOutOfMemory, .epoch = epoch(), .phase = "capture/kv"};
  std::vector<std::string> small;
  for (size_t i = 0; i < affordable.size(); ++i) {
    if (affordable[i] >= wanted) continue;
    detail.ranks.push_back(stage().ToGlobal(GroupRank(static_cast<int>(i))));
    detail.workers.push_back(WorkerAt(detail.ranks.back()));
    small.push_back(absl::StrCat("rank ", detail.ranks.back().value(), " (worker ",
                                 detail.workers.back(), ") has room for ", affordable[i]));
  }
  if (small.empty()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kResourceExhausted,
                   absl::StrCat("the KV that goes over takes ", wanted, " blocks on every rank; ",
                                absl::StrJoin(small, ", ")),
                   detail);
}

absl::StatusOr<std::string> EpochContext::Agree(absl::Time deadline) {
  const std::string ours = absl::StrJoin(
      {absl::StrCat("topology=", DigestOf(topology())),
       absl::StrCat("groups=", DigestOf(topology().groups)),
       absl::StrCat("model=", model().spec.digest), absl::StrCat("dtype=", model().spec.dtype),
       absl::StrCat("limits=", DigestOf(options_.limits)),
       absl::StrCat("buckets=", absl::StrJoin(options_.buckets, ",")),
       absl::StrCat("workspaces=", DigestString(collectives_->layout_digest())),
       absl::StrCat("collectives=", DigestOf(Uses())), absl::StrCat("KV blocks=", kv_->blocks())},
      "\n");
  MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                          Gather("capture/agree", ours, deadline));
  ErrorDetail detail{
      .reason = ErrorReason::kDisagreement, .epoch = epoch(), .phase = "capture/agree"};
  std::vector<std::string> odd;
  for (size_t i = 0; i < all.size(); ++i) {
    const std::vector<std::string> fields = Differences(all[0], all[i]);
    if (fields.empty()) continue;
    const GlobalRank other = stage().ToGlobal(GroupRank(static_cast<int>(i)));
    detail.ranks.push_back(other);
    detail.workers.push_back(WorkerAt(other));
    odd.push_back(absl::StrCat("rank ", other.value(), " (worker ", detail.workers.back(),
                               ") has other ", absl::StrJoin(fields, " and ")));
  }
  if (!odd.empty()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("the ranks disagree: ", absl::StrJoin(odd, "; "), " than rank 0"),
                     detail);
  }
  Digest digest;
  digest.Add(absl::string_view(ours));
  return DigestString(digest.value());
}

void EpochContext::MakeEngine() {
  if (!leads()) return;
  sender_ = std::make_unique<RelaySender>(epoch(), ring_.get());
  if (follows()) return;
  const BatchLimits limits = {.max_rows = options_.limits.max_rows,
                              .max_slices = options_.limits.max_outputs,
                              .vocabulary = model().spec.vocabulary,
                              .max_positions = model().spec.max_positions,
                              .layers = model_->layers(),
                              .hidden = model_->hidden()};
  auto engine =
      std::make_shared<Engine>(Engine::Options{.limits = limits,
                                               .queue = {.epoch = epoch(),
                                                         .client_lease = options_.client_lease,
                                                         .clock = options_.clock},
                                               .counters = options_.counters},
                               std::make_unique<SequenceTable>(SequenceTable::Options{
                                   .limits = limits,
                                   .max_sequences = options_.limits.max_sequences,
                                   .cp = shape_.cp_size,
                                   .blocks_per_rank = kv_->blocks()}));
  absl::MutexLock lock(&mu_);
  engine_ = std::move(engine);
  // An abort that came before could not stop it.
  if (!failure_.ok()) engine_->Stop(failure_);
}

}  // namespace muster
