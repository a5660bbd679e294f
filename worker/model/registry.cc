#include "worker/model/registry.h"

#include "worker/model/llama.h"
#include "worker/model/model_error.h"

namespace muster {
namespace {

struct Architecture {
  const char* name;
  absl::StatusOr<std::unique_ptr<LoadedModel>> (*load)(const LoadRequest&);
};

constexpr Architecture kArchitectures[] = {
    {"LlamaForCausalLM", LoadLlama},
};

}  // namespace

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const LoadRequest& request) {
  for (const Architecture& architecture : kArchitectures) {
    if (request.config.architecture == architecture.name) return architecture.load(request);
  }
  return ModelUnusable("no loader for architecture ", request.config.architecture);
}

}  // namespace muster
