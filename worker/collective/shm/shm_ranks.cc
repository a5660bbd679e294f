#include "worker/collective/shm/shm_ranks.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/support/status_matchers.h"

namespace muster::testing {
namespace {

Group GroupOf(int rank, int size, int first) {
  GroupSpec spec;
  for (int i = 0; i < size; ++i) spec.ranks.push_back(GlobalRank(first + i));
  spec.id = DigestGroup(Epoch(1), spec.kind, spec.ranks);
  return *Group::Create(spec, GlobalRank(first + rank));
}

}  // namespace

ShmRanks::Rank::Rank(const Group& of, const Options& options)
    : group(of),
      device({.threads = options.threads}),
      backend(device, {.wait_timeout = options.wait_timeout}),
      stream(*device.CreateStream()) {}

ShmRanks::ShmRanks(int size, const Options& options) {
  std::vector<std::string> handles;
  for (int rank = 0; rank < size; ++rank) {
    const Group group = GroupOf(rank, size, options.first_global_rank);
    ranks_.push_back(std::make_unique<Rank>(group, options));
    const WorkspacePlan plan{group.spec().ranks, {group.kind()}, options.slab_bytes, "workspace"};
    auto endpoint = ranks_.back()->backend.Allocate(group, plan, ranks_.back()->ledger);
    EXPECT_OK(endpoint);
    ranks_.back()->endpoint = *std::move(endpoint);
    handles.push_back(ranks_.back()->endpoint->Handle());
  }
  for (auto& rank : ranks_) EXPECT_OK(rank->endpoint->Open(handles));
  for (auto& rank : ranks_) rank->endpoint->StopExporting();
}

std::vector<absl::Status> ShmRanks::Run(const std::function<absl::Status(Rank&)>& body) {
  std::vector<absl::Status> statuses(ranks_.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    threads.emplace_back([&, i] { statuses[i] = body(*ranks_[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  return statuses;
}

}  // namespace muster::testing
