// Which clients are still there.
#ifndef MUSTER_WORKER_ENGINE_CLIENT_LEASES_H_
#define MUSTER_WORKER_ENGINE_CLIENT_LEASES_H_

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"

namespace muster {

// When each client was heard of last, and who has been silent for the length of the lease. Times
// come from the caller and do not go back. Not thread-safe.
class ClientLeases {
 public:
  explicit ClientLeases(absl::Duration lease) : lease_(lease) {}

  // A client called: its lease begins anew, if it has one.
  void Renew(const std::string& client, absl::Time now);
  // Gives a client a lease. While it is held, as often as it was, it does not end; it begins anew
  // when it is let go.
  void Hold(const std::string& client, absl::Time now);
  void LetGo(const std::string& client, absl::Time now);

  // Forgets and returns the clients whose lease is over.
  std::vector<std::string> TakeExpired(absl::Time now);
  // When the next lease ends at the earliest; InfiniteFuture when none does.
  absl::Time next_expiry() const;

  absl::Duration lease() const { return lease_; }
  size_t clients() const { return clients_.size(); }

 private:
  struct Client {
    absl::Time heard;
    int holders = 0;
  };

  const absl::Duration lease_;
  absl::flat_hash_map<std::string, Client> clients_;
  // Those that nobody holds, by a time at or before which they were heard last: corrected when it
  // comes first, so that a call costs no more than a look-up.
  std::set<std::pair<absl::Time, std::string>> silent_since_;
};

}  // namespace muster

#endif  // MUSTER_WORKER_ENGINE_CLIENT_LEASES_H_
