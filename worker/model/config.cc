#include "worker/model/config.h"

#include <nlohmann/json.hpp>

#include "absl/algorithm/container.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "worker/model/json_object.h"
#include "worker/model/model_error.h"
#include "worker/model/model_file.h"

namespace muster {
namespace {

constexpr char kConfigFile[] = "config.json";
constexpr char kGenerationConfigFile[] = "generation_config.json";
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxWidth = int64_t{1} << 22;  // hidden, ffn, heads * head_dim
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 256;
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
constexpr int64_t kMaxPositions = int64_t{1} << 24;
constexpr double kHuge = 1e12;

absl::Status ReadSize(const JsonObject& json, absl::string_view field, int64_t max, int& size,
                      std::optional<int64_t> fallback = std::nullopt) {
  MUSTER_ASSIGN_OR_RETURN(const int64_t value, json.Integer(field, 1, max, fallback));
  size = static_cast<int>(value);
  return absl::OkStatus();
}

absl::Status ReadArchitecture(const JsonObject& json, ModelConfig& config) {
  const nlohmann::json* names = json.Find("architectures");
  if (names == nullptr || !names->is_array() || names->size() != 1 || !names->front().is_string()) {
    return ModelUnusable(json.place(), ": architectures must be a list of one name");
  }
  config.architecture = names->front().get<std::string>();
  if (absl::c_linear_search(kSupportedArchitectures, config.architecture)) return absl::OkStatus();
  return ModelUnusable(
      json.place(), ": architecture ", Excerpt(names->front()),
      " is not supported; supported: ", absl::StrJoin(kSupportedArchitectures, ", "));
}

absl::Status ReadShape(const JsonObject& json, ModelConfig& config) {
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "num_hidden_layers", kMaxLayers, config.layers));
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "hidden_size", kMaxWidth, config.hidden));
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "intermediate_size", kMaxWidth, config.ffn));
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "vocab_size", kMaxVocabulary, config.vocabulary));
  MUSTER_RETURN_IF_ERROR(
      ReadSize(json, "max_position_embeddings", kMaxPositions, config.max_positions));
  MUSTER_RETURN_IF_ERROR(ReadSize(json, "num_attention_heads", kMaxHeads, config.heads));
  MUSTER_RETURN_IF_ERROR(
      ReadSize(json, "num_key_value_heads", kMaxHeads, config.kv_heads, config.heads));
  if (config.heads % config.kv_heads != 0) {
    return ModelUnusable(json.place(), ": num_key_value_heads ", config.kv_heads,
                         " does not divide num_attention_heads ", config.heads);
  }
  if (!json.Has("head_dim") && config.hidden % config.heads != 0) {
    return ModelUnusable(json.place(), ": there is no head_dim, and num_attention_heads ",
                         config.heads, " does not divide hidden_size ", config.hidden);
  }
  MUSTER_RETURN_IF_ERROR(
      ReadSize(json, "head_dim", kMaxHeadDim, config.head_dim, config.hidden / config.heads));
  if (config.head_dim > kMaxHeadDim || config.head_dim % 2 != 0) {
    return ModelUnusable(json.place(), ": head_dim must be even and at most ", kMaxHeadDim, ", is ",
                         config.head_dim);
  }
  return absl::OkStatus();
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

absl::Status ReadLlama3Rope(const JsonObject& json, RopeConfig& rope) {
  rope.type = RopeConfig::Type::kLlama3;
  MUSTER_ASSIGN_OR_RETURN(rope.factor, json.Number("factor", 1.0, kHuge));
  MUSTER_ASSIGN_OR_RETURN(rope.low_freq_factor, json.Number("low_freq_factor", 1e-6, kHuge));
  MUSTER_ASSIGN_OR_RETURN(rope.high_freq_factor, json.Number("high_freq_factor", 1e-6, kHuge));
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    return ModelUnusable(json.place(), ": high_freq_factor ", rope.high_freq_factor,
                         " must be above low_freq_factor ", rope.low_freq_factor);
  }
  return ReadSize(json, "original_max_position_embeddings", kMaxPositions,
                  rope.original_max_positions);
}

// `json` is the object that carries the type: rope_parameters or rope_scaling.
absl::Status ReadRopeType(const JsonObject& json, RopeConfig& rope) {
  MUSTER_ASSIGN_OR_RETURN(const std::string old_name, json.String("type", "default"));
  MUSTER_ASSIGN_OR_RETURN(const std::string type, json.String("rope_type", old_name));
  if (type == "default") return absl::OkStatus();
  if (type == "llama3") return ReadLlama3Rope(json, rope);
  return ModelUnusable(json.place(), ": rope_type '", type,
                       "' is not supported; supported are default and llama3");
}

absl::Status ReadRope(const JsonObject& json, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  MUSTER_ASSIGN_OR_RETURN(rope.theta, json.Number("rope_theta", 1.0, kHuge, rope.theta));
  MUSTER_ASSIGN_OR_RETURN(const double rotated, json.Number("partial_rotary_factor", 0, 1, 1.0));
  if (rotated != 1.0) {
    return ModelUnusable(json.place(), ": partial_rotary_factor ", rotated, " is not supported");
  }
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    if (!json.Has(field)) continue;
    MUSTER_ASSIGN_OR_RETURN(const JsonObject object, json.Object(field));
    MUSTER_ASSIGN_OR_RETURN(rope.theta, object.Number("rope_theta", 1.0, kHuge, rope.theta));
    MUSTER_RETURN_IF_ERROR(ReadRopeType(object, rope));
  }
  return absl::OkStatus();
}

absl::Status RefuseUnsupported(const JsonObject& json) {
  for (const char* field : {"attention_bias", "mlp_bias"}) {
    MUSTER_ASSIGN_OR_RETURN(const bool biased, json.Boolean(field, false));
    if (biased) return ModelUnusable(json.place(), ": ", field, " true is not supported");
  }
  MUSTER_ASSIGN_OR_RETURN(const std::string activation, json.String("hidden_act", "silu"));
  if (activation != "silu") {
    return ModelUnusable(json.place(), ": hidden_act '", activation,
                         "' is not supported; supported is silu");
  }
  if (json.Has("quantization_config")) {
    return ModelUnusable(json.place(), ": quantization_config is not supported");
  }
  return absl::OkStatus();
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
  MUSTER_RETURN_IF_ERROR(ReadArchitecture(json, config));
  MUSTER_RETURN_IF_ERROR(RefuseUnsupported(json));
  MUSTER_RETURN_IF_ERROR(ReadShape(json, config));
  MUSTER_RETURN_IF_ERROR(ReadRope(json, config));
  MUSTER_RETURN_IF_ERROR(ReadDType(json, config));
  MUSTER_ASSIGN_OR_RETURN(config.rms_norm_eps, json.Number("rms_norm_eps", 1e-30, 1, 1e-6));
  MUSTER_ASSIGN_OR_RETURN(config.tied_embeddings, json.Boolean("tie_word_embeddings", false));
  MUSTER_RETURN_IF_ERROR(ReadEosTokens(json, config));
  if (!generation_config.empty()) {
    MUSTER_RETURN_IF_ERROR(ReadGenerationConfig(generation_config, config));
  }
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
