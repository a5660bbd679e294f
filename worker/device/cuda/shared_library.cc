#include "worker/device/cuda/shared_library.h"

#include <dlfcn.h>
#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace muster {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<std::string> Split(const std::string& paths) {
  return absl::StrSplit(paths, ':', absl::SkipEmpty());
}

// Appends what exists of `pattern`, without what is there already.
void Glob(const std::string& pattern, std::vector<std::string>& to) {
  glob_t found;
  if (glob(pattern.c_str(), GLOB_ONLYDIR, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) {
      const std::string folder = found.gl_pathv[i];
      if (std::find(to.begin(), to.end(), folder) == to.end()) to.push_back(folder);
    }
  }
  globfree(&found);
}

// Folders above lib/python3.x.
std::vector<std::string> PythonPrefixes() {
  std::vector<std::string> prefixes;
  for (const std::string& folder : Split(Environment("PATH"))) {
    if (access(absl::StrCat(folder, "/python3").c_str(), X_OK) == 0) {
      prefixes.push_back(absl::StrCat(folder, "/.."));
    }
  }
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const std::string prefix = Environment(name); !prefix.empty()) prefixes.push_back(prefix);
  }
  if (const std::string home = Environment("HOME"); !home.empty()) {
    prefixes.push_back(absl::StrCat(home, "/.local"));
  }
  prefixes.insert(prefixes.end(), {"/usr/local", "/usr"});
  return prefixes;
}

// Opens one file or soname; what went wrong is appended to `failures` if something is there.
void* Load(const std::string& path, bool is_file, std::vector<std::string>& failures) {
  if (is_file && access(path.c_str(), F_OK) != 0) return nullptr;
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr && is_file) failures.push_back(dlerror());
  return handle;
}

absl::Status NotFound(absl::string_view name, const std::vector<std::string>& sonames,
                      const std::vector<std::string>& folders,
                      const std::vector<std::string>& failures) {
  std::string text = absl::StrCat(
      name, " was not found: looked for ", absl::StrJoin(sonames, ", "),
      " by the loader's search (", "LD_LIBRARY_PATH='", Environment("LD_LIBRARY_PATH"),
      "') and in ", folders.empty() ? "no other folder" : absl::StrJoin(folders, ", "),
      "; MUSTER_CUDA_LIBRARY_PATH='", Environment("MUSTER_CUDA_LIBRARY_PATH"), "' may name more");
  if (!failures.empty()) {
    absl::StrAppend(&text, "; could not be loaded: ", absl::StrJoin(failures, "; "));
  }
  return absl::UnavailableError(text);
}

}  // namespace

absl::StatusOr<SharedLibrary> SharedLibrary::Open(absl::string_view name,
                                                  const std::vector<std::string>& sonames,
                                                  const std::vector<std::string>& extra_folders) {
  std::vector<std::string> folders = extra_folders;
  for (std::string& folder : CudaLibraryFolders()) folders.push_back(std::move(folder));
  std::vector<std::string> failures;
  for (const std::string& soname : sonames) {
    if (void* handle = Load(soname, /*is_file=*/false, failures)) {
      return SharedLibrary(name, soname, handle);
    }
    for (const std::string& folder : folders) {
      const std::string path = absl::StrCat(folder, "/", soname);
      if (void* handle = Load(path, /*is_file=*/true, failures)) {
        return SharedLibrary(name, path, handle);
      }
    }
  }
  return NotFound(name, sonames, folders, failures);
}

absl::StatusOr<void*> SharedLibrary::Address(const char* symbol) const {
  void* address = dlsym(handle_, symbol);
  if (address != nullptr) return address;
  return absl::UnavailableError(
      absl::StrCat(name_, " of another version than wanted: ", path_, " has no ", symbol));
}

std::vector<std::string> CudaLibraryFolders() {
  std::vector<std::string> folders;
  for (const std::string& folder : Split(Environment("MUSTER_CUDA_LIBRARY_PATH"))) {
    Glob(folder, folders);
  }
  if (const std::string home = Environment("CUDA_HOME"); !home.empty()) {
    Glob(absl::StrCat(home, "/lib64"), folders);
  }
  Glob("/usr/local/cuda/lib64", folders);
  for (const std::string& prefix : PythonPrefixes()) {
    for (const char* packages : {"python3*/site-packages", "python3*/dist-packages"}) {
      Glob(absl::StrCat(prefix, "/lib/", packages, "/nvidia/*/lib"), folders);
    }
  }
  return folders;
}

}  // namespace muster
