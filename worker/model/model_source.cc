#include "worker/model/model_source.h"

#include <utility>

#include "base/status_macros.h"
#include "worker/model/model_spec.h"

namespace muster {

absl::StatusOr<ModelSource> ModelSource::Open(const std::string& directory,
                                              absl::string_view dtype) {
  ModelSource source;
  MUSTER_ASSIGN_OR_RETURN(source.config, ReadModelConfig(directory));
  MUSTER_ASSIGN_OR_RETURN(source.checkpoint, Checkpoint::Open(directory));
  MUSTER_ASSIGN_OR_RETURN(source.dtype, ChooseDType(dtype, source.config, *source.checkpoint));
  source.spec = ToSpec(source.config, *source.checkpoint, source.dtype);
  return source;
}

}  // namespace muster
