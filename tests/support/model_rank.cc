#include "tests/support/model_rank.h"

#include <algorithm>

#include "absl/memory/memory.h"
#include "base/status_macros.h"
#include "worker/engine/cpu_engine_backend.h"
#include "worker/model/registry.h"

namespace muster {

absl::StatusOr<std::unique_ptr<ModelRank>> ModelRank::Create(const Options& options,
                                                             Rendezvous& rendezvous) {
  auto rank = absl::WrapUnique(new ModelRank(options));
  MUSTER_RETURN_IF_ERROR(rank->MakeBackend());
  MUSTER_RETURN_IF_ERROR(rank->Load());
  MUSTER_RETURN_IF_ERROR(rank->Warmup(rendezvous));
  MUSTER_RETURN_IF_ERROR(rank->Build());
  return rank;
}

absl::Status ModelRank::MakeBackend() {
  if (options_.make_backend == nullptr) {
    backend_ = std::make_unique<CpuEngineBackend>(CpuDeviceOptions{.threads = options_.threads},
                                                  ShmBackend::Options{});
    return absl::OkStatus();
  }
  MUSTER_ASSIGN_OR_RETURN(backend_, options_.make_backend());
  return absl::OkStatus();
}

absl::Status ModelRank::Load() {
  MUSTER_ASSIGN_OR_RETURN(source_, ModelSource::Open(options_.directory, options_.dtype));
  MUSTER_ASSIGN_OR_RETURN(shape_, RankShape::Create(spec(), options_.config, options_.rank));
  MUSTER_ASSIGN_OR_RETURN(loaded_, LoadModel({.config = source_->config,
                                              .checkpoint = *source_->checkpoint,
                                              .shape = shape_,
                                              .dtype = source_->dtype,
                                              .device = device(),
                                              .ledger = ledger_}));
  return absl::OkStatus();
}

absl::Status ModelRank::Warmup(Rendezvous& rendezvous) {
  std::vector<Group> groups;
  for (const GroupSpec& spec : DeriveGroups(options_.config, Epoch(1))) {
    if (std::count(spec.ranks.begin(), spec.ranks.end(), options_.rank) == 0) continue;
    MUSTER_ASSIGN_OR_RETURN(const Group group, Group::Create(spec, options_.rank));
    groups.push_back(group);
  }
  CollectiveSet::Options set_options;
  set_options.fusion = options_.fusion;
  collectives_ = std::make_unique<CollectiveSet>(groups, backend_->collectives(), device(),
                                                 rendezvous, ledger_, set_options);
  return collectives_->Warmup(loaded_->collectives(options_.limits), absl::Seconds(60));
}

absl::Status ModelRank::Build() {
  MUSTER_ASSIGN_OR_RETURN(stream_, device().CreateStream());
  ops_ = backend_->MakeOps(ledger_);
  MUSTER_ASSIGN_OR_RETURN(kv_,
                          KvCache::Create({.layout = loaded_->kv_layout(),
                                           .max_sequences = options_.limits.max_sequences,
                                           .max_local_blocks = options_.limits.max_local_blocks},
                                          device(), ledger_));
  MUSTER_ASSIGN_OR_RETURN(Workspace* const stage, collectives_->workspace(GroupKind::kStage));
  Workspace* cp = nullptr;
  if (shape_.cp_size > 1) {
    MUSTER_ASSIGN_OR_RETURN(cp, collectives_->workspace(GroupKind::kCp));
  }
  MUSTER_ASSIGN_OR_RETURN(
      model_,
      loaded_->BuildModel(
          {.ops = *ops_, .kv = *kv_, .stage = *stage, .cp = cp, .limits = options_.limits}));
  blocks_.resize(options_.limits.max_sequences);
  MUSTER_ASSIGN_OR_RETURN(
      std::shared_ptr<KvArena> arena,
      KvArena::Create(loaded_->kv_layout(), options_.kv_blocks, backend_->kv_means()));
  return kv_->Attach(std::move(arena));
}

absl::Status ModelRank::Grow(const TokenSlice& slice) {
  const int64_t end = slice.position + static_cast<int64_t>(slice.tokens.size());
  const KvGrowth growth = {.from = slice.position, .to = end};
  MUSTER_ASSIGN_OR_RETURN(const auto granted, allocator_.Allocate({growth}));
  for (const BlockGrant& grant : granted.front()) {
    blocks_[slice.sequence].push_back(grant);
    if (grant.logical % shape_.cp_size != shape_.cp_rank) continue;
    MUSTER_RETURN_IF_ERROR(kv_->SetBlock(
        slice.sequence, static_cast<int>(grant.logical / shape_.cp_size), grant.local));
  }
  return absl::OkStatus();
}

absl::Status ModelRank::Stage(const std::vector<TokenSlice>& slices, int rows) {
  const StepBuffers& buffers = model_->buffers();
  rows_ = 0;
  outputs_ = 0;
  for (const TokenSlice& slice : slices) {
    MUSTER_RETURN_IF_ERROR(Grow(slice));
    for (size_t i = 0; i < slice.tokens.size(); ++i, ++rows_) {
      buffers.token_ids[rows_] = slice.tokens[i];
      buffers.positions[rows_] = slice.position + static_cast<int>(i);
      buffers.row_sequences[rows_] = slice.sequence;
    }
    buffers.output_rows[outputs_++] = rows_ - 1;
  }
  for (; rows_ < rows; ++rows_) {
    buffers.token_ids[rows_] = -1;
    buffers.positions[rows_] = 0;
    buffers.row_sequences[rows_] = -1;
  }
  return kv_->Flush(*stream_);
}

absl::StatusOr<std::vector<std::vector<float>>> ModelRank::Run() {
  MUSTER_RETURN_IF_ERROR(model_->Forward(*stream_, model_->Whole(rows_, outputs_)));
  MUSTER_RETURN_IF_ERROR(stream_->Synchronize());
  const size_t width = static_cast<size_t>(shape_.vocabulary.size());
  std::vector<std::vector<float>> logits(outputs_, std::vector<float>(width));
  for (int i = 0; i < outputs_; ++i) {
    MUSTER_RETURN_IF_ERROR(device().Copy(
        *stream_, logits[i].data(), model_->buffers().logits + i * width, width * sizeof(float)));
  }
  MUSTER_RETURN_IF_ERROR(stream_->Synchronize());
  return logits;
}

absl::StatusOr<std::vector<std::vector<float>>> ModelRank::Forward(
    const std::vector<TokenSlice>& slices) {
  MUSTER_RETURN_IF_ERROR(Stage(slices, 0));
  return Run();
}

absl::Status ModelRank::FreeSequence(int sequence) {
  MUSTER_RETURN_IF_ERROR(allocator_.Free(blocks_[sequence]));
  blocks_[sequence].clear();
  return kv_->ClearSequence(sequence);
}

}  // namespace muster
