#include "worker/model/rope_config.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "worker/model/config_fields.h"
#include "worker/model/config_limits.h"
#include "worker/model/model_error.h"

namespace muster {
namespace {

constexpr double kTiny = 1e-6;
constexpr double kHuge = 1e12;

using Reader = absl::Status (*)(const JsonObject& json, ModelConfig& config);

absl::Status ReadOriginalLength(const JsonObject& json, RopeConfig& rope,
                                std::optional<int64_t> fallback = std::nullopt) {
  return ReadSize(json, "original_max_position_embeddings", {1, kMaxPositions},
                  rope.original_max_positions, fallback);
}

// The original context times the factor.
int Stretched(const RopeConfig& rope) {
  const double positions = std::floor(rope.original_max_positions * rope.factor);
  return static_cast<int>(std::min<double>(positions, kMaxPositions));
}

absl::Status ReadDefault(const JsonObject& /*json*/, ModelConfig& /*config*/) {
  return absl::OkStatus();
}

absl::Status ReadLinear(const JsonObject& json, ModelConfig& config) {
  config.rope.type = RopeConfig::Type::kLinear;
  MUSTER_ASSIGN_OR_RETURN(config.rope.factor, json.Number("factor", 1.0, kHuge));
  return absl::OkStatus();
}

absl::Status ReadDynamic(const JsonObject& json, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.type = RopeConfig::Type::kDynamic;
  MUSTER_ASSIGN_OR_RETURN(rope.factor, json.Number("factor", 1.0, kHuge));
  MUSTER_RETURN_IF_ERROR(ReadOriginalLength(json, rope, config.max_positions));
  // transformers does not read it here, so that a value of its own would mean two things.
  if (rope.original_max_positions != config.max_positions) {
    return ModelUnusable(json.place(), ": original_max_position_embeddings ",
                         rope.original_max_positions,
                         " must be max_position_embeddings where rope_type is dynamic, which is ",
                         config.max_positions);
  }
  config.max_positions = Stretched(rope);
  return absl::OkStatus();
}

absl::Status ReadLlama3(const JsonObject& json, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.type = RopeConfig::Type::kLlama3;
  MUSTER_ASSIGN_OR_RETURN(rope.factor, json.Number("factor", 1.0, kHuge));
  MUSTER_ASSIGN_OR_RETURN(rope.low_freq_factor, json.Number("low_freq_factor", kTiny, kHuge));
  MUSTER_ASSIGN_OR_RETURN(rope.high_freq_factor, json.Number("high_freq_factor", kTiny, kHuge));
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    return ModelUnusable(json.place(), ": high_freq_factor ", rope.high_freq_factor,
                         " must be above low_freq_factor ", rope.low_freq_factor);
  }
  return ReadOriginalLength(json, rope);
}

// The length of a vector grows with the logarithm of the stretch (Peng et al., 2023, equation 22).
double YarnScale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

absl::Status ReadYarnAttentionFactor(const JsonObject& json, RopeConfig& rope) {
  MUSTER_ASSIGN_OR_RETURN(const double mscale, json.Number("mscale", 0, kHuge, 0));
  MUSTER_ASSIGN_OR_RETURN(const double all_dim, json.Number("mscale_all_dim", 0, kHuge, 0));
  const bool both = mscale != 0 && all_dim != 0;
  const double by_default = both ? YarnScale(rope.factor, mscale) / YarnScale(rope.factor, all_dim)
                                 : YarnScale(rope.factor, 1);
  MUSTER_ASSIGN_OR_RETURN(rope.attention_factor,
                          json.Number("attention_factor", 0, kHuge, by_default));
  return absl::OkStatus();
}

absl::Status ReadYarn(const JsonObject& json, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.type = RopeConfig::Type::kYarn;
  if (rope.theta <= 1) return ModelUnusable(json.place(), ": yarn needs a rope_theta above 1");
  MUSTER_RETURN_IF_ERROR(ReadOriginalLength(json, rope, config.max_positions));
  const double ratio = static_cast<double>(config.max_positions) / rope.original_max_positions;
  MUSTER_ASSIGN_OR_RETURN(rope.factor, json.Number("factor", 1.0, kHuge, ratio));
  MUSTER_ASSIGN_OR_RETURN(rope.beta_fast, json.Number("beta_fast", 0, kHuge, 0));
  MUSTER_ASSIGN_OR_RETURN(rope.beta_slow, json.Number("beta_slow", 0, kHuge, 0));
  if (rope.beta_fast == 0) rope.beta_fast = 32;
  if (rope.beta_slow == 0) rope.beta_slow = 1;
  if (rope.beta_fast < rope.beta_slow) {
    return ModelUnusable(json.place(), ": beta_fast ", rope.beta_fast,
                         " must not be below beta_slow ", rope.beta_slow);
  }
  MUSTER_ASSIGN_OR_RETURN(rope.truncate, json.Boolean("truncate", true));
  config.max_positions = std::max(config.max_positions, Stretched(rope));
  return ReadYarnAttentionFactor(json, rope);
}

struct Kind {
  const char* name;
  Reader read;
};

constexpr Kind kKinds[] = {{"default", ReadDefault},
                           {"linear", ReadLinear},
                           {"dynamic", ReadDynamic},
                           {"llama3", ReadLlama3},
                           {"yarn", ReadYarn}};

// `json` is the object that carries the type: rope_parameters or rope_scaling.
absl::Status ReadKind(const JsonObject& json, ModelConfig& config) {
  MUSTER_ASSIGN_OR_RETURN(const std::string old_name, json.String("type", "default"));
  MUSTER_ASSIGN_OR_RETURN(const std::string type, json.String("rope_type", old_name));
  for (const Kind& kind : kKinds) {
    if (type != kind.name) continue;
    MUSTER_RETURN_IF_ERROR(kind.read(json, config));
    return RefuseUnknownFields(json);
  }
  const auto name = [](std::string* out, const Kind& kind) { out->append(kind.name); };
  return ModelUnusable(json.place(), ": rope_type '", type, "' is not supported; supported are ",
                       absl::StrJoin(kKinds, ", ", name));
}

}  // namespace

absl::Status ReadRope(const JsonObject& json, ModelConfig& config) {
  double& theta = config.rope.theta;
  MUSTER_ASSIGN_OR_RETURN(theta, json.Number("rope_theta", 1.0, kHuge, theta));
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    if (!json.Has(field)) continue;
    MUSTER_ASSIGN_OR_RETURN(const JsonObject object, json.Object(field));
    MUSTER_ASSIGN_OR_RETURN(theta, object.Number("rope_theta", 1.0, kHuge, theta));
    MUSTER_RETURN_IF_ERROR(ReadKind(object, config));
  }
  return absl::OkStatus();
}

}  // namespace muster
