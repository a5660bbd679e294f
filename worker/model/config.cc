#include "worker/model/config.h"

#include <nlohmann/json.hpp>

#include "base/status_macros.h"
#include "worker/model/config_fields.h"
#include "worker/model/config_limits.h"
#include "worker/model/json_object.h"
#include "worker/model/model_error.h"
#include "worker/model/model_file.h"
#include "worker/model/registry.h"

namespace muster {
namespace {

constexpr char kConfigFile[] = "config.json";
constexpr char kGenerationConfigFile[] = "generation_config.json";
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

absl::StatusOr<const Architecture*> ReadArchitecture(const JsonObject& json) {
  const nlohmann::json* names = json.Find("architectures");
  if (names == nullptr || !names->is_array() || names->size() != 1 || !names->front().is_string()) {
    return ModelUnusable(json.place(), ": architectures must be a list of one name");
  }
  const Architecture* found = FindArchitecture(names->front().get_ref<const std::string&>());
  if (found != nullptr) return found;
  return ModelUnusable(json.place(), ": architecture ", Excerpt(names->front()),
                       " is not supported; supported: ", SupportedArchitectures());
}

absl::Status ReadDType(const JsonObject& json, ModelConfig& config) {
  const absl::string_view field = json.Has("dtype") ? "dtype" : "torch_dtype";
  if (!json.Has(field)) return absl::OkStatus();
  MUSTER_ASSIGN_OR_RETURN(const std::string name, json.String(field));
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    if (name == Name(dtype)) config.dtype = dtype;
  }
  if (config.dtype.has_value()) return absl::OkStatus();
  return ModelUnusable(json.place(), ": ", field,
                       " must be one of float32, bfloat16, float16, is '", name, "'");
}

absl::Status ReadEosTokens(const JsonObject& json, ModelConfig& config) {
  MUSTER_ASSIGN_OR_RETURN(const std::vector<int64_t> ids,
                          json.Integers("eos_token_id", -1, kMaxVocabulary));
  if (ids.empty()) return absl::OkStatus();
  config.eos_token_ids.clear();
  for (int64_t id : ids) {
    // Some tokenizers have more ids than the model has rows; such an end token never comes.
    if (id >= 0 && id < config.vocabulary) config.eos_token_ids.push_back(static_cast<int>(id));
  }
  return absl::OkStatus();
}

absl::Status ReadGenerationConfig(absl::string_view text, ModelConfig& config) {
  MUSTER_ASSIGN_OR_RETURN(const auto json, ParseJson(text, kGenerationConfigFile));
  MUSTER_ASSIGN_OR_RETURN(const JsonObject object,
                          JsonObject::Create(*json, kGenerationConfigFile));
  return ReadEosTokens(object, config);
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view text,
                                             absl::string_view generation_config) {
  MUSTER_ASSIGN_OR_RETURN(const auto parsed, ParseJson(text, kConfigFile));
  MUSTER_ASSIGN_OR_RETURN(const JsonObject json, JsonObject::Create(*parsed, kConfigFile));
  ModelConfig config;
  config.json = std::string(text);
  MUSTER_ASSIGN_OR_RETURN(const Architecture* const architecture, ReadArchitecture(json));
  config.architecture = architecture->name;
  if (json.Has("quantization_config")) {
    return ModelUnusable(json.place(), ": quantization_config is not supported");
  }
  MUSTER_RETURN_IF_ERROR(architecture->read(json, config));
  MUSTER_RETURN_IF_ERROR(ReadDType(json, config));
  MUSTER_RETURN_IF_ERROR(ReadEosTokens(json, config));
  if (!generation_config.empty()) {
    MUSTER_RETURN_IF_ERROR(ReadGenerationConfig(generation_config, config));
  }
  MUSTER_RETURN_IF_ERROR(RefuseUnknownFields(json));
  return config;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& directory) {
  MUSTER_RETURN_IF_ERROR(CheckModelDirectory(directory));
  MUSTER_ASSIGN_OR_RETURN(const auto config,
                          ReadModelFile(directory, kConfigFile, kMaxConfigBytes));
  if (!config.has_value()) return ModelIncomplete(directory, ": no ", kConfigFile);
  MUSTER_ASSIGN_OR_RETURN(const auto generation,
                          ReadModelFile(directory, kGenerationConfigFile, kMaxConfigBytes));
  MUSTER_ASSIGN_OR_RETURN(ModelConfig result, ParseModelConfig(*config, generation.value_or("")));
  result.name = DirectoryName(directory);
  return result;
}

}  // namespace muster
