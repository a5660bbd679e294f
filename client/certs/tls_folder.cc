#include "client/certs/tls_folder.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/certs/new_file.h"

namespace muster::certs {
namespace {

constexpr char kVersionPrefix[] = "..version.";

absl::Status Failed(absl::string_view what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot ", what, " ", path));
}

absl::Status MakeDirectory(const std::string& directory) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(directory + "/").parent_path();
  if (parent.has_parent_path()) std::filesystem::create_directories(parent.parent_path(), error);
  if (mkdir(directory.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno != EEXIST) return Failed("create", directory);
  if (std::filesystem::is_directory(directory, error)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(directory, " is no folder"));
}

// Where `path` leads as it stands there; empty if it is no link.
std::string LinkAt(const std::string& path) {
  std::error_code error;
  const std::filesystem::path target = std::filesystem::read_symlink(path, error);
  return error ? "" : target.string();
}

// In one step, whatever was there.
absl::Status ReplaceByLink(const std::string& path, const std::string& target) {
  const std::string draft = path + ".new";
  unlink(draft.c_str());
  if (symlink(target.c_str(), draft.c_str()) != 0 || rename(draft.c_str(), path.c_str()) != 0) {
    const absl::Status status = Failed("write", path);
    unlink(draft.c_str());
    return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteTlsFolder(const std::string& directory, const Credentials& credentials) {
  MUSTER_RETURN_IF_ERROR(MakeDirectory(directory));
  std::string version = absl::StrCat(directory, "/", kVersionPrefix, "XXXXXX");
  if (mkdtemp(version.data()) == nullptr) return Failed("write into", directory);
  std::string unused = version;
  const absl::Cleanup removed = [&unused] {
    std::error_code error;
    if (!unused.empty()) std::filesystem::remove_all(unused, error);
  };
  MUSTER_RETURN_IF_ERROR(WriteNewFile(version + "/tls.key", credentials.key, 0600));
  MUSTER_RETURN_IF_ERROR(WriteNewFile(version + "/tls.crt", credentials.certificate, 0644));
  MUSTER_RETURN_IF_ERROR(WriteNewFile(version + "/ca.crt", credentials.authority, 0644));
  const std::string data = directory + "/..data";
  const std::string former = LinkAt(data);
  MUSTER_RETURN_IF_ERROR(ReplaceByLink(data, std::filesystem::path(version).filename()));
  unused = absl::StartsWith(former, kVersionPrefix) ? absl::StrCat(directory, "/", former) : "";
  for (const char* name : {"tls.key", "tls.crt", "ca.crt"}) {
    const std::string target = absl::StrCat("..data/", name);
    const std::string path = absl::StrCat(directory, "/", name);
    if (LinkAt(path) != target) MUSTER_RETURN_IF_ERROR(ReplaceByLink(path, target));
  }
  return absl::OkStatus();
}

}  // namespace muster::certs
