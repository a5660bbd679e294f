#ifndef MUSTER_WORKER_COLLECTIVE_SHM_SHM_ENDPOINT_H_
#define MUSTER_WORKER_COLLECTIVE_SHM_SHM_ENDPOINT_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/collective/collective_backend.h"
#include "worker/collective/shm/shm_peers.h"
#include "worker/device/cpu/shm_segment.h"
#include "worker/device/buffer.h"

namespace muster {

// A segment of this rank and the mapped ones of its peers.
class ShmEndpoint final : public CollectiveEndpoint {
 public:
  // Of a group of several ranks. `segment` has ShmPeers::SegmentBytes.
  ShmEndpoint(const Group& group, ShmSegment segment, const ShmPeers::Options& options);
  // Of a group of one. `memory` has a page.
  ShmEndpoint(const Group& group, Buffer memory, const ShmPeers::Options& options);

  std::string Handle() const override;
  absl::Status Open(const std::vector<std::string>& handles) override;
  void StopExporting() override;
  std::unique_ptr<Workspace> MakeWorkspace(const Group& group, Fusion fusion) override;
  std::unique_ptr<Communicator> MakeCommunicator(const Group& group) override;
  absl::StatusOr<uint64_t> MeasureTwoShotBytes(Stream& stream) override;
  void SetTwoShotBytes(uint64_t bytes) override { peers_.set_two_shot_bytes(bytes); }
  bool fuses() const override { return true; }
  void Abort(const absl::Status& reason) override { peers_.Abort(reason); }

 private:
  const Group group_;
  std::optional<ShmSegment> segment_;  // of several ranks
  Buffer memory_;                      // of one
  std::vector<ShmMapping> mappings_;
  ShmPeers peers_;  // in the memory above
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_SHM_SHM_ENDPOINT_H_
