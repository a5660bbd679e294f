#include "worker/model/model_source.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/dummy_checkpoint.h"
#include "worker/model/model_spec.h"

namespace muster {

namespace {

absl::StatusOr<std::unique_ptr<const Checkpoint>> OpenWeights(const ModelSource::Options& options,
                                                              const ModelConfig& config) {
  if (options.load_format == LoadFormat::kDummy) return std::make_unique<DummyCheckpoint>(config);
  return Checkpoint::Open(options.directory);
}

}  // namespace

absl::StatusOr<LoadFormat> ParseLoadFormat(absl::string_view text) {
  if (text == "dummy") return LoadFormat::kDummy;
  if (text == "auto" || text == "safetensors") return LoadFormat::kSafetensors;
  return absl::InvalidArgumentError(
      absl::StrCat("load format '", text, "' is none of auto, safetensors, dummy"));
}

absl::StatusOr<ModelSource> ModelSource::Open(const Options& options) {
  ModelSource source;
  MUSTER_ASSIGN_OR_RETURN(source.config, ReadModelConfig(options.directory));
  MUSTER_ASSIGN_OR_RETURN(source.checkpoint, OpenWeights(options, source.config));
  MUSTER_ASSIGN_OR_RETURN(source.dtype, ChooseDType(options.dtype, source.config,
                                                    *source.checkpoint, options.has_float16));
  source.spec = ToSpec(source.config, *source.checkpoint, source.dtype);
  return source;
}

}  // namespace muster
