// What a Forward is held against: a gRPC server that answers at once.
#ifndef MUSTER_WORKER_SERVICE_ECHO_SERVER_H_
#define MUSTER_WORKER_SERVICE_ECHO_SERVER_H_

#include <string>

namespace muster {

// Where an echo server of its own process listens; it ends with this one.
struct EchoServer {
  std::string tcp;          // "127.0.0.1:port"; empty when it did not start
  std::string unix_socket;  // "unix:path"
};

// Starts this program again with `--serve-echo`, in pages of its own: a server that ran the
// client's would find its code in the caches, where the client has just used it, as no worker does.
// The socket is made in `directory`. The port speaks TLS where `tls` is a worker's folder.
EchoServer StartEchoServer(const std::string& directory, const std::string& tls);

// What that process runs: answers what a decode step answers, after as many nanoseconds as its
// seed says, through Forward and ForwardStream with the callback API, as the worker has it. Returns
// when it could not listen.
int ServeEcho(const std::string& unix_socket, int ready_fd, const std::string& tls);

}  // namespace muster

#endif  // MUSTER_WORKER_SERVICE_ECHO_SERVER_H_
