#include "worker/model/model_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "worker/model/model_error.h"

namespace muster {

absl::Status CheckModelDirectory(const std::string& directory) {
  std::error_code error;
  if (std::filesystem::is_directory(directory, error)) return absl::OkStatus();
  return ModelIncomplete(
      "model directory '", directory, "' ",
      std::filesystem::exists(directory, error) ? "is not a directory" : "does not exist");
}

std::string DirectoryName(const std::string& directory) {
  const std::filesystem::path path = std::filesystem::path(directory).lexically_normal();
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

absl::StatusOr<std::optional<std::string>> ReadModelFile(const std::string& directory,
                                                         const std::string& name,
                                                         size_t max_bytes) {
  const std::filesystem::path path = std::filesystem::path(directory) / name;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  if (!std::filesystem::is_regular_file(path, error)) {
    return ModelUnusable(name, ": not an ordinary file");
  }
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error || bytes > max_bytes) {
    return ModelUnusable(name, ": ", bytes, " bytes, more than the ", max_bytes, " allowed");
  }
  std::string text(bytes, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(text.data(), static_cast<std::streamsize>(bytes))) {
    return ModelUnusable(name, ": cannot be read: ", std::strerror(errno));
  }
  return text;
}

}  // namespace muster
