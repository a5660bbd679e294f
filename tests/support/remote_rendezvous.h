// A LocalRendezvousBoard that the ranks of other processes reach through their channels.
#ifndef MUSTER_TESTS_SUPPORT_REMOTE_RENDEZVOUS_H_
#define MUSTER_TESTS_SUPPORT_REMOTE_RENDEZVOUS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "tests/support/local_rendezvous.h"
#include "tests/support/rank_channel.h"
#include "worker/collective/rendezvous.h"

namespace muster::testing {

// In the rank's process. Receives on the channel, which outlives it, as do no rendezvous made here.
class RendezvousClient {
 public:
  explicit RendezvousClient(RankChannel& channel);
  // Shuts the channel down.
  ~RendezvousClient();

  std::unique_ptr<Rendezvous> Make(Epoch epoch);

 private:
  friend class RemoteRendezvous;
  absl::StatusOr<std::vector<std::string>> Gather(Epoch epoch, const Group& group,
                                                  absl::string_view key, absl::string_view value,
                                                  absl::Duration timeout);
  std::string NextId();
  // The answer to a message; empty when there will be none.
  RankMessage Await(const std::string& id);
  void Receive();

  RankChannel& channel_;
  absl::Mutex mu_;
  uint64_t last_id_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<std::string, RankMessage> answers_ ABSL_GUARDED_BY(mu_);  // by id
  bool gone_ ABSL_GUARDED_BY(mu_) = false;
  std::thread receiver_;
};

// In the process that has the board, for one rank. Handle is called by one thread; board and
// channel outlive this.
class RendezvousServer {
 public:
  RendezvousServer(LocalRendezvousBoard& board, GlobalRank rank, RankChannel& channel)
      : board_(board), rank_(rank), channel_(channel) {}
  RendezvousServer(const RendezvousServer&) = delete;
  RendezvousServer& operator=(const RendezvousServer&) = delete;
  // The rank's waits end.
  ~RendezvousServer();

  // Returns without waiting; the answer is sent when there is one.
  void Handle(const RankMessage& message);

 private:
  LocalRendezvous& RendezvousOf(const std::string& epoch);
  void Answer(const RankMessage& gather, LocalRendezvous& rendezvous);

  LocalRendezvousBoard& board_;
  const GlobalRank rank_;
  RankChannel& channel_;
  std::map<std::string, std::unique_ptr<LocalRendezvous>> rendezvous_;  // by epoch
  std::vector<std::thread> gathers_;
};

}  // namespace muster::testing

#endif  // MUSTER_TESTS_SUPPORT_REMOTE_RENDEZVOUS_H_
