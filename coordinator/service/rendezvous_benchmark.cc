// How long an all-gather of many ranks takes over gRPC: a server, a channel per rank, and calls
// that all start at once. Prints the distribution of rounds, from the first call to the last
// answer; ends with 1 when a value is wrong or the median is over its budget.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/wire_topology.h"
#include "coordinator/rendezvous.h"
#include "coordinator/service/rendezvous_service.h"
#include "proto/muster/v1/rendezvous.grpc.pb.h"

namespace muster {
namespace {

constexpr int kRanks = 128;
constexpr int kValueBytes = 64;
constexpr int kWarmupRounds = 10;
constexpr int kRounds = 500;
constexpr absl::Duration kBudget = absl::Milliseconds(50);

Topology MakeTopology() {
  const ParallelConfig config{.tp = kRanks};
  Topology topology{.epoch = Epoch(1),
                    .term = Term(1),
                    .config = config,
                    .groups = DeriveGroups(config, Epoch(1))};
  for (int i = 0; i < kRanks; ++i) {
    topology.ranks.push_back({.rank = GlobalRank(i),
                              .worker_id = absl::StrCat("w", i),
                              .incarnation = Incarnation(static_cast<uint64_t>(i) + 1)});
  }
  return topology;
}

std::string ValueOf(int rank, int round) {
  return absl::StrFormat("%-*s", kValueBytes, absl::StrCat("rank ", rank, " round ", round));
}

// One rank, with a connection of its own.
class SimulatedRank {
 public:
  SimulatedRank(int port, const Topology& topology, int rank) : rank_(rank) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1::Rendezvous::NewStub(grpc::CreateCustomChannel(
        absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials(), arguments));
    request_.mutable_scope()->set_epoch(topology.epoch.value());
    request_.mutable_scope()->set_group_id(DigestString(topology.groups[0].id.value()));
    request_.set_group_rank(static_cast<uint32_t>(rank));
    request_.set_incarnation(static_cast<uint64_t>(rank) + 1);
    *request_.mutable_timeout() = ToWire(absl::Minutes(1));
  }

  void Start(int round, absl::BlockingCounter* answered) {
    context_ = std::make_unique<grpc::ClientContext>();
    request_.set_key(absl::StrCat("round ", round));
    request_.set_value(ValueOf(rank_, round));
    stub_->async()->AllGather(context_.get(), &request_, &response_,
                              [this, answered](const grpc::Status& status) {
                                ok_ = status.ok();
                                answered->DecrementCount();
                              });
  }

  // After the answer.
  bool GotAllValuesOf(int round) const {
    if (!ok_ || response_.values_size() != kRanks) return false;
    for (int rank = 0; rank < kRanks; ++rank) {
      if (response_.values(rank) != ValueOf(rank, round)) return false;
    }
    return true;
  }

 private:
  const int rank_;
  std::unique_ptr<v1::Rendezvous::Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  v1::AllGatherRequest request_;
  v1::AllGatherResponse response_;
  bool ok_ = false;
};

using Ranks = std::vector<std::unique_ptr<SimulatedRank>>;

absl::Duration RunRound(const Ranks& ranks, int round) {
  absl::BlockingCounter answered(kRanks);
  const absl::Time start = absl::Now();
  for (const auto& rank : ranks) rank->Start(round, &answered);
  answered.Wait();
  return absl::Now() - start;
}

// Empty when a value was wrong.
std::vector<absl::Duration> RunRounds(const Ranks& ranks) {
  std::vector<absl::Duration> times;
  for (int round = 0; round < kWarmupRounds + kRounds; ++round) {
    const absl::Duration time = RunRound(ranks, round);
    for (const auto& rank : ranks) {
      if (!rank->GotAllValuesOf(round)) return {};
    }
    if (round >= kWarmupRounds) times.push_back(time);
  }
  std::sort(times.begin(), times.end());
  return times;
}

int Main() {
  RendezvousBoard board(Clock::Real(), [](const std::string&) { return WorkerNote(); });
  const Topology topology = MakeTopology();
  board.BeginEpoch(topology);
  RendezvousService service(board);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  Ranks ranks;
  for (int i = 0; i < kRanks; ++i) {
    ranks.push_back(std::make_unique<SimulatedRank>(port, topology, i));
  }
  const std::vector<absl::Duration> times = RunRounds(ranks);
  if (times.empty()) {
    std::fprintf(stderr, "an all-gather gave wrong values\n");
    return 1;
  }
  const auto at = [&](double part) {
    return absl::ToDoubleMilliseconds(times[static_cast<size_t>(part * (kRounds - 1))]);
  };
  absl::PrintF("ranks  bytes  rounds  p50 ms  p95 ms  max ms  budget (p50) ms\n");
  absl::PrintF("%5d  %5d  %6d  %6.1f  %6.1f  %6.1f  %15.1f\n", kRanks, kValueBytes, kRounds,
               at(0.5), at(0.95), at(1), absl::ToDoubleMilliseconds(kBudget));
  return at(0.5) <= absl::ToDoubleMilliseconds(kBudget) ? 0 : 1;
}

}  // namespace
}  // namespace muster

int main() { return muster::Main(); }
