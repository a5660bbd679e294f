// One epoch takes over from another, while requests go on.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "tests/support/status_matchers.h"
#include "worker/engine/worker_epochs_harness.h"

namespace muster {
namespace {

using testing::StartForward;
using testing::TestReplica;

constexpr int kTokens = 60;

class TakeoverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(golden_, ReadGolden("llama-gqa6"));
    ASSERT_OK_AND_ASSIGN(model_, ModelSource::Open(golden_.directory, "float32"));
  }

  // The next `count` greedy tokens of the sequence "s", which begins with the golden prompt.
  std::vector<int> Write(Engine& engine, int count) {
    std::vector<int> written;
    for (int i = 0; i < count; ++i) {
      const auto result = StartForward(engine, "s", pending_, position_).get();
      if (!result.ok()) {
        ADD_FAILURE() << result.status();
        break;
      }
      position_ += static_cast<int>(pending_.size());
      pending_ = {result->outputs.at(0).sampled->token};
      written.push_back(pending_[0]);
    }
    return written;
  }
  void Restart() {
    pending_ = golden_.prompt;
    position_ = 0;
  }
  // What one rank writes.
  std::vector<int> Expected(int count) {
    TestReplica alone(1, model_);
    EXPECT_OK(alone.Serve({}));
    Restart();
    std::vector<int> tokens = Write(alone.engine(), count);
    Restart();
    return tokens;
  }

  Golden golden_;
  ModelSource model_;
  std::vector<int> pending_;
  int position_ = 0;
};

TEST_F(TakeoverTest, TheTextGoesOnThroughEverySize) {
  const std::vector<int> expected = Expected(kTokens);
  TestReplica replica(6, model_);
  ASSERT_OK(replica.Serve({.cp = 2}));
  std::vector<int> written;
  for (const int cp : {4, 3, 1, 6, 2}) {
    for (const int token : Write(replica.engine(), 10)) written.push_back(token);
    ASSERT_OK_AND_ASSIGN(const Takeover takeover, replica.Resize({.cp = cp}));
    EXPECT_EQ(takeover.sequences, 1);
    EXPECT_EQ(takeover.tokens_rebuilt, 0u);
  }
  for (const int token : Write(replica.engine(), 10)) written.push_back(token);
  EXPECT_EQ(written, expected);
}

}  // namespace
}  // namespace muster
