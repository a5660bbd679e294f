#include "worker/model/weights.h"

#include <chrono>
#include <utility>

#include "absl/time/time.h"
#include "base/digest.h"
#include "base/status_macros.h"

namespace muster {
namespace {

constexpr uint64_t kAlignment = 256;

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

void WeightLoader::AddMatrix(WeightGroup group, std::vector<TensorSlice> slices, Matrix* matrix) {
  *matrix = {.n = RowsOf(slices), .k = slices.front().column_shard.size(), .dtype = dtype_};
  targets_.push_back(
      {.group = group, .slices = std::move(slices), .dtype = dtype_, .matrix = matrix});
}

void WeightLoader::AddVector(WeightGroup group, std::vector<VectorSlice> slices,
                             const float** vector) {
  Target target = {
      .group = group, .dtype = DType::kFloat32, .vector = vector, .one_dimension = true};
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

uint64_t WeightLoader::Place(WeightGroup group) {
  uint64_t end = 0;
  for (Target& target : targets_) {
    if (target.group != group) continue;
    target.offset = end;
    end += ElementsOf(target.slices) * SizeOf(target.dtype) + kAlignment - 1;
    end -= end % kAlignment;
  }
  return end;
}

uint64_t WeightLoader::KeyOf(WeightGroup group) const {
  Digest digest;
  checkpoint_.AddTo(digest);
  for (const Target& target : targets_) {
    if (target.group != group) continue;
    digest.Add(static_cast<uint64_t>(target.dtype));
    digest.Add(static_cast<uint64_t>(target.slices.size()));
    for (const TensorSlice& slice : target.slices) {
      digest.Add(absl::string_view(slice.tensor));
      for (const int value : {slice.row_shard.begin, slice.row_shard.end, slice.column_shard.begin,
                              slice.column_shard.end}) {
        digest.Add(static_cast<uint64_t>(value));
      }
    }
  }
  return digest.value();
}

void WeightLoader::Publish(WeightGroup group, const WeightMemory& memory) {
  for (const Target& target : targets_) {
    if (target.group != group) continue;
    std::byte* const data = memory.buffer.as<std::byte>() + target.offset;
    if (target.matrix != nullptr) target.matrix->data = data;
    if (target.vector != nullptr) *target.vector = reinterpret_cast<const float*>(data);
  }
}

void WeightLoader::AppendTransfers(WeightGroup group, std::byte* data,
                                   std::vector<WeightTransfer>& transfers) const {
  for (const Target& target : targets_) {
    if (target.group != group) continue;
    std::byte* to = data + target.offset;
    for (const Source& source : target.sources) {
      const TensorSlice& slice = source.slice;
      transfers.push_back({.view = source.view,
                           .tensor_columns = slice.columns,
                           .rows = slice.row_shard,
                           .columns = slice.column_shard,
                           .dtype = target.dtype,
                           .to = to});
      to += ElementsOf({slice}) * SizeOf(target.dtype);
    }
  }
}

absl::StatusOr<HeldWeights> WeightLoader::Load(Device& device, Ledger& ledger,
                                               const HeldWeights* previous,
                                               const LoadProgress& progress) {
  MUSTER_RETURN_IF_ERROR(Resolve());
  HeldWeights held;
  std::vector<WeightTransfer> transfers;
  uint64_t bytes = 0, to_read = 0;
  for (size_t i = 0; i < kWeightGroups; ++i) {
    const auto group = static_cast<WeightGroup>(i);
    const uint64_t size = Place(group), key = KeyOf(group);
    bytes += size;
    if (previous != nullptr && previous->groups[i]->key == key) {
      held.groups[i] = previous->groups[i];
      held.shared_bytes += size;
    } else {
      auto memory = std::make_shared<WeightMemory>();
      MUSTER_ASSIGN_OR_RETURN(memory->buffer, device.Allocate(size, "weights", memory->ledger));
      memory->key = key;
      to_read += size;
      AppendTransfers(group, memory->buffer.as<std::byte>(), transfers);
      held.groups[i] = std::move(memory);
    }
    Publish(group, *held.groups[i]);
  }
  held.charge = LedgerCharge(ledger, "weights", bytes);
  const auto start = std::chrono::steady_clock::now();
  MUSTER_RETURN_IF_ERROR(StreamWeights(transfers, device, [&](uint64_t done) {
    return progress ? progress(done, to_read) : absl::OkStatus();
  }));
  held.read_time = absl::FromChrono(std::chrono::steady_clock::now() - start);
  if (progress) MUSTER_RETURN_IF_ERROR(progress(to_read, to_read));
  return held;
}

}  // namespace muster
