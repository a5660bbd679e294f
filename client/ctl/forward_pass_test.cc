#include "client/ctl/forward_pass.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr uint32_t kHidden = 2;
constexpr uint32_t kLayers = 6;
constexpr uint32_t kRows = 3;

// Every layer adds one to each number that enters it; a token enters as its id.
class LayeredLeader : public v1::Inference::Service {
 public:
  LayeredLeader() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }

  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                        v1::GetModelResponse* response) override {
    response->set_max_rows_per_step(kRows);
    response->set_max_request_bytes(max_request_bytes);
    response->mutable_model()->set_name("layered");
    response->mutable_model()->set_layers(kLayers);
    response->mutable_model()->set_hidden(kHidden);
    response->mutable_model()->set_vocabulary(4);
    return grpc::Status::OK;
  }

  grpc::Status Forward(grpc::ServerContext*, const v1::ForwardRequest* request,
                       v1::ForwardResponse* response) override {
    requests.push_back(*request);
    const v1::SequenceSlice& slice = request->slices(0);
    const uint32_t begin = slice.has_layers() ? slice.layers().begin() : 0;
    const uint32_t end = slice.has_layers() ? slice.layers().end() : kLayers;
    std::vector<float> states(slice.hidden_states().begin(), slice.hidden_states().end());
    for (const uint32_t token : slice.token_ids()) {
      states.insert(states.end(), kHidden, static_cast<float>(token));
    }
    for (float& state : states) state += static_cast<float>(end - begin);
    response->set_epoch(7);
    response->mutable_device_time()->set_nanos(1000);
    v1::SliceOutput& output = *response->add_outputs();
    if (slice.has_return_hidden_states())
      output.mutable_hidden_states()->Assign(states.begin(), states.end());
    if (slice.sample()) output.set_sampled_token(static_cast<uint32_t>(states.back()));
    if (slice.return_logits()) output.mutable_logits()->Resize(4, 0.5f);
    if (refuses_to_sample && slice.sample()) output.mutable_error()->set_code(9);
    return grpc::Status::OK;
  }

  const std::string& address() const { return address_; }

  // Read and set them between calls only.
  std::vector<v1::ForwardRequest> requests;
  uint64_t max_request_bytes = 64 << 20;
  bool refuses_to_sample = false;

 private:
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

v1::LayerRange Layers(uint32_t begin, uint32_t end) {
  v1::LayerRange layers;
  layers.set_begin(begin);
  layers.set_end(end);
  return layers;
}

class ForwardPassTest : public ::testing::Test {
 protected:
  absl::StatusOr<Pass> Run(PassOptions options) {
    options.client_id = "test";
    options.sequence_id = "s";
    return RunPass(InferenceClient({leader_.address(), "", {}}), options);
  }

  LayeredLeader leader_;
};

TEST_F(ForwardPassTest, TwoHalvesGiveTheTokenOfTheWhole) {
  const std::vector<uint32_t> prompt = {4, 5, 6, 7, 8};
  ASSERT_OK_AND_ASSIGN(const Pass whole, Run({.token_ids = prompt}));
  ASSERT_OK_AND_ASSIGN(
      const Pass first,
      Run({.token_ids = prompt, .layers = Layers(0, 2), .return_hidden_states = true}));
  EXPECT_FALSE(first.token.has_value());
  EXPECT_EQ(first.hidden_states.shape, (std::vector<uint64_t>{5, kHidden}));
  ASSERT_OK_AND_ASSIGN(const Pass second,
                       Run({.hidden_states = first.hidden_states, .layers = Layers(2, kLayers)}));
  EXPECT_EQ(second.token, whole.token);
  EXPECT_EQ(second.epoch, 7u);
}

TEST_F(ForwardPassTest, WhatIsLongGoesInChunksOfWhichOnlyTheLastAnswers) {
  ASSERT_OK_AND_ASSIGN(const Pass pass, Run({.first_position = 10,
                                             .token_ids = {1, 2, 3, 4},
                                             .return_logits = true,
                                             .return_hidden_states = true}));
  ASSERT_EQ(leader_.requests.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const v1::SequenceSlice& slice = leader_.requests[i].slices(0);
    EXPECT_EQ(slice.first_position(), 10u + kRows * i);
    EXPECT_EQ(slice.sample(), i == 1);
    EXPECT_EQ(slice.return_logits(), i == 1);
    EXPECT_EQ(slice.return_hidden_states(), kLayers);
    EXPECT_FALSE(slice.has_layers());
  }
  EXPECT_EQ(leader_.requests[1].expected_epoch(), 7u);
  EXPECT_EQ(pass.logits.size(), 4u);
  EXPECT_EQ(pass.hidden_states.values, (std::vector<float>{7, 7, 8, 8, 9, 9, 10, 10}));
  EXPECT_EQ(pass.device_time, absl::Microseconds(2));
}

TEST_F(ForwardPassTest, HiddenStatesStayWithinWhatARequestMayHave) {
  leader_.max_request_bytes = 4096 + kHidden * sizeof(float);
  ASSERT_OK(Run({.hidden_states = FloatArray{{2, kHidden}, {1, 2, 3, 4}}}));
  EXPECT_EQ(leader_.requests.size(), 2u);
}

TEST_F(ForwardPassTest, WhatTheModelCannotDoIsRefusedWithTheNumbers) {
  EXPECT_STATUS(Run({.token_ids = {1}, .layers = Layers(0, 7)}), kInvalid,
                "layers 0:7 do not exist: layered has 6");
  EXPECT_STATUS(Run({.token_ids = {1}, .layers = Layers(2, 6)}), kInvalid,
                "the hidden states that leave layer 1");
  EXPECT_STATUS(Run({.token_ids = {1}, .layers = Layers(0, 5), .return_logits = true}), kInvalid,
                "layers 0:5 give no logits");
  EXPECT_STATUS(Run({.hidden_states = FloatArray{{1, 3}, {1, 2, 3}}}), kInvalid,
                "shape (1, 3) do not fit: layered wants (tokens, 2)");
  EXPECT_STATUS(Run({.hidden_states = FloatArray{{2}, {1, 2}}}), kInvalid, "shape (2)");
  EXPECT_STATUS(Run({.hidden_states = FloatArray{{0, 2}, {}}}), kInvalid, "shape (0, 2)");
  EXPECT_TRUE(leader_.requests.empty());
}

TEST_F(ForwardPassTest, ASliceThatCannotBeSampledIsAnError) {
  leader_.refuses_to_sample = true;
  EXPECT_STATUS(Run({.token_ids = {1}}), absl::StatusCode::kFailedPrecondition, "");
}

TEST(ParseLayers, TakesABeginAndAnEnd) {
  ASSERT_OK_AND_ASSIGN(const v1::LayerRange layers, ParseLayers("0:15"));
  EXPECT_EQ(layers.begin(), 0u);
  EXPECT_EQ(layers.end(), 15u);
  for (const char* text : {"", "3", "3:", ":3", "3:3", "4:3", "a:b", "0:1:2", "-1:3"}) {
    EXPECT_STATUS(ParseLayers(text), kInvalid, "wants layers BEGIN:END");
  }
}

}  // namespace
}  // namespace muster::ctl
