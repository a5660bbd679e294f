#include "worker/engine/step.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/status_macros.h"

namespace muster {
namespace {

static_assert(std::endian::native == std::endian::little, "steps are little-endian");

constexpr uint32_t kMagic = 0x5054534d;  // "MSTP"

// Each is stamped as soon as it is made.
constexpr int kMaxForks = 1;

// Every slice of a step may replace the block that it begins in.
int64_t MaxBlocks(const StepLimits& limits) {
  return std::max<int64_t>(int64_t{limits.max_rows} + limits.max_outputs, Step::kMaxMoves);
}

// The fixed part; counts of the arrays that follow, in this order.
struct Header {
  uint32_t magic = kMagic;
  uint32_t rows = 0;
  uint64_t epoch = 0;
  uint64_t number = 0;
  int32_t bucket = 0;
  int32_t output_bucket = 0;
  uint32_t freed_slots = 0;
  uint32_t new_slots = 0;
  uint32_t blocks = 0;
  uint32_t outputs = 0;
  uint32_t forks = 0;
  int32_t first_layer = 0;
  int32_t end_layer = 0;
  int32_t from_hidden = 0;
  int32_t hidden_of = 0;
  StepKind kind = StepKind::kRun;
  uint32_t moves = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(Header) == 80, "no padding");
static_assert(sizeof(StepRow) == 12 && sizeof(StepFork) == 12 && sizeof(StepBlock) == 16 &&
                  sizeof(StepOutput) == 32 && sizeof(StepMove) == 20,
              "no padding");

template <typename T>
void Append(const std::vector<T>& values, std::string& bytes) {
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <typename T>
void Take(absl::string_view& bytes, uint32_t count, std::vector<T>& values) {
  values.resize(count);
  if (count != 0) std::memcpy(values.data(), bytes.data(), count * sizeof(T));
  bytes.remove_prefix(count * sizeof(T));
}

uint64_t DigestOf(absl::string_view bytes) {
  Digest digest;
  digest.Add(bytes);
  return digest.value();
}

// Of a step with these counts, the digest included. At most 2^39.
uint64_t EncodedBytes(const Header& header) {
  return sizeof(Header) + sizeof(uint64_t) +
         sizeof(int32_t) * (uint64_t{header.freed_slots} + header.new_slots) +
         sizeof(StepFork) * uint64_t{header.forks} + sizeof(StepBlock) * uint64_t{header.blocks} +
         sizeof(StepRow) * uint64_t{header.rows} + sizeof(StepOutput) * uint64_t{header.outputs} +
         sizeof(StepMove) * uint64_t{header.moves};
}

absl::Status CheckCount(const char* what, uint64_t count, int64_t limit) {
  if (limit >= 0 && count <= static_cast<uint64_t>(limit)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a step with ", count, " ", what, "; at most ", limit, " are possible"));
}

absl::Status CheckIndex(const char* what, int64_t index, int64_t count) {
  if (index >= 0 && index < count) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a step names ", what, " ", index, "; there are ", count));
}

absl::Status CheckCounts(const Header& header, const StepLimits& limits) {
  MUSTER_RETURN_IF_ERROR(CheckCount("rows", header.rows, limits.max_rows));
  MUSTER_RETURN_IF_ERROR(CheckCount("freed slots", header.freed_slots, limits.max_sequences));
  MUSTER_RETURN_IF_ERROR(CheckCount("new slots", header.new_slots, limits.max_sequences));
  MUSTER_RETURN_IF_ERROR(CheckCount("forks", header.forks, kMaxForks));
  MUSTER_RETURN_IF_ERROR(CheckCount("new KV blocks", header.blocks, MaxBlocks(limits)));
  MUSTER_RETURN_IF_ERROR(CheckCount("moves", header.moves, Step::kMaxMoves));
  return CheckCount("outputs", header.outputs, limits.max_outputs);
}

absl::Status CheckRows(const Step& step, const StepBounds& bounds) {
  for (const StepRow& row : step.rows) {
    MUSTER_RETURN_IF_ERROR(CheckIndex("token", row.token, bounds.vocabulary));
    MUSTER_RETURN_IF_ERROR(CheckIndex("slot", row.slot, bounds.limits.max_sequences));
    MUSTER_RETURN_IF_ERROR(CheckIndex("position", row.position, bounds.max_positions));
  }
  return absl::OkStatus();
}

absl::Status CheckOutputs(const Step& step) {
  for (const StepOutput& output : step.outputs) {
    MUSTER_RETURN_IF_ERROR(
        CheckIndex("output row", output.row, static_cast<int64_t>(step.rows.size())));
    MUSTER_RETURN_IF_ERROR(
        CheckIndex("candidate count", output.candidates, Step::kMaxCandidates + 1));
    MUSTER_RETURN_IF_ERROR(CheckIndex("kind of output", static_cast<int64_t>(output.kind), 4));
    if (!std::isfinite(output.inverse_temperature)) {
      return absl::InvalidArgumentError("a step with a temperature that is no finite number");
    }
    if (!(output.top_p > 0 && output.top_p <= 1)) {
      return absl::InvalidArgumentError(absl::StrCat("a step with top_p ", output.top_p,
                                                     ", which must be above 0 and at most 1"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckBlocks(const Step& step, const StepBounds& bounds) {
  const int64_t blocks = int64_t{bounds.limits.max_local_blocks} * bounds.cp;
  for (const StepFork& fork : step.forks) {
    MUSTER_RETURN_IF_ERROR(CheckIndex("slot", fork.slot, bounds.limits.max_sequences));
    MUSTER_RETURN_IF_ERROR(CheckIndex("parent slot", fork.parent, bounds.limits.max_sequences));
    MUSTER_RETURN_IF_ERROR(CheckIndex("KV block of a sequence", fork.blocks - 1, blocks));
  }
  for (const StepBlock& block : step.blocks) {
    MUSTER_RETURN_IF_ERROR(CheckIndex("slot", block.slot, bounds.limits.max_sequences));
    MUSTER_RETURN_IF_ERROR(CheckIndex("KV block of a sequence", block.block, blocks));
    MUSTER_RETURN_IF_ERROR(CheckIndex("KV block", block.arena, bounds.arena_blocks));
    MUSTER_RETURN_IF_ERROR(CheckIndex("kind of KV block", block.replaces, 2));
  }
  return absl::OkStatus();
}

absl::Status CheckLayers(const Step& step, const StepBounds& bounds) {
  const auto [begin, end] = step.layers;
  const bool kept = step.hidden_of == -1 || (step.hidden_of >= begin && step.hidden_of <= end);
  const bool entered = step.from_hidden == 1 || (step.from_hidden == 0 && begin == 0);
  if (begin >= 0 && begin <= end && end <= bounds.layers && kept && entered &&
      (step.outputs.empty() || end == bounds.layers)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a step through layers ", begin, " to ", end, " of ", bounds.layers, " with ",
                   step.outputs.size(), " outputs, kind of input ", step.from_hidden, " and layer ",
                   step.hidden_of, " to keep"));
}

// Each kind has its parts and no others.
absl::Status CheckParts(const Step& step) {
  const bool run = step.kind == StepKind::kRun;
  const bool pull = step.kind == StepKind::kPull;
  const bool moves = pull || step.kind == StepKind::kSeal;
  if (step.kind < StepKind::kRun || step.kind > StepKind::kPull) {
    return absl::InvalidArgumentError(
        absl::StrCat("a step of kind ", static_cast<int32_t>(step.kind)));
  }
  const bool ran = !step.rows.empty() || !step.outputs.empty() || !step.forks.empty();
  const bool changed = !step.freed_slots.empty() || !step.new_slots.empty() || !step.blocks.empty();
  if ((run || !ran) && (run || pull || !changed) && (moves || step.moves.empty())) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("a step of kind ", static_cast<int32_t>(step.kind),
                                                 " with parts that are another kind's"));
}

absl::Status CheckBuckets(const Step& step, const StepBounds& bounds) {
  const int rows = static_cast<int>(step.rows.size());
  const int outputs = static_cast<int>(step.outputs.size());
  const bool some = rows > 0 || (!step.forks.empty() && outputs == 0);
  if (some && step.bucket == (rows == 0 ? 0 : BucketOf(rows)) &&
      step.bucket <= bounds.limits.max_rows &&
      step.output_bucket == (outputs == 0 ? 0 : BucketOf(outputs)) &&
      step.output_bucket <= bounds.limits.max_outputs) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("a step of ", rows, " rows and ", outputs,
                                                 " outputs in a bucket of ", step.bucket,
                                                 " rows and ", step.output_bucket, " outputs"));
}

// Of a kSeal the sources are this epoch's, of a kPull the targets are.
absl::Status CheckMoves(const Step& step, const StepBounds& bounds) {
  const bool seal = step.kind == StepKind::kSeal;
  for (const StepMove& move : step.moves) {
    MUSTER_RETURN_IF_ERROR(CheckIndex("cp rank", move.from, seal ? bounds.cp : bounds.other_cp));
    MUSTER_RETURN_IF_ERROR(CheckIndex("KV block", move.from_arena, bounds.arena_blocks));
    if (seal) continue;
    MUSTER_RETURN_IF_ERROR(CheckIndex("cp rank", move.to, bounds.cp));
    MUSTER_RETURN_IF_ERROR(CheckIndex("KV block", move.to_arena, bounds.arena_blocks));
  }
  return absl::OkStatus();
}

}  // namespace

size_t MaxStepBytes(const StepLimits& limits) {
  Header header;
  header.rows = static_cast<uint32_t>(limits.max_rows);
  header.forks = kMaxForks;
  header.blocks = static_cast<uint32_t>(MaxBlocks(limits));
  header.freed_slots = header.new_slots = static_cast<uint32_t>(limits.max_sequences);
  header.outputs = static_cast<uint32_t>(limits.max_outputs);
  header.moves = Step::kMaxMoves;
  return EncodedBytes(header);
}

void EncodeStep(const Step& step, std::string& bytes) {
  const Header header{.rows = static_cast<uint32_t>(step.rows.size()),
                      .epoch = step.epoch.value(),
                      .number = step.number.value(),
                      .bucket = step.bucket,
                      .output_bucket = step.output_bucket,
                      .freed_slots = static_cast<uint32_t>(step.freed_slots.size()),
                      .new_slots = static_cast<uint32_t>(step.new_slots.size()),
                      .blocks = static_cast<uint32_t>(step.blocks.size()),
                      .outputs = static_cast<uint32_t>(step.outputs.size()),
                      .forks = static_cast<uint32_t>(step.forks.size()),
                      .first_layer = step.layers.begin,
                      .end_layer = step.layers.end,
                      .from_hidden = step.from_hidden,
                      .hidden_of = step.hidden_of,
                      .kind = step.kind,
                      .moves = static_cast<uint32_t>(step.moves.size())};
  bytes.assign(reinterpret_cast<const char*>(&header), sizeof(header));
  Append(step.freed_slots, bytes);
  Append(step.new_slots, bytes);
  Append(step.forks, bytes);
  Append(step.blocks, bytes);
  Append(step.rows, bytes);
  Append(step.outputs, bytes);
  Append(step.moves, bytes);
  const uint64_t digest = DigestOf(bytes);
  bytes.append(reinterpret_cast<const char*>(&digest), sizeof(digest));
}

absl::Status DecodeStep(absl::string_view bytes, const StepLimits& limits, Step& step) {
  Header header;
  if (bytes.size() < sizeof(header) + sizeof(uint64_t)) {
    return absl::DataLossError(absl::StrCat("a step of ", bytes.size(), " bytes"));
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != kMagic || bytes.size() != EncodedBytes(header)) {
    return absl::DataLossError(
        absl::StrCat("a step of ", bytes.size(), " bytes that its header does not describe"));
  }
  uint64_t digest;
  std::memcpy(&digest, bytes.data() + bytes.size() - sizeof(digest), sizeof(digest));
  if (DigestOf(bytes.substr(0, bytes.size() - sizeof(digest))) != digest) {
    return absl::DataLossError("a step that does not have its digest");
  }
  MUSTER_RETURN_IF_ERROR(CheckCounts(header, limits));
  step.epoch = Epoch(header.epoch);
  step.number = StepNumber(header.number);
  step.bucket = header.bucket;
  step.output_bucket = header.output_bucket;
  step.layers = {header.first_layer, header.end_layer};
  step.from_hidden = header.from_hidden;
  step.hidden_of = header.hidden_of;
  step.kind = header.kind;
  bytes.remove_prefix(sizeof(header));
  Take(bytes, header.freed_slots, step.freed_slots);
  Take(bytes, header.new_slots, step.new_slots);
  Take(bytes, header.forks, step.forks);
  Take(bytes, header.blocks, step.blocks);
  Take(bytes, header.rows, step.rows);
  Take(bytes, header.outputs, step.outputs);
  Take(bytes, header.moves, step.moves);
  return absl::OkStatus();
}

absl::Status CheckStep(const Step& step, const StepBounds& bounds) {
  MUSTER_RETURN_IF_ERROR(CheckParts(step));
  for (const std::vector<int32_t>* slots : {&step.freed_slots, &step.new_slots}) {
    for (const int32_t slot : *slots) {
      MUSTER_RETURN_IF_ERROR(CheckIndex("slot", slot, bounds.limits.max_sequences));
    }
  }
  MUSTER_RETURN_IF_ERROR(CheckBlocks(step, bounds));
  MUSTER_RETURN_IF_ERROR(CheckMoves(step, bounds));
  if (step.kind != StepKind::kRun) return absl::OkStatus();
  MUSTER_RETURN_IF_ERROR(CheckBuckets(step, bounds));
  MUSTER_RETURN_IF_ERROR(CheckLayers(step, bounds));
  MUSTER_RETURN_IF_ERROR(CheckRows(step, bounds));
  return CheckOutputs(step);
}

int BucketOf(int rows) {
  return static_cast<int>(std::bit_ceil(static_cast<uint32_t>(rows < 1 ? 1 : rows)));
}

}  // namespace muster
