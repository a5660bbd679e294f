#include "tests/support/local_replica.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/status_macros.h"

namespace muster::testing {

Topology MakeTopology(const ParallelConfig& config, Epoch epoch, ReplicaIndex replica,
                      int first_worker) {
  Topology topology{.replica = replica, .epoch = epoch, .term = Term(1), .config = config};
  for (int rank = 0; rank < config.world_size(); ++rank) {
    const int worker = first_worker + rank;
    topology.ranks.push_back({.rank = GlobalRank(rank),
                              .worker_id = absl::StrCat("w", worker),
                              .incarnation = Incarnation(static_cast<uint64_t>(worker) + 1),
                              .address = absl::StrCat("127.0.0.1:", 7000 + worker)});
  }
  topology.groups = DeriveGroups(config, epoch);
  return topology;
}

absl::Status OnAllRanks(int world, const std::function<absl::Status(int rank)>& rank) {
  std::vector<absl::Status> statuses(world);
  std::vector<std::thread> threads;
  threads.reserve(world);
  for (int i = 0; i < world; ++i) {
    threads.emplace_back([&, i] { statuses[i] = rank(i); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) MUSTER_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::StatusOr<ForwardResult> ForwardAndWait(Engine& engine, ForwardBatch batch) {
  absl::StatusOr<ForwardResult> result;
  absl::Notification done;
  engine.Forward(std::move(batch), {.done = [&](const ForwardAnswer& it) {
                   result = it.ok() ? absl::StatusOr<ForwardResult>(**it) : it.status();
                   done.Notify();
                 }});
  done.WaitForNotification();
  return result;
}

absl::StatusOr<std::vector<TokenLogprob>> Write(Engine& engine, const std::vector<int>& prompt,
                                                int count, const Writing& writing) {
  std::vector<uint32_t> pending(prompt.begin(), prompt.end());
  std::vector<TokenLogprob> written;
  for (uint32_t position = 0; static_cast<int>(written.size()) < count;) {
    const auto size = std::min<int64_t>(static_cast<int64_t>(pending.size()), writing.chunk);
    SequenceSlice slice{.sequence_id = writing.sequence,
                        .token_ids = {pending.begin(), pending.begin() + size},
                        .first_position = position,
                        .sample = size == static_cast<int64_t>(pending.size()),
                        .sampling = writing.sampling};
    pending.erase(pending.begin(), pending.begin() + size);
    position += static_cast<uint32_t>(size);
    MUSTER_ASSIGN_OR_RETURN(ForwardResult result,
                            ForwardAndWait(engine, {.client_id = "test", .slices = {slice}}));
    if (!slice.sample) continue;
    written.push_back(result.outputs.at(0).sampled.value());
    pending = {static_cast<uint32_t>(written.back().token)};
  }
  engine.Free({.client_id = "test", .sequence_ids = {writing.sequence}},
              [](const absl::StatusOr<int>&) {});
  return written;
}

std::vector<int> TokensOf(const std::vector<TokenLogprob>& written) {
  std::vector<int> tokens;
  tokens.reserve(written.size());
  for (const TokenLogprob& token : written) tokens.push_back(token.token);
  return tokens;
}

absl::StatusOr<std::unique_ptr<LocalReplica>> LocalReplica::Form(const ModelSource& model,
                                                                 const Options& options) {
  auto replica = absl::WrapUnique(new LocalReplica());
  const int world = options.config.world_size();
  const Topology topology =
      MakeTopology(options.config, options.epoch, options.replica, options.first_device);
  replica->contexts_.resize(world);
  for (int rank = 0; rank < world; ++rank) {
    replica->backends_.push_back(std::make_unique<CpuEngineBackend>(
        CpuDeviceOptions{.ordinal = DeviceOrdinal(options.first_device + rank)},
        ShmBackend::Options{}));
  }
  MUSTER_RETURN_IF_ERROR(OnAllRanks(world, [&](int rank) -> absl::Status {
    std::unique_ptr<EpochContext>& context = replica->contexts_[rank];
    MUSTER_ASSIGN_OR_RETURN(
        context,
        EpochContext::Create(options.context, {.topology = topology,
                                               .rank = GlobalRank(rank),
                                               .model = model,
                                               .backend = *replica->backends_[rank],
                                               .rendezvous = std::make_unique<LocalRendezvous>(
                                                   replica->board_, options.epoch)}));
    MUSTER_RETURN_IF_ERROR(context->Load());
    MUSTER_RETURN_IF_ERROR(context->Warmup(absl::Seconds(60)));
    MUSTER_RETURN_IF_ERROR(context->Capture(absl::Seconds(60)).status());
    return context->Activate();
  }));
  return replica;
}

}  // namespace muster::testing
