#include "worker/model/weights.h"

#include <utility>

#include "base/status_macros.h"
#include "worker/model/convert.h"

namespace muster {
namespace {

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kProgressBytes = uint64_t{8} << 20;

int64_t RowsOf(const std::vector<TensorSlice>& slices) {
  int64_t rows = 0;
  for (const TensorSlice& slice : slices) rows += slice.row_shard.size();
  return rows;
}

int64_t ElementsOf(const std::vector<TensorSlice>& slices) {
  int64_t elements = 0;
  for (const TensorSlice& slice : slices) {
    elements += int64_t{slice.row_shard.size()} * slice.column_shard.size();
  }
  return elements;
}

}  // namespace

void WeightLoader::AddMatrix(std::vector<TensorSlice> slices, Matrix* matrix) {
  *matrix = {.n = RowsOf(slices), .k = slices.front().column_shard.size(), .dtype = dtype_};
  targets_.push_back({.slices = std::move(slices), .dtype = dtype_, .matrix = matrix});
}

void WeightLoader::AddVector(std::vector<VectorSlice> slices, const float** vector) {
  Target target = {.dtype = DType::kFloat32, .vector = vector, .one_dimension = true};
  for (VectorSlice& slice : slices) {
    target.slices.push_back({.tensor = std::move(slice.tensor),
                             .rows = 1,
                             .columns = slice.size,
                             .row_shard = {0, 1},
                             .column_shard = slice.shard});
  }
  targets_.push_back(std::move(target));
}

absl::Status WeightLoader::Resolve() {
  for (Target& target : targets_) {
    for (const TensorSlice& slice : target.slices) {
      std::vector<int64_t> shape = {slice.rows, slice.columns};
      if (target.one_dimension) shape = {slice.columns};
      MUSTER_ASSIGN_OR_RETURN(const TensorView view, checkpoint_.Find(slice.tensor, shape));
      target.sources.push_back({.view = view, .slice = slice});
    }
  }
  return absl::OkStatus();
}

uint64_t WeightLoader::Place() {
  uint64_t end = 0;
  for (Target& target : targets_) {
    target.offset = end;
    end += ElementsOf(target.slices) * SizeOf(target.dtype) + kAlignment - 1;
    end -= end % kAlignment;
  }
  return end;
}

void WeightLoader::Publish(const Target& target, std::byte* data) {
  if (target.matrix != nullptr) target.matrix->data = data;
  if (target.vector != nullptr) *target.vector = reinterpret_cast<const float*>(data);
}

absl::StatusOr<Buffer> WeightLoader::Load(Device& device, Ledger& ledger,
                                          const LoadProgress& progress) {
  MUSTER_RETURN_IF_ERROR(Resolve());
  const uint64_t total = Place();
  MUSTER_ASSIGN_OR_RETURN(Buffer buffer, device.Allocate(total, "weights", ledger));
  uint64_t reported = 0;
  for (const Target& target : targets_) {
    std::byte* to = buffer.as<std::byte>() + target.offset;
    Publish(target, to);
    for (const Source& source : target.sources) {
      const ShardRange columns = source.slice.column_shard;
      const int64_t element = SizeOf(source.view.dtype);
      for (int64_t row = source.slice.row_shard.begin; row < source.slice.row_shard.end; ++row) {
        const int64_t first = row * source.slice.columns + columns.begin;
        ConvertElements(source.view.data + first * element, source.view.dtype, to, target.dtype,
                        columns.size());
        to += columns.size() * SizeOf(target.dtype);
        const uint64_t done = to - buffer.as<std::byte>();
        if (progress && done - reported >= kProgressBytes) {
          MUSTER_RETURN_IF_ERROR(progress(reported = done, total));
        }
      }
    }
  }
  if (progress) MUSTER_RETURN_IF_ERROR(progress(total, total));
  return buffer;
}

}  // namespace muster
