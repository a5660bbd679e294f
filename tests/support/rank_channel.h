#ifndef MUSTER_TESTS_SUPPORT_RANK_CHANNEL_H_
#define MUSTER_TESTS_SUPPORT_RANK_CHANNEL_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace muster::testing {

// Fields of a message; the first says what it is.
using RankMessage = std::vector<std::string>;

// One end of the socket between a rank's process and the one that started it. Any thread sends; one
// thread receives.
class RankChannel {
 public:
  // Owns `fd`, a stream socket.
  explicit RankChannel(int fd) : fd_(fd) {}
  RankChannel(const RankChannel&) = delete;
  RankChannel& operator=(const RankChannel&) = delete;
  ~RankChannel();

  // False when the other end is gone.
  bool Send(const RankMessage& message);
  // Nothing when the other end is gone or this one was shut down.
  std::optional<RankMessage> Receive();
  // Ends a Receive. Any thread.
  void Shutdown();

 private:
  const int fd_;
  absl::Mutex mu_;  // held while a message is written
};

// With payloads.
std::string EncodeStatus(const absl::Status& status);
absl::Status DecodeStatus(const std::string& text);

}  // namespace muster::testing

#endif  // MUSTER_TESTS_SUPPORT_RANK_CHANNEL_H_
