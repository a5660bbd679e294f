#include "worker/model/checkpoint.h"

#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/json_object.h"
#include "worker/model/model_error.h"
#include "worker/model/model_file.h"
#include "worker/model/safetensors.h"

namespace muster {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr size_t kMaxIndexBytes = size_t{64} << 20;
constexpr size_t kMaxFiles = 4096;

// A file of the same directory, and no other.
bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

class SafetensorsCheckpoint final : public Checkpoint {
 public:
  absl::Status OpenAll(const std::string& directory);

  absl::StatusOr<TensorView> Find(absl::string_view tensor,
                                  const std::vector<int64_t>& shape) const override;
  DType dtype() const override;
  void AddTo(Digest& digest) const override;

 private:
  absl::Status OpenFile(const std::string& directory, const std::string& name);
  absl::Status OpenIndex(const std::string& directory, absl::string_view json);
  absl::Status AddTensor(const std::string& name, const SafetensorsFile& file);

  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*, std::less<>> tensors_;
};

absl::Status SafetensorsCheckpoint::OpenAll(const std::string& directory) {
  MUSTER_RETURN_IF_ERROR(CheckModelDirectory(directory));
  MUSTER_ASSIGN_OR_RETURN(const auto index, ReadModelFile(directory, kIndexFile, kMaxIndexBytes));
  if (index.has_value()) return OpenIndex(directory, *index);
  absl::Status status = OpenFile(directory, kSingleFile);
  if (absl::IsNotFound(status)) {
    return ModelIncomplete(directory, ": neither ", kSingleFile, " nor ", kIndexFile);
  }
  MUSTER_RETURN_IF_ERROR(status);
  const SafetensorsFile& file = *files_.at(kSingleFile);
  for (const auto& [name, entry] : file.tensors()) tensors_[name] = &file;
  return absl::OkStatus();
}

absl::Status SafetensorsCheckpoint::OpenFile(const std::string& directory,
                                             const std::string& name) {
  if (files_.count(name) != 0) return absl::OkStatus();
  MUSTER_ASSIGN_OR_RETURN(files_[name],
                          SafetensorsFile::Open(absl::StrCat(directory, "/", name), name));
  return absl::OkStatus();
}

absl::Status SafetensorsCheckpoint::OpenIndex(const std::string& directory,
                                              absl::string_view json) {
  MUSTER_ASSIGN_OR_RETURN(const auto parsed, ParseJson(json, kIndexFile));
  MUSTER_ASSIGN_OR_RETURN(const JsonObject index, JsonObject::Create(*parsed, kIndexFile));
  MUSTER_ASSIGN_OR_RETURN(const JsonObject map, index.Object("weight_map"));
  for (const auto& [tensor, value] : index.Find("weight_map")->items()) {
    MUSTER_ASSIGN_OR_RETURN(const std::string file, map.String(tensor));
    if (!IsPlainName(file)) {
      return ModelUnusable(map.place(), ": ", tensor, " lies in ", Excerpt(value),
                           ", which is no file of this directory");
    }
    if (files_.size() >= kMaxFiles) {
      return ModelUnusable(map.place(), ": more than ", kMaxFiles, " files");
    }
    MUSTER_RETURN_IF_ERROR(OpenFile(directory, file));
    MUSTER_RETURN_IF_ERROR(AddTensor(tensor, *files_.at(file)));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsCheckpoint::AddTensor(const std::string& name,
                                              const SafetensorsFile& file) {
  if (file.tensors().count(name) == 0) {
    return ModelUnusable(file.name(), ": tensor '", name, "', which ", kIndexFile,
                         " says is here, is missing");
  }
  tensors_[name] = &file;
  return absl::OkStatus();
}

absl::StatusOr<TensorView> SafetensorsCheckpoint::Find(absl::string_view tensor,
                                                       const std::vector<int64_t>& shape) const {
  const auto it = tensors_.find(tensor);
  if (it == tensors_.end()) {
    const std::string where = files_.size() == 1 ? files_.begin()->first : kIndexFile;
    return ModelIncomplete(where, ": tensor '", tensor, "' is missing");
  }
  const SafetensorsFile& file = *it->second;
  const TensorEntry& entry = file.tensors().find(tensor)->second;
  if (entry.shape != shape) {
    return ModelUnusable(file.name(), ": tensor '", tensor, "' has shape ",
                         ShapeString(entry.shape), ", config.json asks for ", ShapeString(shape));
  }
  if (!entry.dtype.has_value()) {
    return ModelUnusable(file.name(), ": tensor '", tensor, "' is ", entry.dtype_name,
                         "; supported: BF16, F16, F32");
  }
  return TensorView{.dtype = *entry.dtype, .shape = entry.shape, .data = file.data(entry)};
}

DType SafetensorsCheckpoint::dtype() const {
  std::map<DType, uint64_t> bytes;
  for (const auto& [name, file] : tensors_) {
    const TensorEntry& entry = file->tensors().find(name)->second;
    if (entry.dtype.has_value()) bytes[*entry.dtype] += entry.end - entry.begin;
  }
  DType most = DType::kFloat32;
  for (const auto& [dtype, count] : bytes) {
    if (count > bytes[most]) most = dtype;
  }
  return most;
}

void SafetensorsCheckpoint::AddTo(Digest& digest) const {
  for (const auto& [name, file] : files_) {
    digest.Add(absl::string_view(name));
    digest.Add(file->file_bytes());
    digest.Add(file->header());
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& directory) {
  auto checkpoint = std::make_unique<SafetensorsCheckpoint>();
  MUSTER_RETURN_IF_ERROR(checkpoint->OpenAll(directory));
  return checkpoint;
}

}  // namespace muster
