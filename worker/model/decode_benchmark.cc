// Decoding, one sequence, against what reading its bytes takes.
//   decode_benchmark [model directory, default: random weights of SmolLM2-135M's shape]
//                    [tokens of context, default 64] [rounds, default 40]
// First 1 rank x 2 threads and 2 ranks x 1 thread (cp=2, threads of this process) must agree on the
// logits; then each round reads the bytes plainly, and decodes a token with each, in turn, so that
// all three meet the same machine. Medians of the rounds.

#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/benchmark_timer.h"
#include "kernels/streaming_read.h"
#include "tests/support/local_rendezvous.h"
#include "tests/support/model_rank.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/model/checkpoint_writer.h"

namespace muster {
namespace {

using Clock = std::chrono::steady_clock;

struct Settings {
  std::string directory;
  int context = 64;
  int rounds = 40;
};

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// The ranks of one topology, each with its thread: the first is the caller's.
class Fleet {
 public:
  Fleet(const Settings& settings, int cp, int threads) {
    for (int rank = 0; rank < cp; ++rank) {
      ModelRank::Options options = {.directory = settings.directory};
      options.config.cp = cp;
      options.rank = GlobalRank(rank);
      options.threads = threads;
      options.kv_blocks = KvBlocksFor(settings.context + settings.rounds + 2) + 1;
      options.limits.max_local_blocks = static_cast<int>(options.kv_blocks);
      options_.push_back(options);
    }
    ranks_.resize(cp);
    graphs_.resize(cp);
    statuses_.resize(cp);
    for (int rank = 1; rank < cp; ++rank) followers_.emplace_back([this, rank] { Follow(rank); });
  }
  ~Fleet() {
    Together([](int) { return absl::CancelledError(); }).IgnoreError();
    for (std::thread& follower : followers_) follower.join();
  }

  absl::Status Create() {
    return Together([this](int rank) -> absl::Status {
      testing::LocalRendezvous rendezvous(board_, Epoch(1));
      MUSTER_ASSIGN_OR_RETURN(ranks_[rank], ModelRank::Create(options_[rank], rendezvous));
      return absl::OkStatus();
    });
  }

  // Logits after `tokens` at `position`: of all ranks, one after the other.
  absl::StatusOr<std::vector<float>> Prefill(const std::vector<int>& tokens) {
    std::vector<std::vector<float>> parts(ranks_.size());
    MUSTER_RETURN_IF_ERROR(Together([&](int rank) -> absl::Status {
      MUSTER_ASSIGN_OR_RETURN(const auto logits, ranks_[rank]->Forward({{0, tokens, 0}}));
      parts[rank] = logits.front();
      return absl::OkStatus();
    }));
    std::vector<float> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }

  // One row through a graph, as an engine decodes; seconds on rank 0.
  absl::StatusOr<double> Decode(int token, int position) {
    double seconds = 0;
    MUSTER_RETURN_IF_ERROR(Together([&](int rank) -> absl::Status {
      ModelRank& model = *ranks_[rank];
      MUSTER_RETURN_IF_ERROR(model.Stage({{0, {token}, position}}, 1));
      if (graphs_[rank] == nullptr) {
        MUSTER_ASSIGN_OR_RETURN(graphs_[rank], model.device().Capture(model.stream(), [&] {
          return model.model().Forward(model.stream(), model.model().Whole(1, 1));
        }));
      }
      const Clock::time_point start = Clock::now();
      MUSTER_RETURN_IF_ERROR(graphs_[rank]->Launch(model.stream()));
      MUSTER_RETURN_IF_ERROR(model.stream().Synchronize());
      if (rank == 0) seconds = SecondsSince(start);
      return absl::OkStatus();
    }));
    return seconds;
  }

  ModelRank& rank(int index) { return *ranks_[index]; }

 private:
  using Work = std::function<absl::Status(int rank)>;

  // Runs `work` on every rank at once. CANCELLED ends the followers.
  absl::Status Together(Work work) {
    work_ = std::move(work);
    done_ = 0;
    round_.fetch_add(1);
    statuses_[0] = work_(0);
    while (done_.load() != static_cast<int>(followers_.size())) std::this_thread::yield();
    for (const absl::Status& status : statuses_) MUSTER_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }

  void Follow(int rank) {
    for (int seen = 0; !absl::IsCancelled(statuses_[rank]); ++seen) {
      while (round_.load() == seen) std::this_thread::sleep_for(std::chrono::microseconds(20));
      statuses_[rank] = work_(rank);
      done_.fetch_add(1);
    }
  }

  testing::LocalRendezvousBoard board_;
  std::vector<ModelRank::Options> options_;
  std::vector<std::unique_ptr<ModelRank>> ranks_;
  std::vector<std::unique_ptr<Graph>> graphs_;
  std::vector<absl::Status> statuses_;
  Work work_;
  std::atomic<int> round_{0};
  std::atomic<int> done_{0};
  std::vector<std::thread> followers_;
};

// Two threads read as many bytes as a step must, from a buffer that a device made.
class PlainRead {
 public:
  absl::Status Create(uint64_t bytes) {
    MUSTER_ASSIGN_OR_RETURN(buffer_, device_.Allocate(bytes / 512 * 512, "weights", ledger_));
    return absl::OkStatus();
  }
  double Seconds() {
    const Clock::time_point start = Clock::now();
    const size_t half = buffer_.size() / 2;
    device_.pool().Run(
        2, [&](int part) { StreamingReadCpu(buffer_.as<std::byte>() + part * half, half); });
    return SecondsSince(start);
  }

 private:
  Ledger ledger_;
  CpuDevice device_{{.threads = 2}};
  Buffer buffer_;
};

absl::StatusOr<std::string> RandomModel() {
  const ModelConfig config = {.layers = 30,
                              .hidden = 576,
                              .heads = 9,
                              .kv_heads = 3,
                              .head_dim = 64,
                              .ffn = 1536,
                              .vocabulary = 49152,
                              .max_positions = 8192,
                              .rms_norm_eps = 1e-5,
                              .tied_embeddings = true};
  std::string path = std::filesystem::temp_directory_path() / "decode_benchmark.XXXXXX";
  if (mkdtemp(path.data()) == nullptr) return absl::UnavailableError("no temporary directory");
  const DType dtype = DType::kBFloat16;
  MUSTER_RETURN_IF_ERROR(WriteFile(path + "/config.json", LlamaConfigJson(config, dtype)));
  MUSTER_RETURN_IF_ERROR(
      WriteFile(path + "/model.safetensors", SafetensorsBytes(RandomLlama(config, dtype, 1))));
  return path;
}

absl::Status CheckAlike(const std::vector<float>& a, const std::vector<float>& b) {
  double norm = 0;
  double difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    norm += double{a[i]} * a[i];
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  }
  const double relative = std::sqrt(difference / norm);
  std::printf("verified: logits of the two topologies differ by %.4f of their norm\n", relative);
  // Rounding of bfloat16 operands falls differently where sums are cut differently.
  if (relative < 0.05) return absl::OkStatus();
  return absl::InternalError("the topologies disagree");
}

struct Timings {
  std::vector<double> read, one_rank, two_ranks;
};

void Print(const Settings& settings, uint64_t bytes, const Timings& timings) {
  const double floor = Median(timings.read);
  std::printf("%.1f MB per token at a context of %d; plain read %.1f GB/s\n", bytes * 1e-6,
              settings.context, bytes * 1e-9 / floor);
  std::printf("%-22s %9s %10s %9s\n", "decode, batch 1", "ms", "tokens/s", "of limit");
  std::printf("%-22s %9.2f %10.1f %8.0f%%\n", "reading the bytes", floor * 1e3, 1 / floor, 100.0);
  const double one = Median(timings.one_rank);
  const double two = Median(timings.two_ranks);
  std::printf("%-22s %9.2f %10.1f %8.0f%%\n", "1 rank x 2 threads", one * 1e3, 1 / one,
              100 * floor / one);
  std::printf("%-22s %9.2f %10.1f %8.0f%%\n", "2 ranks x 1 thread", two * 1e3, 1 / two,
              100 * floor / two);
  std::printf("2 ranks / 1 rank: %.3f\n", one / two);
}

absl::Status Measure(const Settings& settings) {
  Fleet one(settings, /*cp=*/1, /*threads=*/2);
  Fleet two(settings, /*cp=*/2, /*threads=*/1);
  MUSTER_RETURN_IF_ERROR(one.Create());
  MUSTER_RETURN_IF_ERROR(two.Create());
  const ModelSpec& spec = one.rank(0).spec();
  std::vector<int> prompt;
  for (int i = 0; i < settings.context; ++i) prompt.push_back((i * 7919 + 17) % spec.vocabulary);
  MUSTER_ASSIGN_OR_RETURN(const std::vector<float> expected, one.Prefill(prompt));
  MUSTER_ASSIGN_OR_RETURN(const std::vector<float> actual, two.Prefill(prompt));
  MUSTER_RETURN_IF_ERROR(CheckAlike(expected, actual));

  const uint64_t kv_token = uint64_t{4} * spec.layers * spec.kv_heads * spec.head_dim;
  const uint64_t bytes = spec.weight_bytes + settings.context * kv_token;
  PlainRead read;
  MUSTER_RETURN_IF_ERROR(read.Create(bytes));
  Timings timings;
  for (int round = -2; round < settings.rounds; ++round) {
    const int position = settings.context + round + 2;
    const double floor = read.Seconds();
    MUSTER_ASSIGN_OR_RETURN(const double in_one, one.Decode(round + 10, position));
    MUSTER_ASSIGN_OR_RETURN(const double in_two, two.Decode(round + 10, position));
    if (round < 0) continue;
    timings.read.push_back(floor);
    timings.one_rank.push_back(in_one);
    timings.two_ranks.push_back(in_two);
  }
  Print(settings, bytes, timings);
  return absl::OkStatus();
}

absl::Status Run(Settings settings) {
  if (!settings.directory.empty()) return Measure(settings);
  MUSTER_ASSIGN_OR_RETURN(settings.directory, RandomModel());
  const absl::Status status = Measure(settings);
  std::filesystem::remove_all(settings.directory);
  return status;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) {
  muster::Settings settings;
  if (argc > 1) settings.directory = argv[1];
  if (argc > 2) settings.context = std::atoi(argv[2]);
  if (argc > 3) settings.rounds = std::atoi(argv[3]);
  const absl::Status status = muster::Run(settings);
  if (!status.ok()) std::fprintf(stderr, "decode_benchmark: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
