#include <cstddef>
#include <cstring>

#include "kernels/gather_rows.h"

namespace muster {

void GatherRowsReference(const RowGatherParams& params, IndexRange outputs) {
  const size_t bytes = static_cast<size_t>(params.hidden) * SizeOf(params.dtype);
  for (int64_t i = outputs.begin; i < outputs.end; ++i) {
    const auto* row = static_cast<const std::byte*>(params.x) + params.index[i] * bytes;
    std::memcpy(static_cast<std::byte*>(params.out) + i * bytes, row, bytes);
  }
}

}  // namespace muster
