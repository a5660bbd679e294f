// For tests beside this backend: ranks as threads of one process, over real segments.
#ifndef MUSTER_WORKER_COLLECTIVE_SHM_SHM_RANKS_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_SHM_RANKS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/collective/group.h"
#include "worker/collective/shm/shm_backend.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster::testing {

// The opened ends of one group, all in this thread's hands.
class ShmRanks {
 public:
  struct Options {
    uint64_t slab_bytes = kMinSlabBytes;
    absl::Duration wait_timeout = absl::Seconds(20);
    int threads = 1;
    int first_global_rank = 0;
  };

  // One rank's belongings.
  struct Rank {
    Rank(const Group& group, const Options& options);

    Group group;
    Ledger ledger;
    CpuDevice device;
    ShmBackend backend;
    std::unique_ptr<Stream> stream;
    std::unique_ptr<CollectiveEndpoint> endpoint;
  };

  ShmRanks(int size, const Options& options);

  int size() const { return static_cast<int>(ranks_.size()); }
  Rank& operator[](int rank) { return *ranks_[rank]; }

  // Runs `body` for every rank, each in a thread of its own, and returns each one's status.
  std::vector<absl::Status> Run(const std::function<absl::Status(Rank&)>& body);

 private:
  std::vector<std::unique_ptr<Rank>> ranks_;
};

}  // namespace muster::testing

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_SHM_RANKS_H_
