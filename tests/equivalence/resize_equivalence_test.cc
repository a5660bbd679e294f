// However often a replica changes shape while it writes: every token is the one that a replica
// which never does writes, no request fails, and nothing is left of the shapes before.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/support/local_replica.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/worker_epochs_harness.h"
#include "worker/model/golden.h"

namespace muster::testing {
namespace {

constexpr int kWorkers = 6;
constexpr int kWriters = 4;
constexpr int kSequencesEach = 8;
constexpr int kLongestPrompt = 70;
constexpr int kLongest = 120;  // tokens of a sequence
constexpr int kResizes = 20;   // while they write
// Two tokens that are nearer to each other than this may change places with the order of additions.
constexpr float kClearLead = 1e-4f;

// A sequence as its client sees it.
struct Text {
  std::string id;
  std::vector<uint32_t> tokens;  // all of them, those not yet computed included
  size_t given = 0;              // of them by the client, or by the sequence that it forked from
  uint32_t computed = 0;
  size_t length = 0;  // that it is to have
  bool done() const { return tokens.size() >= length; }
};

// Writes its sequences in batches of a few, prompts in chunks, and forks some.
class Writer {
 public:
  Writer(int index, Engine& engine) : random_(static_cast<uint64_t>(index)), engine_(engine) {
    client_ = absl::StrCat("writer", index);
    for (int i = 0; i < kSequencesEach / 2; ++i) {
      Text text{.id = absl::StrCat("s", i), .length = static_cast<size_t>(kLongest - Below(30))};
      const int prompt = 1 + Below(kLongestPrompt);
      for (int t = 0; t < prompt; ++t) text.tokens.push_back(1 + Below(VocabularySize() - 1));
      text.given = text.tokens.size();
      texts_.push_back(text);
    }
  }

  // Until all are written; `more` keeps it at it: what is done begins again.
  void Run(const std::atomic<bool>& more) {
    while (!::testing::Test::HasFatalFailure()) {
      if (std::all_of(texts_.begin(), texts_.end(), [](const Text& it) { return it.done(); })) {
        finished_.insert(finished_.end(), texts_.begin(), texts_.end());
        engine_.Free({.client_id = client_, .all = true}, [](const absl::StatusOr<int>&) {});
        if (!more) return;
        for (Text& text : texts_) {
          text.tokens.resize(std::min<size_t>(text.given, kLongestPrompt));
          text.given = text.tokens.size();
          text.computed = 0;
        }
        texts_.resize(kSequencesEach / 2);
      }
      ASSERT_NO_FATAL_FAILURE(Step());
      if (texts_.size() == kSequencesEach || Below(4) > 0) continue;
      ASSERT_NO_FATAL_FAILURE(Fork());
    }
  }
  const std::vector<Text>& finished() const { return finished_; }

 private:
  int Below(int count) { return static_cast<int>(random_() % static_cast<uint64_t>(count)); }
  int VocabularySize() const { return engine_.options().limits.vocabulary; }

  void Step() {
    std::vector<Text*> chosen;
    ForwardBatch batch{.client_id = client_};
    for (Text& text : texts_) {
      if (text.done() || Below(2) == 0) continue;
      const auto left = static_cast<int>(text.tokens.size() - text.computed);
      const int count = left == 1 ? 1 : 1 + Below(left);
      const auto first = text.tokens.begin() + text.computed;
      batch.slices.push_back({.sequence_id = text.id,
                              .token_ids = {first, first + count},
                              .first_position = text.computed,
                              .sample = count == left});
      chosen.push_back(&text);
    }
    if (chosen.empty()) return;
    const auto result = ForwardAndWait(engine_, batch);
    ASSERT_OK(result);
    for (size_t i = 0; i < chosen.size(); ++i) {
      chosen[i]->computed += static_cast<uint32_t>(batch.slices[i].token_ids.size());
      if (!batch.slices[i].sample) continue;
      chosen[i]->tokens.push_back(
          static_cast<uint32_t>(result->outputs.at(i).sampled.value().token));
    }
  }

  // A sequence that goes on otherwise than the one it begins with.
  void Fork() {
    const Text& parent = texts_[static_cast<size_t>(Below(static_cast<int>(texts_.size())))];
    if (parent.computed == 0 || parent.done()) return;
    Text child = parent;
    child.id = absl::StrCat("fork", forks_++);
    const auto forked = ForkAndWait({.client_id = client_,
                                     .sequence_id = parent.id,
                                     .new_sequence_id = child.id,
                                     .tokens = parent.computed});
    ASSERT_OK(forked);
    child.tokens.resize(parent.computed);
    child.tokens.push_back(1 + static_cast<uint32_t>(Below(VocabularySize() - 1)));
    child.given = child.tokens.size();
    texts_.push_back(child);
  }
  absl::StatusOr<Forked> ForkAndWait(const ForkOrder& order) {
    absl::Notification done;
    absl::StatusOr<Forked> result;
    engine_.Fork(order, [&](const absl::StatusOr<Forked>& forked) {
      result = forked;
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }

  std::mt19937_64 random_;
  Engine& engine_;
  std::string client_;
  std::vector<Text> texts_;
  std::vector<Text> finished_;
  int forks_ = 0;
};

// What this process holds of the system, all workers in one.
struct Held {
  int files = 0;
  int threads = 0;
  int segments = 0;  // mapped

  bool operator<=(const Held& other) const {
    return files <= other.files && threads <= other.threads && segments <= other.segments;
  }
};
Held HeldNow() {
  const auto entries = [](const char* directory) {
    return static_cast<int>(std::distance(std::filesystem::directory_iterator(directory), {}));
  };
  Held held{.files = entries("/proc/self/fd"), .threads = entries("/proc/self/task")};
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (absl::StrContains(line, "memfd:")) ++held.segments;
  }
  return held;
}

class ResizeEquivalenceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(golden_, ReadGolden("llama-gqa6"));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden_.directory, "float32"));
    ASSERT_OK_AND_ASSIGN(alone_, LocalReplica::Form(model_, {}));
  }

  // The token after the first `count` of a text; -1 when two are too near to each other.
  int Next(const std::string& id, const Text& text, size_t count, size_t computed) {
    const auto result = ForwardAndWait(
        alone_->engine(),
        {.client_id = "oracle",
         .slices = {{.sequence_id = id,
                     .token_ids = {text.tokens.begin() + static_cast<int64_t>(computed),
                                   text.tokens.begin() + static_cast<int64_t>(count)},
                     .first_position = static_cast<uint32_t>(computed),
                     .sample = true,
                     .top_n = 2}}});
    EXPECT_OK(result);
    const SliceOutput& output = result->outputs.at(0);
    const float lead = output.top.at(0).logprob - output.top.at(1).logprob;
    return lead < kClearLead ? -1 : output.sampled->token;
  }

  void ExpectUndisturbed(const Text& text) {
    size_t computed = 0;
    for (size_t count = text.given; count < text.tokens.size(); ++count) {
      const int expected = Next("s", text, count, computed);
      computed = count;
      if (expected < 0) {
        ++near_ties_;
        continue;
      }
      ASSERT_EQ(text.tokens[count], static_cast<uint32_t>(expected))
          << text.id << ", token " << count << " of which " << text.given << " were given";
      ++compared_;
    }
    alone_->engine().Free({.client_id = "oracle", .all = true}, [](const absl::StatusOr<int>&) {});
  }

  Golden golden_;
  ModelSource model_;
  std::unique_ptr<LocalReplica> alone_;
  int compared_ = 0;
  int near_ties_ = 0;
};

TEST_F(ResizeEquivalenceTest, NothingIsLostAndNothingIsLeft) {
  TestReplica replica(kWorkers, model_);
  ASSERT_OK(replica.Serve({.cp = 2}));
  // Once through, so that what is made on first use is there.
  ASSERT_OK(replica.Resize({.cp = 3}).status());
  ASSERT_OK(replica.Resize({.cp = 2}).status());
  const Held before = HeldNow();

  std::vector<std::unique_ptr<Writer>> writers;
  std::vector<std::thread> threads;
  std::atomic<bool> more{true};
  for (int i = 0; i < kWriters; ++i) {
    writers.push_back(std::make_unique<Writer>(i, replica.engine()));
  }
  for (const auto& writer : writers) {
    threads.emplace_back([&more, it = writer.get()] { it->Run(more); });
  }
  std::mt19937 random(6);
  int64_t moved = 0, kept = 0;
  int cp = 2;
  for (int i = 0; i < kResizes; ++i) {
    constexpr int kSizes[] = {1, 2, 3, 4, 6};
    int next = cp;
    while (next == cp) next = kSizes[random() % std::size(kSizes)];
    const auto takeover = replica.Resize({.cp = next});
    EXPECT_OK(takeover) << "cp " << cp << " to " << next;
    if (!takeover.ok()) break;
    moved += static_cast<int64_t>(takeover->kv_blocks_moved);
    kept += static_cast<int64_t>(takeover->kv_blocks_kept);
    cp = next;
  }
  more = false;
  for (std::thread& thread : threads) thread.join();
  ASSERT_FALSE(HasFailure());
  EXPECT_GT(moved, 0);
  EXPECT_GT(kept, 0);

  for (const auto& writer : writers) {
    EXPECT_GE(writer->finished().size(), static_cast<size_t>(kSequencesEach / 2));
    for (const Text& text : writer->finished()) ASSERT_NO_FATAL_FAILURE(ExpectUndisturbed(text));
  }
  std::printf("%d tokens compared, %d near ties, %ld blocks moved, %ld kept\n", compared_,
              near_ties_, static_cast<long>(moved), static_cast<long>(kept));
  EXPECT_GT(compared_, 1000);
  EXPECT_LT(near_ties_, compared_ / 100);

  ASSERT_OK(replica.Resize({.cp = 2}).status());
  // A thread that has been let go may take a moment to end.
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  Held after = HeldNow();
  while (!(after <= before) && absl::Now() < deadline) after = HeldNow();
  EXPECT_LE(after.files, before.files);
  EXPECT_LE(after.threads, before.threads);
  EXPECT_LE(after.segments, before.segments);
}

}  // namespace
}  // namespace muster::testing
