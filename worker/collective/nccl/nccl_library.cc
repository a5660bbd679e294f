#include "worker/collective/nccl/nccl_library.h"

#include <sys/random.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/device/cuda/shared_library.h"

namespace muster {
namespace {

struct Version {
  int major, minor, patch;

  explicit Version(int code)
      : major(code / (code < 10000 ? 1000 : 10000)),
        minor(code % (code < 10000 ? 1000 : 10000) / 100),
        patch(code % 100) {}
  std::string ToString() const { return absl::StrCat(major, ".", minor, ".", patch); }
};

absl::Status CheckVersion(int code, const std::string& path) {
  const Version found(code), wanted(NCCL_VERSION_CODE);
  if (found.major == wanted.major && found.minor >= wanted.minor) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "NCCL ", found.ToString(), " (", path, ") cannot be used: this program was built ",
      "against ", wanted.ToString(), " and needs that or a later ", wanted.major, ".x"));
}

template <typename F>
absl::Status Find(const SharedLibrary& library, const char* symbol, F*& function) {
  MUSTER_ASSIGN_OR_RETURN(function, library.Function<F>(symbol));
  return absl::OkStatus();
}

std::string HostOfItsOwn() {
  uint64_t random = 0;
  if (getrandom(&random, sizeof(random), 0) != sizeof(random)) random = 0;
  return absl::StrCat("muster-", getpid(), "-", random);
}

void Default(const char* name, const std::string& value) { setenv(name, value.c_str(), 0); }

void PrepareEnvironment(const NcclSettings& settings) {
  Default("NCCL_NVLS_ENABLE", "0");
  // It would listen on a port.
  Default("NCCL_RAS_ENABLE", "0");
  // All connections are made with the communicator: a later one could fall into a capture.
  Default("NCCL_RUNTIME_CONNECT", "0");
  if (!settings.oversubscribed) return;
  Default("NCCL_HOSTID", HostOfItsOwn());
  Default("NCCL_SOCKET_IFNAME", "lo");
}

}  // namespace

absl::StatusOr<NcclLibrary> NcclLibrary::Load(const std::vector<std::string>& extra_folders,
                                              const std::vector<std::string>& sonames) {
  MUSTER_ASSIGN_OR_RETURN(const SharedLibrary library,
                          SharedLibrary::Open("NCCL", sonames, extra_folders));
  NcclLibrary nccl;
  nccl.path_ = library.path();
  decltype(&ncclGetVersion) get_version = nullptr;
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclGetVersion", get_version));
  if (get_version(&nccl.version_) != ncclSuccess) {
    return absl::UnavailableError(absl::StrCat("NCCL does not tell its version: ", nccl.path_));
  }
  MUSTER_RETURN_IF_ERROR(CheckVersion(nccl.version_, nccl.path_));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclGetErrorString", nccl.GetErrorString));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclGetUniqueId", nccl.GetUniqueId));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclCommInitRankConfig", nccl.CommInitRankConfig));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclCommFinalize", nccl.CommFinalize));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclCommDestroy", nccl.CommDestroy));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclCommAbort", nccl.CommAbort));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclCommGetAsyncError", nccl.CommGetAsyncError));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclAllGather", nccl.AllGather));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclBroadcast", nccl.Broadcast));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclSend", nccl.Send));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclRecv", nccl.Recv));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclGroupStart", nccl.GroupStart));
  MUSTER_RETURN_IF_ERROR(Find(library, "ncclGroupEnd", nccl.GroupEnd));
  return nccl;
}

absl::StatusOr<const NcclLibrary*> NcclLibrary::Shared(const NcclSettings& settings) {
  static const auto& loaded = *new absl::StatusOr<NcclLibrary>([&] {
    PrepareEnvironment(settings);
    return Load();
  }());
  if (!loaded.ok()) return loaded.status();
  return &*loaded;
}

absl::Status NcclLibrary::StatusOf(ncclResult_t result, absl::string_view what) const {
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  const std::string text = absl::StrCat(what, ": NCCL says ", GetErrorString(result));
  switch (result) {
    case ncclRemoteError:
    case ncclSystemError:
      return absl::UnavailableError(text);
    case ncclInvalidArgument:
    case ncclInvalidUsage:
      return absl::FailedPreconditionError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace muster
