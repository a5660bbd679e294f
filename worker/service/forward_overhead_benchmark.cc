// What a Forward costs beyond the device: client time minus device time of single-token decode
// steps on a serving world-1 leader, beside a bare gRPC echo of the same messages over the same
// transport, in turns within one run.
//
//   forward_overhead_benchmark --leader HOST:PORT [--steps 2000]
//
// The echo server is this binary again, in a process of its own, with the callback API as the
// worker has it.
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "proto/muster/v1/inference.grpc.pb.h"

namespace muster {
namespace {

constexpr int kWarmupSteps = 50;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// Answers what a decode step answers, without doing anything.
class Echo : public v1::Inference::CallbackService {
  grpc::ServerUnaryReactor* Forward(grpc::CallbackServerContext* context,
                                    const v1::ForwardRequest* request,
                                    v1::ForwardResponse* response) override {
    v1::SliceOutput* output = response->add_outputs();
    output->set_sequence_id(request->slices(0).sequence_id());
    output->set_sampled_token(request->slices(0).token_ids(0));
    output->set_sampled_logprob(-0.5f);
    response->set_epoch(1);
    response->set_step(request->slices(0).first_position());
    response->set_bucket(1);
    response->mutable_queue_time()->set_nanos(1'000);
    response->mutable_relay_time()->set_nanos(1'000);
    response->mutable_device_time()->set_nanos(10'000'000);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

// Writes the port to `pipe` and serves until the parent dies.
int ServeEcho(int pipe) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  Echo echo;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&echo);
  auto server = builder.BuildAndStart();
  if (server == nullptr || write(pipe, &port, sizeof(port)) != sizeof(port)) return 1;
  server->Wait();
  return 0;
}

// The port of an echo server in a new process; 0 when it did not start.
int StartEcho() {
  int pipe_fds[2];
  if (pipe(pipe_fds) != 0) return 0;
  const pid_t child = fork();
  if (child == 0) {
    const std::string fd = std::to_string(pipe_fds[1]);
    execl("/proc/self/exe", "forward_overhead_benchmark", "--serve-echo", fd.c_str(), nullptr);
    _exit(127);
  }
  close(pipe_fds[1]);  // so that the read ends when the child does
  int port = 0;
  const bool complete = read(pipe_fds[0], &port, sizeof(port)) == sizeof(port);
  close(pipe_fds[0]);
  return complete ? port : 0;
}

std::unique_ptr<v1::Inference::Stub> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return v1::Inference::NewStub(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
}

// Of this process, so that a run that failed leaves nothing in the way of the next.
std::string ClientId() { return "forward-overhead-" + std::to_string(getpid()); }

struct Call {
  double client_seconds = 0;
  double device_seconds = 0;
};

// One decode step of the sequence; exits with the error when it is refused.
Call Step(v1::Inference::Stub& stub, int position, uint32_t token) {
  v1::ForwardRequest request;
  request.set_client_id(ClientId());
  v1::SequenceSlice* slice = request.add_slices();
  slice->set_sequence_id("sequence");
  slice->add_token_ids(token);
  slice->set_first_position(static_cast<uint32_t>(position));
  slice->set_sample(true);
  v1::ForwardResponse response;
  grpc::ClientContext context;
  const double start = Now();
  const grpc::Status status = stub.Forward(&context, request, &response);
  const double end = Now();
  if (!status.ok()) {
    std::fprintf(stderr, "forward_overhead_benchmark: %s\n", status.error_message().c_str());
    std::exit(1);
  }
  const auto& device = response.device_time();
  return {end - start, static_cast<double>(device.seconds()) + 1e-9 * device.nanos()};
}

int Compare(const std::string& leader, int steps) {
  const int port = StartEcho();
  if (port == 0) {
    std::fprintf(stderr, "forward_overhead_benchmark: the echo server did not start\n");
    return 1;
  }
  auto worker = Connect(leader);
  auto echo = Connect("127.0.0.1:" + std::to_string(port));
  std::vector<double> overhead, echoes;
  for (int i = 0; i < steps + kWarmupSteps; ++i) {
    const Call forward = Step(*worker, i, 1);
    const Call bare = Step(*echo, i, 1);
    if (i < kWarmupSteps) continue;
    overhead.push_back(1e6 * (forward.client_seconds - forward.device_seconds));
    echoes.push_back(1e6 * bare.client_seconds);
  }
  std::printf("| what | p50 us | p99 us |\n| --- | --- | --- |\n");
  std::printf("| Forward, client time minus device time | %.0f | %.0f |\n",
              Percentile(overhead, 0.5), Percentile(overhead, 0.99));
  std::printf("| bare echo of the same messages | %.0f | %.0f |\n", Percentile(echoes, 0.5),
              Percentile(echoes, 0.99));
  std::printf("| difference | %.0f | %.0f |\n", Percentile(overhead, 0.5) - Percentile(echoes, 0.5),
              Percentile(overhead, 0.99) - Percentile(echoes, 0.99));
  v1::FreeSequencesRequest free_request;
  free_request.set_client_id(ClientId());
  free_request.add_sequence_ids("sequence");
  v1::FreeSequencesResponse freed;
  grpc::ClientContext context;
  return worker->FreeSequences(&context, free_request, &freed).ok() ? 0 : 1;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) {
  std::string leader;
  int steps = 2000;
  bool understood = argc % 2 == 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--serve-echo") return muster::ServeEcho(std::atoi(argv[i + 1]));
    if (flag == "--leader") {
      leader = argv[i + 1];
    } else if (flag == "--steps") {
      steps = std::atoi(argv[i + 1]);
    } else {
      understood = false;
    }
  }
  if (!understood || leader.empty() || steps < 1) {
    std::fprintf(stderr, "usage: forward_overhead_benchmark --leader HOST:PORT [--steps 2000]\n");
    return 2;
  }
  return muster::Compare(leader, steps);
}
