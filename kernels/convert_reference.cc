#include "kernels/convert.h"
#include "kernels/reference.h"

namespace muster {

void ConvertReference(const ElementConversion& params, IndexRange elements) {
  for (int64_t i = elements.begin; i < elements.end; ++i) {
    StoreElement(LoadElement(params.from_dtype, params.from, i), params.to_dtype, params.to, i);
  }
}

}  // namespace muster
