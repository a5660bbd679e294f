// How a backend makes the collectives of one ordered rank list, step by step.
#ifndef MUSTER_WORKER_COLLECTIVE_COLLECTIVE_BACKEND_H_
#define MUSTER_WORKER_COLLECTIVE_COLLECTIVE_BACKEND_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/collective/communicator.h"
#include "worker/collective/group.h"
#include "worker/collective/workspace.h"
#include "worker/collective/workspace_plan.h"
#include "worker/device/ledger.h"
#include "worker/device/stream.h"

namespace muster {

enum class Fusion { kFused, kUnfused };

// This rank's end of the memory that the ranks of one ordered list share. Allocated, then opened;
// only then do its workspaces and communicators work, which it outlives. All of them share one
// sequence of collectives. The destructor waits for nobody: memory that peers still read stays
// until they let go of it, and peers that wait for this rank fail.
class CollectiveEndpoint {
 public:
  virtual ~CollectiveEndpoint() = default;

  // What peers need to open this end; for members of the epoch only.
  virtual std::string Handle() const = 0;
  // `handles`: every rank's, in order. UNAVAILABLE names the rank that cannot be opened,
  // FAILED_PRECONDITION one whose memory has another layout.
  virtual absl::Status Open(const std::vector<std::string>& handles) = 0;
  // All peers have opened this end: nobody can any more.
  virtual void StopExporting() = 0;

  // `group` has the ranks of this endpoint.
  virtual std::unique_ptr<Workspace> MakeWorkspace(const Group& group, Fusion fusion) = 0;
  virtual std::unique_ptr<Communicator> MakeCommunicator(const Group& group) = 0;

  // Collective. From how many bytes on two shots are faster than one here: all ranks must then be
  // told the same, before the next collective.
  virtual absl::StatusOr<uint64_t> MeasureTwoShotBytes(Stream& stream) = 0;
  virtual void SetTwoShotBytes(uint64_t bytes) = 0;
  // Whether a workspace that is made for kFused runs each operation as one. Once it is open.
  virtual bool fuses() const = 0;

  // As Communicator::Abort, for all that shares this endpoint.
  virtual void Abort(const absl::Status& reason) = 0;
};

class CollectiveBackend {
 public:
  virtual ~CollectiveBackend() = default;

  // Makes the real allocations. RESOURCE_EXHAUSTED names wanted and free bytes. `ledger` outlives
  // the endpoint.
  virtual absl::StatusOr<std::unique_ptr<CollectiveEndpoint>> Allocate(const Group& group,
                                                                       const WorkspacePlan& plan,
                                                                       Ledger& ledger) = 0;
  // That hosts have waited for peers in collectives since this was made, all endpoints together;
  // none where devices wait among themselves and the host cannot tell. Any thread.
  virtual std::optional<absl::Duration> waited() const = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_COLLECTIVE_BACKEND_H_
