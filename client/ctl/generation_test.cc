#include "client/ctl/generation.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <numeric>
#include <string>

#include "base/wire_status.h"
#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

constexpr uint32_t kEndToken = 9;

// The next token is the sum of the sequence modulo 10; four rows make a step.
class FakeLeader : public v1::Inference::Service {
 public:
  FakeLeader() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }

  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                        v1::GetModelResponse* response) override {
    response->set_max_rows_per_step(4);
    response->mutable_model()->add_eos_token_ids(kEndToken);
    return grpc::Status::OK;
  }

  grpc::Status Forward(grpc::ServerContext*, const v1::ForwardRequest* request,
                       v1::ForwardResponse* response) override {
    requests.push_back(*request);
    const v1::SequenceSlice& slice = request->slices(0);
    if (slice.token_ids().empty()) {
      return ToGrpc(absl::InvalidArgumentError("the slice is empty"));
    }
    uint32_t& sum = sums[request->client_id() + "/" + slice.sequence_id()];
    sum = std::accumulate(slice.token_ids().begin(), slice.token_ids().end(), sum);
    response->set_epoch(7);
    auto* output = response->add_outputs();
    if (slice.sample()) output->set_sampled_token(sum % 10);
    for (uint32_t i = 0; i < slice.top_n(); ++i) output->add_top()->set_token_id(i);
    return grpc::Status::OK;
  }

  grpc::Status FreeSequences(grpc::ServerContext*, const v1::FreeSequencesRequest* request,
                             v1::FreeSequencesResponse*) override {
    for (const auto& id : request->sequence_ids()) sums.erase(request->client_id() + "/" + id);
    return grpc::Status::OK;
  }

  const std::string& address() const { return address_; }

  // Read them between calls only.
  std::vector<v1::ForwardRequest> requests;
  std::map<std::string, uint32_t> sums;

 private:
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

class GenerationTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::vector<uint32_t>> Tokens(const GenerationOptions& options) {
    std::vector<uint32_t> seen;
    const auto generation = Generate(InferenceClient({leader_.address(), "", {}}), options,
                                     [&](const GenerationStep& it) { seen.push_back(it.token); });
    if (!generation.ok()) return generation.status();
    EXPECT_EQ(generation->epoch, 7u);
    EXPECT_EQ(generation->steps.size(), seen.size());
    return seen;
  }

  FakeLeader leader_;
};

TEST_F(GenerationTest, EveryTokenIsTheInputOfTheNextStep) {
  ASSERT_OK_AND_ASSIGN(const auto tokens, Tokens({.prompt_tokens = {1, 1}, .max_tokens = 3}));
  EXPECT_EQ(tokens, (std::vector<uint32_t>{2, 4, 8}));
  EXPECT_EQ(leader_.requests[1].slices(0).first_position(), 2u);
  EXPECT_EQ(leader_.requests[2].slices(0).first_position(), 3u);
}

TEST_F(GenerationTest, ALongPromptGoesInChunksOfWhichOnlyTheLastSamples) {
  ASSERT_OK(Tokens({.prompt_tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9}, .top_n = 2}));
  ASSERT_EQ(leader_.requests.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    const v1::SequenceSlice& slice = leader_.requests[i].slices(0);
    EXPECT_EQ(slice.first_position(), 4u * i);
    EXPECT_EQ(slice.sample(), i == 2);
    EXPECT_EQ(slice.top_n(), i == 2 ? 2u : 0u);
  }
}

TEST_F(GenerationTest, LaterStepsExpectTheEpochOfTheFirst) {
  ASSERT_OK(Tokens({.prompt_tokens = {1}, .max_tokens = 2}));
  EXPECT_FALSE(leader_.requests[0].has_expected_epoch());
  EXPECT_EQ(leader_.requests[1].expected_epoch(), 7u);
}

TEST_F(GenerationTest, TheEndTokenEndsItUnlessItIsIgnored) {
  GenerationOptions options = {.prompt_tokens = {4, 5}, .max_tokens = 3};
  ASSERT_OK_AND_ASSIGN(const auto tokens, Tokens(options));
  EXPECT_EQ(tokens, (std::vector<uint32_t>{kEndToken}));
  options.ignore_eos = true;
  ASSERT_OK_AND_ASSIGN(const auto more, Tokens(options));
  EXPECT_EQ(more.size(), 3u);
}

TEST_F(GenerationTest, TheSequenceIsFreedHoweverItEnds) {
  ASSERT_OK(Tokens({.prompt_tokens = {1}, .max_tokens = 2}));
  EXPECT_TRUE(leader_.sums.empty());
  EXPECT_STATUS(Tokens({.prompt_tokens = {}}), absl::StatusCode::kInvalidArgument,
                "the slice is empty");
  EXPECT_TRUE(leader_.sums.empty());
}

}  // namespace
}  // namespace muster::ctl
