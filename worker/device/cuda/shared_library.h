#ifndef MUSTER_WORKER_DEVICE_CUDA_SHARED_LIBRARY_H_
#define MUSTER_WORKER_DEVICE_CUDA_SHARED_LIBRARY_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace muster {

// A vendor's library that was found at run time. It stays loaded until the process ends. Copies
// mean the same library.
class SharedLibrary {
 public:
  // `name` is for messages, "cuBLASLt"; `sonames` in the order of preference, "libcublasLt.so.13".
  // Each is looked for by the loader (LD_LIBRARY_PATH, its cache), then in `extra_folders`, then in
  // CudaLibraryFolders(). UNAVAILABLE lists all that was looked for and where, and why a file that
  // is there could not be loaded.
  static absl::StatusOr<SharedLibrary> Open(absl::string_view name,
                                            const std::vector<std::string>& sonames,
                                            const std::vector<std::string>& extra_folders = {});

  // A function with C linkage: `auto add = library.Function<int(int, int)>("add")` is a StatusOr of
  // its address. UNAVAILABLE names the library's file when it lacks it.
  template <typename F>
  absl::StatusOr<F*> Function(const char* symbol) const {
    absl::StatusOr<void*> address = Address(symbol);
    if (!address.ok()) return address.status();
    return reinterpret_cast<F*>(*address);
  }

  const std::string& name() const { return name_; }
  // The file, or the soname where the loader found it.
  const std::string& path() const { return path_; }

 private:
  SharedLibrary(absl::string_view name, std::string path, void* handle)
      : name_(name), path_(std::move(path)), handle_(handle) {}

  absl::StatusOr<void*> Address(const char* symbol) const;

  std::string name_;
  std::string path_;
  void* handle_;
};

// Where CUDA's libraries may be, those that exist, in this order: the folders of
// MUSTER_CUDA_LIBRARY_PATH (apart by ':'), lib64 of CUDA_HOME and of /usr/local/cuda, and
// nvidia/*/lib of Python's packages (of the python3 on PATH, VIRTUAL_ENV, CONDA_PREFIX, the user's
// and the system's).
std::vector<std::string> CudaLibraryFolders();

}  // namespace muster

#endif  // MUSTER_WORKER_DEVICE_CUDA_SHARED_LIBRARY_H_
