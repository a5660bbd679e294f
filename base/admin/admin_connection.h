// One caller of the admin port: what it sent so far, what it is still owed, and until when.
#ifndef MUSTER_BASE_ADMIN_ADMIN_CONNECTION_H_
#define MUSTER_BASE_ADMIN_ADMIN_CONNECTION_H_

#include <cstddef>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "base/admin/http_request.h"
#include "base/admin/owned_fd.h"

namespace muster {

struct ConnectionLimits {
  HttpLimits http;
  absl::Duration request = absl::Seconds(5);  // from the first byte of a request to its last
  absl::Duration answer = absl::Seconds(5);   // until the caller has taken all of an answer
  absl::Duration idle = absl::Minutes(1);     // between requests of one connection
  absl::Duration linger = absl::Seconds(1);   // for a caller that still sends after the last answer
  int requests = 100;                         // of one connection
};

// Never blocks. Used by one thread.
class AdminConnection {
 public:
  using Answer = absl::FunctionRef<AdminResponse(const AdminRequest&)>;

  AdminConnection(OwnedFd fd, const ConnectionLimits& limits, absl::Time now);

  int fd() const { return fd_.get(); }
  // It waits until its answer can be written; otherwise for something to read.
  bool writing() const { return written_ < output_.size(); }
  // There is nothing to lose when it is closed now.
  bool idle() const { return draining_ || (!writing() && input_.empty()); }
  // When it has to be closed, whatever it does until then.
  absl::Time deadline() const { return deadline_; }

  // For a caller that did not keep its time: what it has not taken yet is thrown away.
  void Abandon();

  // Reads, answers and writes what can be done now. False when the connection is over.
  bool Continue(Answer answer, absl::Time now);

 private:
  enum class Io { kSome, kLater, kEnd };

  Io Read();
  Io Write();
  // Throws away what still comes after the last answer: a connection that is closed over unread
  // bytes is reset, and the caller could lose that answer. False when it is over.
  bool Drain();
  void BeginDraining(absl::Time now);
  bool AnswerNext(Answer answer, absl::Time now);
  void Reply(const HttpRequest& request, const AdminResponse& response, absl::Time now);

  // Constant after construction.
  OwnedFd fd_;
  const ConnectionLimits* limits_;

  std::string input_;
  std::string output_;
  size_t written_ = 0;  // bytes of output_
  int requests_ = 0;
  bool last_ = false;      // the connection ends with what is in output_
  bool draining_ = false;  // all is written
  size_t drained_ = 0;     // bytes
  absl::Time deadline_;
};

}  // namespace muster

#endif  // MUSTER_BASE_ADMIN_ADMIN_CONNECTION_H_
