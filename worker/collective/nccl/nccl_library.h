#ifndef MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_LIBRARY_H_
#define MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_LIBRARY_H_

#include <nccl.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster {

// How the library is used in this process, once for all: it reads its environment when it is first
// called. What the environment has already stays.
struct NcclSettings {
  // Several ranks are on one GPU, each in a process of its own: NCCL accepts that only of processes
  // that seem to be on hosts of their own, which talk through the loopback interface.
  bool oversubscribed = false;
};

// NVIDIA's library, found at run time. Thread-safe.
class NcclLibrary {
 public:
  // UNAVAILABLE says where it was looked for. FAILED_PRECONDITION names its version and the one
  // that this program was built against when the major ones differ or it is older by a minor one.
  static absl::StatusOr<NcclLibrary> Load(const std::vector<std::string>& extra_folders = {},
                                          const std::vector<std::string>& sonames = {
                                              "libnccl.so.2"});
  // The one of this process, loaded by the first call, whose settings and result stand.
  static absl::StatusOr<const NcclLibrary*> Shared(const NcclSettings& settings);

  // OK for success, and for work in progress.
  absl::Status StatusOf(ncclResult_t result, absl::string_view what) const;

  const std::string& path() const { return path_; }
  int version() const { return version_; }

  decltype(&ncclGetErrorString) GetErrorString = nullptr;
  decltype(&ncclGetUniqueId) GetUniqueId = nullptr;
  decltype(&ncclCommInitRankConfig) CommInitRankConfig = nullptr;
  decltype(&ncclCommFinalize) CommFinalize = nullptr;
  decltype(&ncclCommDestroy) CommDestroy = nullptr;
  decltype(&ncclCommAbort) CommAbort = nullptr;
  decltype(&ncclCommGetAsyncError) CommGetAsyncError = nullptr;
  decltype(&ncclAllGather) AllGather = nullptr;
  decltype(&ncclBroadcast) Broadcast = nullptr;
  decltype(&ncclSend) Send = nullptr;
  decltype(&ncclRecv) Recv = nullptr;
  decltype(&ncclGroupStart) GroupStart = nullptr;
  decltype(&ncclGroupEnd) GroupEnd = nullptr;

 private:
  NcclLibrary() = default;

  std::string path_;
  int version_ = 0;
};

}  // namespace muster

#endif  // MUSTER_WORKER_COLLECTIVE_NCCL_NCCL_LIBRARY_H_
