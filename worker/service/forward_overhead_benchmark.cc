// What a Forward costs beyond the device: client time minus device time of single-token decode
// steps on a serving world-1 leader, beside a bare gRPC echo of the same messages over the same
// transport, in turns within one run. A third server echoes after it has read memory for as long
// as the step computed: what the caches and sleeping cores that a long step leaves behind cost any
// server.
//
//   musterctl up --model DIR --cp 1       prints the coordinator's address
//   forward_overhead_benchmark --coordinator HOST:PORT [--steps 2000]
//
// The leader is that of replica 0. The echo server is this binary again, in a process of its own,
// with the callback API as the worker has it.
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/benchmark_timer.h"
#include "proto/muster/v1/fleet.grpc.pb.h"
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

// Reads memory for a while on a thread of its own, one call after another.
class Reader {
 public:
  void Run(double seconds, std::function<void(double took)> done) {
    std::lock_guard lock(mu_);
    seconds_ = seconds;
    done_ = std::move(done);
    wanted_.notify_one();
  }

 private:
  static constexpr size_t kBytes = size_t{256} << 20;
  static constexpr size_t kPiece = size_t{1} << 20;

  void Loop() {
    std::unique_lock lock(mu_);
    while (true) {
      wanted_.wait(lock, [this] { return done_ != nullptr; });
      const double start = Now();
      for (size_t at = 0; Now() - start < seconds_; at = (at + kPiece) % kBytes) {
        StreamingRead(memory_.data() + at, kPiece);
      }
      std::exchange(done_, nullptr)(Now() - start);
    }
  }

  std::vector<std::byte> memory_ = std::vector<std::byte>(kBytes);
  std::mutex mu_;
  std::condition_variable wanted_;
  double seconds_ = 0;
  std::function<void(double)> done_;
  std::thread thread_{[this] { Loop(); }};  // until the process ends
};

// Answers what a decode step answers, without doing anything, or after as many nanoseconds of
// reading as the seed says.
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
    response->mutable_device_time()->set_nanos(0);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const uint64_t work = request->slices(0).sampling().seed();
    if (work == 0) {
      reactor->Finish(grpc::Status::OK);
      return reactor;
    }
    reader_.Run(1e-9 * static_cast<double>(work), [reactor, response](double took) {
      response->mutable_device_time()->set_nanos(static_cast<int>(1e9 * took));
      reactor->Finish(grpc::Status::OK);
    });
    return reactor;
  }

  Reader reader_;
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

// A descriptor of the same program in other pages. A server that runs the client's own pages finds
// its code in the caches, where the client has just used it; a worker never does.
int CopyOfThisProgram() {
  const int from = open("/proc/self/exe", O_RDONLY);
  const int to = memfd_create("echo", 0);
  while (sendfile(to, from, nullptr, size_t{1} << 30) > 0) {
  }
  return to;
}

// The port of an echo server in a new process; 0 when it did not start.
int StartEcho() {
  int pipe_fds[2];
  if (pipe(pipe_fds) != 0) return 0;
  const pid_t child = fork();
  if (child == 0) {
    const std::string fd = std::to_string(pipe_fds[1]);
    const std::string copy = "/proc/self/fd/" + std::to_string(CopyOfThisProgram());
    execl(copy.c_str(), "forward_overhead_benchmark", "--serve-echo", fd.c_str(), nullptr);
    _exit(127);
  }
  close(pipe_fds[1]);  // so that the read ends when the child does
  int port = 0;
  const bool complete = read(pipe_fds[0], &port, sizeof(port)) == sizeof(port);
  close(pipe_fds[0]);
  return complete ? port : 0;
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

void ExitUnlessOk(const grpc::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "forward_overhead_benchmark: %s\n", status.error_message().c_str());
  std::exit(1);
}

// Where rank 0 of replica 0 listens.
std::string FindLeader(const std::string& coordinator) {
  v1::GetTopologyResponse response;
  grpc::ClientContext context;
  ExitUnlessOk(v1::Fleet::NewStub(Connect(coordinator))->GetTopology(&context, {}, &response));
  if (response.replicas_size() == 0 || response.replicas(0).state() != v1::REPLICA_STATE_SERVING) {
    ExitUnlessOk({grpc::StatusCode::UNAVAILABLE, "replica 0 does not serve now"});
  }
  return response.replicas(0).topology().ranks(0).address();
}

struct Call {
  double client_seconds = 0;
  double device_seconds = 0;
};

// Decode steps of one sequence, begun anew whenever it has filled the context.
class Decoder {
 public:
  Decoder(const std::string& address, int context_tokens)
      : stub_(v1::Inference::NewStub(Connect(address))), context_tokens_(context_tokens) {}

  // Exits with the error when the step is refused. `seed` means nothing to a greedy step; an echo
  // works for as many nanoseconds.
  Call Step(uint64_t seed = 0) {
    if (position_ == context_tokens_) Free();
    v1::ForwardRequest request;
    request.set_client_id(client_id_);
    v1::SequenceSlice* slice = request.add_slices();
    slice->set_sequence_id(kSequence);
    slice->add_token_ids(token_);
    slice->set_first_position(static_cast<uint32_t>(position_++));
    slice->set_sample(true);
    slice->mutable_sampling()->set_seed(seed);
    v1::ForwardResponse response;
    grpc::ClientContext context;
    const double start = Now();
    const grpc::Status status = stub_->Forward(&context, request, &response);
    const double end = Now();
    ExitUnlessOk(status);
    if (response.outputs_size() != 1 || !response.outputs(0).has_sampled_token()) {
      ExitUnlessOk({grpc::StatusCode::INTERNAL, "a step sampled no token"});
    }
    token_ = response.outputs(0).sampled_token();
    const auto& device = response.device_time();
    return {end - start, static_cast<double>(device.seconds()) + 1e-9 * device.nanos()};
  }

  void Free() {
    v1::FreeSequencesRequest request;
    request.set_client_id(client_id_);
    request.add_sequence_ids(kSequence);
    v1::FreeSequencesResponse freed;
    grpc::ClientContext context;
    ExitUnlessOk(stub_->FreeSequences(&context, request, &freed));
    position_ = 0;
  }

 private:
  static constexpr char kSequence[] = "sequence";

  const std::unique_ptr<v1::Inference::Stub> stub_;
  const int context_tokens_;
  // Of this process, so that a run that failed leaves nothing in the way of the next.
  const std::string client_id_ = "forward-overhead-" + std::to_string(getpid());
  int position_ = 0;
  uint32_t token_ = 1;
};

// Longest sequence of the model that `leader` serves.
int ContextOf(const std::string& leader) {
  v1::GetCapacityResponse response;
  grpc::ClientContext context;
  ExitUnlessOk(v1::Inference::NewStub(Connect(leader))->GetCapacity(&context, {}, &response));
  return static_cast<int>(response.capacity().max_prompt_tokens());
}

// Client time minus device time, in microseconds.
struct Overheads {
  std::vector<double> forward, bare, working;

  void Add(std::vector<double>& to, const Call& call) {
    to.push_back(1e6 * (call.client_seconds - call.device_seconds));
  }
};

void Print(const Overheads& overheads) {
  std::printf("| what | p50 us | p99 us |\n| --- | --- | --- |\n");
  const auto row = [](const char* what, const std::vector<double>& values) {
    std::printf("| %s | %.0f | %.0f |\n", what, Percentile(values, 0.5), Percentile(values, 0.99));
  };
  row("Forward", overheads.forward);
  row("bare echo of the same messages", overheads.bare);
  row("echo after reading memory for as long", overheads.working);
  const double forward = Percentile(overheads.forward, 0.5);
  std::printf("Forward is %.0f us above the bare echo, %.0f us above the one that works (p50)\n",
              forward - Percentile(overheads.bare, 0.5),
              forward - Percentile(overheads.working, 0.5));
}

int Compare(const std::string& coordinator, int steps) {
  const int port = StartEcho();
  if (port == 0) {
    std::fprintf(stderr, "forward_overhead_benchmark: the echo server did not start\n");
    return 1;
  }
  const std::string leader = FindLeader(coordinator);
  Decoder worker(leader, ContextOf(leader));
  Decoder echo("127.0.0.1:" + std::to_string(port), 2 * (steps + kWarmupSteps));
  Overheads overheads;
  for (int i = 0; i < steps + kWarmupSteps; ++i) {
    // In this order, since the two that are compared must both come after a step that has left
    // nothing of their server in the caches.
    const Call forward = worker.Step();
    const Call working = echo.Step(static_cast<uint64_t>(1e9 * forward.device_seconds));
    const Call bare = echo.Step();
    if (i < kWarmupSteps) continue;
    overheads.Add(overheads.forward, forward);
    overheads.Add(overheads.bare, bare);
    overheads.Add(overheads.working, working);
  }
  worker.Free();
  Print(overheads);
  return 0;
}

}  // namespace
}  // namespace muster

int main(int argc, char** argv) {
  std::string coordinator;
  int steps = 2000;
  bool understood = argc % 2 == 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--serve-echo") return muster::ServeEcho(std::atoi(argv[i + 1]));
    if (flag == "--coordinator") {
      coordinator = argv[i + 1];
    } else if (flag == "--steps") {
      steps = std::atoi(argv[i + 1]);
    } else {
      understood = false;
    }
  }
  if (!understood || coordinator.empty() || steps < 1) {
    std::fprintf(stderr,
                 "usage: forward_overhead_benchmark --coordinator HOST:PORT [--steps 2000]\n");
    return 2;
  }
  return muster::Compare(coordinator, steps);
}
