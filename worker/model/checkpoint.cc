#include "worker/model/checkpoint.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/json_object.h"
#include "worker/model/model_error.h"
#include "worker/model/model_file.h"

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

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& directory) {
  MUSTER_RETURN_IF_ERROR(CheckModelDirectory(directory));
  auto checkpoint = absl::WrapUnique(new Checkpoint());
  MUSTER_ASSIGN_OR_RETURN(const auto index, ReadModelFile(directory, kIndexFile, kMaxIndexBytes));
  if (index.has_value()) {
    MUSTER_RETURN_IF_ERROR(checkpoint->OpenIndex(directory, *index));
    return checkpoint;
  }
  absl::Status status = checkpoint->OpenFile(directory, kSingleFile);
  if (absl::IsNotFound(status)) {
    return ModelIncomplete(directory, ": neither ", kSingleFile, " nor ", kIndexFile);
  }
  MUSTER_RETURN_IF_ERROR(status);
  const SafetensorsFile& file = *checkpoint->files_.at(kSingleFile);
  for (const auto& [name, entry] : file.tensors()) checkpoint->tensors_[name] = &file;
  return checkpoint;
}

absl::Status Checkpoint::OpenFile(const std::string& directory, const std::string& name) {
  if (files_.count(name) != 0) return absl::OkStatus();
  MUSTER_ASSIGN_OR_RETURN(files_[name],
                          SafetensorsFile::Open(absl::StrCat(directory, "/", name), name));
  return absl::OkStatus();
}

absl::Status Checkpoint::OpenIndex(const std::string& directory, absl::string_view json) {
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

absl::Status Checkpoint::AddTensor(const std::string& name, const SafetensorsFile& file) {
  if (file.tensors().count(name) == 0) {
    return ModelUnusable(file.name(), ": tensor '", name, "', which ", kIndexFile,
                         " says is here, is missing");
  }
  tensors_[name] = &file;
  return absl::OkStatus();
}

absl::StatusOr<TensorView> Checkpoint::Find(absl::string_view tensor,
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

uint64_t Checkpoint::tensor_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [name, file] : tensors_) {
    const TensorEntry& entry = file->tensors().find(name)->second;
    bytes += entry.end - entry.begin;
  }
  return bytes;
}

DType Checkpoint::dtype() const {
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

void Checkpoint::AddTo(Digest& digest) const {
  for (const auto& [name, file] : files_) {
    digest.Add(absl::string_view(name));
    digest.Add(file->file_bytes());
    digest.Add(file->header());
  }
}

}  // namespace muster
