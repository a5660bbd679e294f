#include "worker/service/echo_server.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <chrono>

#include "base/tls_credentials.h"
#include "proto/muster/v1/inference.grpc.pb.h"

namespace muster {
namespace {

// What a greedy decode step of one sequence answers, after as many nanoseconds as the seed says.
void Answer(const v1::ForwardRequest& request, v1::ForwardResponse* response) {
  const auto start = std::chrono::steady_clock::now();
  const std::chrono::nanoseconds wanted(request.slices(0).sampling().seed());
  std::chrono::nanoseconds took(0);
  while (took < wanted) took = std::chrono::steady_clock::now() - start;
  v1::SliceOutput* output = response->add_outputs();
  output->set_sequence_id(request.slices(0).sequence_id());
  output->set_sampled_token(request.slices(0).token_ids(0));
  output->set_sampled_logprob(-0.5f);
  response->set_epoch(1);
  response->set_step(request.slices(0).first_position());
  response->set_bucket(1);
  response->mutable_queue_time()->set_nanos(1'000);
  response->mutable_relay_time()->set_nanos(1'000);
  response->mutable_device_time()->set_nanos(static_cast<int>(took.count()));
}

class EchoStream : public grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardStreamResponse> {
 public:
  EchoStream() { StartRead(&request_); }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    response_.Clear();
    Answer(request_, response_.mutable_response());
    StartWrite(&response_);
  }
  void OnWriteDone(bool) override { StartRead(&request_); }
  void OnDone() override { delete this; }

  v1::ForwardRequest request_;
  v1::ForwardStreamResponse response_;
};

class Echo : public v1::Inference::CallbackService {
  grpc::ServerUnaryReactor* Forward(grpc::CallbackServerContext* context,
                                    const v1::ForwardRequest* request,
                                    v1::ForwardResponse* response) override {
    Answer(*request, response);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  grpc::ServerBidiReactor<v1::ForwardRequest, v1::ForwardStreamResponse>* ForwardStream(
      grpc::CallbackServerContext*) override {
    return new EchoStream;
  }
};

int CopyOfThisProgram() {
  const int from = open("/proc/self/exe", O_RDONLY);
  const int to = memfd_create("echo", 0);
  while (sendfile(to, from, nullptr, size_t{1} << 30) > 0) {
  }
  return to;
}

}  // namespace

EchoServer StartEchoServer(const std::string& directory, const std::string& tls) {
  EchoServer server{.unix_socket = "unix:" + directory + "/echo.sock"};
  int fds[2];
  if (pipe(fds) != 0) return server;
  const pid_t child = fork();
  if (child == 0) {
    const std::string fd = std::to_string(fds[1]);
    const std::string copy = "/proc/self/fd/" + std::to_string(CopyOfThisProgram());
    execl(copy.c_str(), "forward_overhead_benchmark", "--serve-echo", server.unix_socket.c_str(),
          fd.c_str(), tls.c_str(), nullptr);
    _exit(127);
  }
  close(fds[1]);  // so that the read ends when the child does
  int port = 0;
  if (read(fds[0], &port, sizeof(port)) == sizeof(port)) {
    server.tcp = "127.0.0.1:" + std::to_string(port);
  }
  close(fds[0]);
  return server;
}

int ServeEcho(const std::string& unix_socket, int ready_fd, const std::string& tls) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const auto shown = TlsCredentials::Open(tls);
  if (!shown.ok()) return 1;
  Echo echo;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", ServerCredentialsOf(shown->get()), &port);
  builder.AddListeningPort(unix_socket, grpc::InsecureServerCredentials());
  builder.RegisterService(&echo);
  const auto server = builder.BuildAndStart();
  if (server == nullptr || write(ready_fd, &port, sizeof(port)) != sizeof(port)) return 1;
  server->Wait();
  return 0;
}

}  // namespace muster
