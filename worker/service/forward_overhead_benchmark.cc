// What a Forward costs beyond the device: client time minus device time of single-token decode
// steps on a serving leader, through Forward and ForwardStream, over loopback TCP and a Unix
// socket, each beside a bare gRPC echo of the same messages through the same API over the same
// transport, in turns of a hundred steps within one run. A second echo answers after the time that
// the device took: what it costs more than the first, a caller and a core that have gone to sleep
// cost any server.
//
//   musterctl up --model DIR --cp 1 --threads 1      prints the coordinator's address
//   forward_overhead_benchmark --coordinator HOST:PORT [--steps 2000]
//       [--tls DIR --echo-tls DIR]      an operator's certificate, and one of any worker
//
// The leader is that of replica 0; the socket is the one it advertises, always in plaintext.
#include <grpcpp/grpcpp.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/tls_credentials.h"
#include "proto/muster/v1/fleet.grpc.pb.h"
#include "proto/muster/v1/inference.grpc.pb.h"
#include "worker/service/echo_server.h"

namespace muster {
namespace {

constexpr int kTurn = 100;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Microseconds(const google::protobuf::Duration& duration) {
  return 1e6 * static_cast<double>(duration.seconds()) + 1e-3 * duration.nanos();
}

double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// What the command line says.
struct Options {
  std::string coordinator;
  int steps = 2000;
  std::string tls, echo_tls;                    // folders; empty for plaintext
  std::shared_ptr<const TlsCredentials> shown;  // those of `tls`
};

std::shared_ptr<grpc::Channel> Connect(const Options& options, const std::string& address,
                                       TlsRole role = TlsRole::kWorker) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const bool plain = address.starts_with("unix:");
  return grpc::CreateCustomChannel(
      address, ChannelCredentialsOf(plain ? nullptr : options.shown.get(), {.role = role}),
      arguments);
}

void ExitUnlessOk(const grpc::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "forward_overhead_benchmark: %s (code %d)\n", status.error_message().c_str(),
               status.error_code());
  std::exit(1);
}

// Microseconds of single steps.
struct Times {
  std::vector<double> overhead, queue, relay, device;
};

// Decode steps of one sequence, begun anew whenever it has filled the context.
class Decoder {
 public:
  Decoder(const Options& options, const std::string& address, bool streams, int context_tokens)
      : stub_(v1::Inference::NewStub(Connect(options, address))), context_tokens_(context_tokens) {
    if (streams) stream_ = stub_->ForwardStream(&stream_context_);
    request_.set_client_id("forward-overhead-" + std::to_string(getpid()));
    v1::SequenceSlice* slice = request_.add_slices();
    slice->set_sequence_id(address + (streams ? " streamed" : " called"));
    slice->add_token_ids(1);
    slice->set_sample(true);
  }

  // An echo takes so long to answer; to a greedy step it means nothing.
  void TakeNanoseconds(uint64_t nanoseconds) {
    request_.mutable_slices(0)->mutable_sampling()->set_seed(nanoseconds);
  }
  // Exits with the error when a step is refused.
  void Run(int steps) {
    for (int i = 0; i < steps; ++i) Step();
  }
  void Free() {
    v1::FreeSequencesRequest request;
    request.set_client_id(request_.client_id());
    request.add_sequence_ids(request_.slices(0).sequence_id());
    v1::FreeSequencesResponse freed;
    grpc::ClientContext context;
    ExitUnlessOk(stub_->FreeSequences(&context, request, &freed));
  }
  const Times& times() const { return times_; }
  void Forget() { times_ = {}; }

 private:
  void Step() {
    if (position_ == context_tokens_) {
      Free();
      position_ = 0;
    }
    v1::SequenceSlice* slice = request_.mutable_slices(0);
    slice->set_first_position(static_cast<uint32_t>(position_++));
    const double start = Now();
    const v1::ForwardResponse& response = stream_ != nullptr ? Stream() : Call();
    const double took = 1e6 * (Now() - start);
    if (response.outputs_size() != 1 || !response.outputs(0).has_sampled_token()) {
      ExitUnlessOk({grpc::StatusCode::INTERNAL, "a step sampled no token"});
    }
    slice->set_token_ids(0, response.outputs(0).sampled_token());
    times_.device.push_back(Microseconds(response.device_time()));
    times_.overhead.push_back(took - times_.device.back());
    times_.queue.push_back(Microseconds(response.queue_time()));
    times_.relay.push_back(Microseconds(response.relay_time()));
  }
  const v1::ForwardResponse& Call() {
    grpc::ClientContext context;
    response_.Clear();
    ExitUnlessOk(stub_->Forward(&context, request_, &response_));
    return response_;
  }
  const v1::ForwardResponse& Stream() {
    if (!stream_->Write(request_) || !stream_->Read(&streamed_)) ExitUnlessOk(stream_->Finish());
    if (streamed_.has_error()) {
      ExitUnlessOk({grpc::StatusCode::UNKNOWN, streamed_.error().message()});
    }
    return streamed_.response();
  }

  const std::unique_ptr<v1::Inference::Stub> stub_;
  const int context_tokens_;
  grpc::ClientContext stream_context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ForwardRequest, v1::ForwardStreamResponse>> stream_;
  v1::ForwardRequest request_;
  v1::ForwardResponse response_;
  v1::ForwardStreamResponse streamed_;
  int position_ = 0;
  Times times_;
};

// Rank 0 of replica 0.
v1::RankPlacement FindLeader(const Options& options) {
  v1::GetTopologyResponse response;
  grpc::ClientContext context;
  const auto channel = Connect(options, options.coordinator, TlsRole::kCoordinator);
  ExitUnlessOk(v1::Fleet::NewStub(channel)->GetTopology(&context, {}, &response));
  if (response.replicas_size() == 0 || response.replicas(0).state() != v1::REPLICA_STATE_SERVING) {
    ExitUnlessOk({grpc::StatusCode::UNAVAILABLE, "replica 0 does not serve now"});
  }
  return response.replicas(0).topology().ranks(0);
}

// Longest sequence of the model that `leader` serves.
int ContextOf(const Options& options, const std::string& leader) {
  v1::GetCapacityResponse response;
  grpc::ClientContext context;
  ExitUnlessOk(
      v1::Inference::NewStub(Connect(options, leader))->GetCapacity(&context, {}, &response));
  return static_cast<int>(response.capacity().max_prompt_tokens());
}

// One way of asking, of the worker and of the echoes.
struct Pair {
  std::string name;
  std::unique_ptr<Decoder> worker, echo, slow_echo;
};

std::vector<Pair> Pairs(const Options& options, const v1::RankPlacement& leader,
                        const EchoServer& echo) {
  const int context = ContextOf(options, leader.address());
  std::vector<Pair> pairs;
  for (const bool streams : {false, true}) {
    const std::string call = streams ? "ForwardStream" : "Forward";
    const auto add = [&](const std::string& transport, const std::string& to,
                         const std::string& beside) {
      constexpr int kEndless = std::numeric_limits<int>::max();
      pairs.push_back({call + ", " + transport,
                       std::make_unique<Decoder>(options, to, streams, context),
                       std::make_unique<Decoder>(options, beside, streams, kEndless),
                       std::make_unique<Decoder>(options, beside, streams, kEndless)});
    };
    add(options.shown == nullptr ? "TCP" : "mutual TLS", leader.address(), echo.tcp);
    if (!leader.local_address().empty()) {
      add("Unix socket", leader.local_address(), echo.unix_socket);
    }
  }
  return pairs;
}

void Print(const std::vector<Pair>& pairs) {
  std::printf(
      "| what | p50 us | p99 us | echo p50 | echo p99 | above it | echo that takes as long |"
      " above it | queue, relay | device |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const Pair& pair : pairs) {
    const Times& worker = pair.worker->times();
    const std::vector<double>& echo = pair.echo->times().overhead;
    const double p50 = Percentile(worker.overhead, 0.5), echo_p50 = Percentile(echo, 0.5);
    const double slow = Percentile(pair.slow_echo->times().overhead, 0.5);
    std::printf("| %s | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.1f, %.1f | %.0f |\n",
                pair.name.c_str(), p50, Percentile(worker.overhead, 0.99), echo_p50,
                Percentile(echo, 0.99), p50 - echo_p50, slow, p50 - slow,
                Percentile(worker.queue, 0.5), Percentile(worker.relay, 0.5),
                Percentile(worker.device, 0.5));
  }
}

void RunTurn(const Pair& pair) {
  pair.worker->Run(kTurn);
  pair.echo->Run(kTurn);
  const double device = Percentile(pair.worker->times().device, 0.5);
  pair.slow_echo->TakeNanoseconds(static_cast<uint64_t>(1e3 * device));
  pair.slow_echo->Run(kTurn);
}

int Compare(const Options& options) {
  char directory[] = "/tmp/muster-echo-XXXXXX";
  if (mkdtemp(directory) == nullptr) return 1;
  const EchoServer echo = StartEchoServer(directory, options.echo_tls);
  if (echo.tcp.empty()) {
    std::fprintf(stderr, "forward_overhead_benchmark: the echo server did not start\n");
    return 1;
  }
  const std::vector<Pair> pairs = Pairs(options, FindLeader(options), echo);
  for (int done = -kTurn; done < options.steps; done += kTurn) {
    for (const Pair& pair : pairs) RunTurn(pair);
    if (done >= 0) continue;
    for (const Pair& pair : pairs) {
      for (Decoder* it : {pair.worker.get(), pair.echo.get(), pair.slow_echo.get()}) it->Forget();
    }
  }
  for (const Pair& pair : pairs) pair.worker->Free();
  Print(pairs);
  unlink((std::string(directory) + "/echo.sock").c_str());
  rmdir(directory);
  return 0;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) {
  if (argc == 5 && std::string(argv[1]) == "--serve-echo") {
    return muster::ServeEcho(argv[2], std::atoi(argv[3]), argv[4]);
  }
  muster::Options options;
  bool understood = argc % 2 == 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--coordinator") {
      options.coordinator = argv[i + 1];
    } else if (flag == "--steps") {
      options.steps = std::atoi(argv[i + 1]);
    } else if (flag == "--tls") {
      options.tls = argv[i + 1];
    } else if (flag == "--echo-tls") {
      options.echo_tls = argv[i + 1];
    } else {
      understood = false;
    }
  }
  understood &= options.tls.empty() == options.echo_tls.empty();
  if (!understood || options.coordinator.empty() || options.steps < 1) {
    std::fprintf(stderr,
                 "usage: forward_overhead_benchmark --coordinator HOST:PORT [--steps 2000] "
                 "[--tls DIR --echo-tls DIR]\n");
    return 2;
  }
  auto shown = muster::TlsCredentials::Open(options.tls);
  if (!shown.ok()) {
    std::fprintf(stderr, "forward_overhead_benchmark: %s\n", shown.status().ToString().c_str());
    return 2;
  }
  options.shown = *std::move(shown);
  return muster::Compare(options);
}
