#include "worker/model/registry.h"

#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "worker/model/model_error.h"

// One line per architecture, which the file of its name defines.
#define MUSTER_FOR_EACH_ARCHITECTURE(X) \
  X(Llama)                              \
  X(Mistral)                            \
  X(Qwen2)                              \
  X(Qwen3)

namespace muster {

#define MUSTER_DECLARE(name) Architecture name();
MUSTER_FOR_EACH_ARCHITECTURE(MUSTER_DECLARE)

namespace {

absl::Span<const Architecture> Architectures() {
#define MUSTER_LIST(name) name(),
  static const Architecture all[] = {MUSTER_FOR_EACH_ARCHITECTURE(MUSTER_LIST)};
  return all;
}

}  // namespace

const Architecture* FindArchitecture(absl::string_view name) {
  for (const Architecture& architecture : Architectures()) {
    if (name == architecture.name) return &architecture;
  }
  return nullptr;
}

std::string SupportedArchitectures() {
  const auto name = [](std::string* out, const Architecture& it) { out->append(it.name); };
  return absl::StrJoin(Architectures(), ", ", name);
}

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const LoadRequest& request) {
  const Architecture* architecture = FindArchitecture(request.config.architecture);
  if (architecture != nullptr) return architecture->load(request);
  return ModelUnusable("no loader for architecture ", request.config.architecture);
}

}  // namespace muster
