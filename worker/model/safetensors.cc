#include "worker/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "worker/model/json_object.h"
#include "worker/model/model_error.h"

namespace muster {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr size_t kMaxDimensions = 8;
constexpr char kMetadata[] = "__metadata__";

struct FormatDType {
  absl::string_view name;
  uint64_t bytes;
  std::optional<DType> dtype;
};

constexpr FormatDType kDTypes[] = {
    {"F32", 4, DType::kFloat32}, {"BF16", 2, DType::kBFloat16}, {"F16", 2, DType::kFloat16},
    {"F64", 8, std::nullopt},    {"I64", 8, std::nullopt},      {"U64", 8, std::nullopt},
    {"I32", 4, std::nullopt},    {"U32", 4, std::nullopt},      {"I16", 2, std::nullopt},
    {"U16", 2, std::nullopt},    {"I8", 1, std::nullopt},       {"U8", 1, std::nullopt},
    {"BOOL", 1, std::nullopt},   {"F8_E4M3", 1, std::nullopt},  {"F8_E5M2", 1, std::nullopt}};

const FormatDType* FindDType(absl::string_view name) {
  for (const FormatDType& dtype : kDTypes) {
    if (dtype.name == name) return &dtype;
  }
  return nullptr;
}

// The product of the shape and the element size; none when it does not fit 64 bits.
std::optional<uint64_t> SpanOf(const std::vector<int64_t>& shape, uint64_t element_bytes) {
  uint64_t span = element_bytes;
  for (int64_t size : shape) {
    if (__builtin_mul_overflow(span, static_cast<uint64_t>(size), &span)) return std::nullopt;
  }
  return span;
}

absl::Status ReadOffsets(const JsonObject& json, TensorEntry& entry) {
  MUSTER_ASSIGN_OR_RETURN(const std::vector<int64_t> offsets,
                          json.Integers("data_offsets", 0, INT64_MAX));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return ModelUnusable(json.place(), ": data_offsets must be two ascending whole numbers");
  }
  entry.begin = static_cast<uint64_t>(offsets[0]);
  entry.end = static_cast<uint64_t>(offsets[1]);
  return absl::OkStatus();
}

absl::StatusOr<TensorEntry> ReadEntry(const JsonObject& json, uint64_t data_bytes) {
  TensorEntry entry;
  MUSTER_ASSIGN_OR_RETURN(entry.dtype_name, json.String("dtype"));
  const FormatDType* dtype = FindDType(entry.dtype_name);
  if (dtype == nullptr) {
    return ModelUnusable(json.place(), ": unknown dtype ", Excerpt(*json.Find("dtype")));
  }
  entry.dtype = dtype->dtype;
  const nlohmann::json* shape = json.Find("shape");
  if (shape == nullptr || !shape->is_array() || shape->size() > kMaxDimensions) {
    return ModelUnusable(json.place(), ": shape must be a list of at most ", kMaxDimensions,
                         " whole numbers");
  }
  MUSTER_ASSIGN_OR_RETURN(entry.shape, json.Integers("shape", 0, INT64_MAX));
  MUSTER_RETURN_IF_ERROR(ReadOffsets(json, entry));
  const std::optional<uint64_t> span = SpanOf(entry.shape, dtype->bytes);
  if (span != entry.end - entry.begin) {
    return ModelUnusable(json.place(), ": shape ", ShapeString(entry.shape), " of ",
                         entry.dtype_name, " does not fill the ", entry.end - entry.begin,
                         " bytes of data_offsets");
  }
  if (entry.end > data_bytes) {
    return ModelUnusable(json.place(), ": ends at byte ", entry.end, " of the data, but there are ",
                         data_bytes, "; the file is truncated");
  }
  return entry;
}

// The tensors' spans must tile [0, data_bytes).
absl::Status CheckTiling(const TensorTable& tensors, uint64_t data_bytes, absl::string_view place) {
  std::vector<const TensorTable::value_type*> ordered;
  for (const auto& tensor : tensors) ordered.push_back(&tensor);
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t end = 0;
  for (const auto* tensor : ordered) {
    const auto& [name, entry] = *tensor;
    if (entry.begin != end) {
      return ModelUnusable(
          place, ": tensor '", name, "' begins at byte ", entry.begin,
          entry.begin < end ? ", inside another that ends at " : ", after a hole from byte ", end);
    }
    end = entry.end;
  }
  if (end == data_bytes) return absl::OkStatus();
  return ModelUnusable(place, ": ", data_bytes - end, " bytes after the last tensor");
}

}  // namespace

std::string ShapeString(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<TensorTable> ParseSafetensorsHeader(absl::string_view json, uint64_t data_bytes,
                                                   absl::string_view place) {
  MUSTER_ASSIGN_OR_RETURN(const auto header, ParseJson(json, place));
  MUSTER_RETURN_IF_ERROR(JsonObject::Create(*header, place).status());
  TensorTable tensors;
  for (const auto& [name, value] : header->items()) {
    if (name == kMetadata) continue;
    MUSTER_ASSIGN_OR_RETURN(
        const JsonObject object,
        JsonObject::Create(value, absl::StrCat(place, ": tensor '", name, "'")));
    MUSTER_ASSIGN_OR_RETURN(tensors[name], ReadEntry(object, data_bytes));
  }
  MUSTER_RETURN_IF_ERROR(CheckTiling(tensors, data_bytes, place));
  return tensors;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path,
                                                                       absl::string_view name) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return ModelIncomplete(name, ": no such file");
  if (fd < 0) return ModelUnusable(name, ": cannot be opened: ", std::strerror(errno));
  struct stat info = {};
  const bool ordinary = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  const uint64_t size = ordinary ? static_cast<uint64_t>(info.st_size) : 0;
  if (size < kLengthBytes) {
    ::close(fd);
    return ModelUnusable(name, ": ", size, " bytes are no safetensors file; truncated?");
  }
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  ::close(fd);
  if (data == MAP_FAILED) {
    return ModelUnusable(name, ": cannot be mapped: ", std::strerror(error));
  }
  auto file = absl::WrapUnique(new SafetensorsFile(static_cast<std::byte*>(data), size, name));
  MUSTER_RETURN_IF_ERROR(file->ReadHeader());
  return file;
}

SafetensorsFile::~SafetensorsFile() { ::munmap(const_cast<std::byte*>(data_), size_); }

absl::string_view SafetensorsFile::header() const {
  return absl::string_view(reinterpret_cast<const char*>(data_) + kLengthBytes,
                           data_begin_ - kLengthBytes);
}

absl::Status SafetensorsFile::ReadHeader() {
  uint64_t length = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) length = length << 8 | std::to_integer<int>(data_[i]);
  if (length > kMaxSafetensorsHeaderBytes) {
    return ModelUnusable(name_, ": header of ", length, " bytes, more than the ",
                         kMaxSafetensorsHeaderBytes, " allowed");
  }
  if (length > size_ - kLengthBytes) {
    return ModelUnusable(name_, ": header of ", length, " bytes reaches beyond the file of ", size_,
                         " bytes; truncated?");
  }
  data_begin_ = kLengthBytes + length;
  MUSTER_ASSIGN_OR_RETURN(tensors_, ParseSafetensorsHeader(header(), size_ - data_begin_, name_));
  return absl::OkStatus();
}

}  // namespace muster
