#include "worker/model/checkpoint_writer.h"

#include <cmath>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/model/convert.h"

namespace muster {
namespace {

const char* FormatName(DType dtype) {
  return dtype == DType::kFloat32 ? "F32" : dtype == DType::kBFloat16 ? "BF16" : "F16";
}

std::vector<float> RandomValues(const std::string& name, const std::vector<int64_t>& shape,
                                std::minstd_rand& random) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  const bool norm = shape.size() == 1;
  const bool table = name.find("embed") != std::string::npos || name == "lm_head.weight";
  const float scale = norm ? 0.25f : table ? 0.7f : std::sqrt(6.0f / static_cast<float>(shape[1]));
  std::uniform_real_distribution<float> uniform(-scale, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform(random) + (norm ? 1.0f : 0.0f);
  return values;
}

using Shapes = std::map<std::string, std::vector<int64_t>>;

// Biases and norms of heads of one layer, where it has them.
void AddVectors(const ModelConfig& config, const std::string& layer, Shapes& shapes) {
  const int64_t q = int64_t{config.heads} * config.head_dim;
  const int64_t kv = int64_t{config.kv_heads} * config.head_dim;
  if (config.qkv_bias) {
    shapes[layer + "self_attn.q_proj.bias"] = {q};
    shapes[layer + "self_attn.k_proj.bias"] = {kv};
    shapes[layer + "self_attn.v_proj.bias"] = {kv};
  }
  if (config.o_bias) shapes[layer + "self_attn.o_proj.bias"] = {config.hidden};
  if (config.mlp_bias) {
    shapes[layer + "mlp.gate_proj.bias"] = {config.ffn};
    shapes[layer + "mlp.up_proj.bias"] = {config.ffn};
    shapes[layer + "mlp.down_proj.bias"] = {config.hidden};
  }
  if (config.qk_norm) {
    shapes[layer + "self_attn.q_norm.weight"] = {config.head_dim};
    shapes[layer + "self_attn.k_norm.weight"] = {config.head_dim};
  }
}

}  // namespace

std::string SafetensorsBytes(const NamedTensors& tensors) {
  std::vector<std::string> entries;
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const size_t begin = data.size();
    std::vector<char> bytes(tensor.values.size() * SizeOf(tensor.dtype));
    ConvertElements(reinterpret_cast<const std::byte*>(tensor.values.data()), DType::kFloat32,
                    bytes.data(), tensor.dtype, static_cast<int64_t>(tensor.values.size()));
    data.append(bytes.data(), bytes.size());
    entries.push_back(absl::StrCat("\"", name, "\":{\"dtype\":\"", FormatName(tensor.dtype),
                                   "\",\"shape\":[", absl::StrJoin(tensor.shape, ","),
                                   "],\"data_offsets\":[", begin, ",", data.size(), "]}"));
  }
  const std::string header = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  std::string length;
  for (int i = 0; i < 8; ++i) length.push_back(static_cast<char>(header.size() >> (8 * i)));
  return absl::StrCat(length, header, data);
}

NamedTensors RandomLlama(const ModelConfig& config, DType dtype, uint64_t seed) {
  const int64_t hidden = config.hidden;
  const int64_t q = int64_t{config.heads} * config.head_dim;
  const int64_t kv = int64_t{config.kv_heads} * config.head_dim;
  Shapes shapes = {{"model.embed_tokens.weight", {config.vocabulary, hidden}},
                   {"model.norm.weight", {hidden}}};
  for (int i = 0; i < config.layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    shapes[layer + "input_layernorm.weight"] = {hidden};
    shapes[layer + "self_attn.q_proj.weight"] = {q, hidden};
    shapes[layer + "self_attn.k_proj.weight"] = {kv, hidden};
    shapes[layer + "self_attn.v_proj.weight"] = {kv, hidden};
    shapes[layer + "self_attn.o_proj.weight"] = {hidden, q};
    shapes[layer + "post_attention_layernorm.weight"] = {hidden};
    shapes[layer + "mlp.gate_proj.weight"] = {config.ffn, hidden};
    shapes[layer + "mlp.up_proj.weight"] = {config.ffn, hidden};
    shapes[layer + "mlp.down_proj.weight"] = {hidden, config.ffn};
    AddVectors(config, layer, shapes);
  }
  if (!config.tied_embeddings) shapes["lm_head.weight"] = {config.vocabulary, hidden};
  std::minstd_rand random(static_cast<uint32_t>(seed));
  NamedTensors tensors;
  for (const auto& [name, shape] : shapes) {
    tensors[name] = {.dtype = dtype, .shape = shape, .values = RandomValues(name, shape, random)};
  }
  return tensors;
}

std::string LlamaConfigJson(const ModelConfig& config, DType dtype) {
  return absl::StrCat(
      "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_act\": \"silu\", \"hidden_size\": ",
      config.hidden, ", \"intermediate_size\": ", config.ffn,
      ", \"num_hidden_layers\": ", config.layers, ", \"num_attention_heads\": ", config.heads,
      ", \"num_key_value_heads\": ", config.kv_heads, ", \"head_dim\": ", config.head_dim,
      ", \"vocab_size\": ", config.vocabulary,
      ", \"max_position_embeddings\": ", config.max_positions,
      ", \"rms_norm_eps\": ", config.rms_norm_eps, ", \"rope_theta\": ", config.rope.theta,
      ", \"tie_word_embeddings\": ", config.tied_embeddings ? "true" : "false",
      ", \"torch_dtype\": \"", Name(dtype), "\"}\n");
}

absl::Status WriteFile(const std::string& path, absl::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (file.good()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path));
}

}  // namespace muster
