#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/elementwise_cuda_test_support.h"
#include "kernels/rope_kv.h"

namespace muster {
namespace {

using ::muster::testing::AllClose;
using ::muster::testing::CudaFinish;
using ::muster::testing::DeviceBytes;
using ::muster::testing::FreshSeed;
using ::muster::testing::kDTypes;
using ::muster::testing::kEpsilon;
using ::muster::testing::RandomFloats;
using ::muster::testing::ToDevice;
using ::muster::testing::ToHost;
using ::muster::testing::TypedArray;
using ::muster::testing::UnitRoundoff;

constexpr int32_t kLayers = 2;
constexpr int64_t kMaxPosition = 64;
constexpr int64_t kMaxLocalBlocks = 16;
constexpr int64_t kNumBlocks = 40;

struct Shape {
  int32_t heads = 3;
  int32_t kv_heads = 2;
  int32_t head_dim = 16;
  int32_t block_size = 4;
  DType activation = DType::kBFloat16;
  DType cache = DType::kBFloat16;
  KvOwnership ownership = {0, 1};
  bool norms = false;  // of the heads of q and k
  size_t misalignment = 0;
  size_t arena_misalignment = 0;
  int64_t gap = 8;  // between rows
  bool arena = true;
};

// Two sequences, one padded row, positions in and out of order.
const std::vector<int32_t> kPositions{0, 1, 2, 3, 4, 63, 999, 17, 5};
const std::vector<int32_t> kSequences{0, 0, 0, 0, 0, 1, -1, 1, 0};
constexpr int64_t kRows = 9;
constexpr int64_t kPadded = 6;

// Blocks in no order; two entries that are none.
std::vector<int32_t> Tables() {
  std::vector<int32_t> tables(2 * kMaxLocalBlocks);
  for (size_t i = 0; i < tables.size(); ++i) tables[i] = static_cast<int32_t>((i * 7 + 3) % 40);
  tables[1] = kNumBlocks;
  tables[kMaxLocalBlocks + 4] = -1;
  return tables;
}

// The arrays of one case on the host, in float32 but for qkv and the cache.
struct Host {
  Host(const Shape& shape, uint32_t seed)
      : layout{kLayers, shape.kv_heads, shape.block_size, shape.head_dim, shape.cache},
        width((shape.heads + 2 * shape.kv_heads) * shape.head_dim),
        stride(width + shape.gap),
        qkv(shape.activation, static_cast<size_t>(kRows * stride)),
        cos(static_cast<size_t>(kMaxPosition * shape.head_dim / 2)),
        sin(cos.size()),
        q_norm(static_cast<size_t>(shape.head_dim)),
        k_norm(q_norm.size()),
        tables(Tables()) {
    RandomFloats random(seed);
    random.Fill(qkv);
    for (size_t i = 0; i < cos.size(); ++i) {
      const float angle = random.Uniform(0, 6.28f);
      cos[i] = std::cos(angle);
      sin[i] = std::sin(angle);
    }
    for (float& weight : q_norm) weight = random.Uniform(-1, 1);
    for (float& weight : k_norm) weight = random.Uniform(-1, 1);
  }

  size_t CacheElements() const {
    return static_cast<size_t>(kNumBlocks * KvBlockBytes(layout)) / SizeOf(layout.dtype);
  }
  RopeKvParams Params(const Shape& shape) const {
    RopeKvParams params{.row_stride = stride,
                        .heads = shape.heads,
                        .positions = kPositions.data(),
                        .row_sequences = kSequences.data(),
                        .cos = cos.data(),
                        .sin = sin.data(),
                        .layout = layout,
                        .ownership = shape.ownership,
                        .layer = 1};
    if (shape.norms) {
      params.q_norm = q_norm.data();
      params.k_norm = k_norm.data();
      params.norm_eps = 1e-5f;
    }
    return params;
  }

  KvLayout layout;
  int64_t width;
  int64_t stride;
  TypedArray qkv;
  std::vector<float> cos;
  std::vector<float> sin;
  std::vector<float> q_norm;
  std::vector<float> k_norm;
  std::vector<int32_t> tables;
};

struct Outcome {
  TypedArray qkv;
  std::vector<float> cache;
};

DeviceBytes FloatsToDevice(const std::vector<float>& floats, size_t misalignment) {
  return DeviceBytes(floats.data(), floats.size() * sizeof(float), misalignment * sizeof(float));
}

Outcome RunOnDevice(const Host& host, const Shape& shape) {
  const size_t off = shape.misalignment;
  const DeviceBytes qkv = ToDevice(host.qkv, off);
  const DeviceBytes cos = FloatsToDevice(host.cos, off), sin = FloatsToDevice(host.sin, off);
  const DeviceBytes q_norm = FloatsToDevice(host.q_norm, off);
  const DeviceBytes k_norm = FloatsToDevice(host.k_norm, off);
  const DeviceBytes positions = ToDevice(kPositions), sequences = ToDevice(kSequences);
  const DeviceBytes tables = ToDevice(host.tables);
  const size_t element = SizeOf(shape.cache);
  const DeviceBytes arena(host.CacheElements() * element, shape.arena_misalignment * element);
  const KvDescriptor descriptor{shape.arena ? arena.data() : nullptr, kNumBlocks,
                                tables.as<int32_t>(), kMaxLocalBlocks};
  const DeviceBytes kv(&descriptor, sizeof(descriptor));
  RopeKvParams params = host.Params(shape);
  params.activation = shape.activation;
  params.qkv = qkv.data();
  params.cos = cos.as<float>();
  params.sin = sin.as<float>();
  params.positions = positions.as<int32_t>();
  params.row_sequences = sequences.as<int32_t>();
  params.kv = kv.as<KvDescriptor>();
  if (shape.norms) {
    params.q_norm = q_norm.as<float>();
    params.k_norm = k_norm.as<float>();
  }
  CudaFinish(RopeKvCuda(params, kRows, nullptr));
  EXPECT_TRUE(qkv.GuardsIntact());
  EXPECT_TRUE(arena.GuardsIntact());
  Outcome outcome{TypedArray(shape.activation, host.qkv.size()), ToHost(arena, shape.cache)};
  qkv.Download(outcome.qkv.data());
  return outcome;
}

// What the reference makes of the same values in float32, not rounded to the activations' type.
std::vector<float> Rotated(const Host& host, const Shape& shape) {
  std::vector<float> qkv = ToHost(host.qkv);
  const KvDescriptor none{};
  RopeKvParams params = host.Params(shape);
  params.qkv = qkv.data();
  params.kv = &none;
  RopeKvReference(params, {0, kRows});
  return qkv;
}

// The cache of the reference for rows that are rotated already: by turns of no angle.
std::vector<float> Cached(const Host& host, const Shape& shape, TypedArray& rotated) {
  TypedArray arena(shape.cache, host.CacheElements());
  const KvDescriptor kv{shape.arena ? arena.data() : nullptr, kNumBlocks, host.tables.data(),
                        kMaxLocalBlocks};
  const std::vector<float> ones(host.cos.size(), 1), zeros(host.cos.size(), 0);
  RopeKvParams params = host.Params(shape);
  params.qkv = rotated.data();
  params.activation = shape.activation;
  params.cos = ones.data();
  params.sin = zeros.data();
  params.q_norm = params.k_norm = nullptr;
  params.kv = &kv;
  RopeKvReference(params, {0, kRows});
  return ToHost(arena);
}

// Beside the rounding of the store: two products and their sum, held against the norm of the pair,
// which a rotation keeps; a norm adds the error of a sum of head_dim squares, a root and three
// products. `other` is the element that `expected` was rotated with.
double Tolerance(const Shape& shape, float expected, float other) {
  const double ulps = shape.norms ? 0.5 * shape.head_dim + 8 : 2;
  const double step = shape.activation == DType::kFloat16 ? 0x1p-25 : 0;
  return ulps * kEpsilon * 1.5 * std::hypot(expected, other) +
         UnitRoundoff(shape.activation) * std::abs(expected) + step;
}

void ExpectRotated(const Host& host, const Shape& shape, const TypedArray& actual) {
  const std::vector<float> before = ToHost(host.qkv), expected = Rotated(host, shape);
  const std::vector<float> got = ToHost(actual);
  const int64_t rotated = (shape.heads + shape.kv_heads) * shape.head_dim;
  for (int64_t row = 0; row < kRows; ++row) {
    const float* wanted = expected.data() + row * host.stride;
    const auto tolerance = [&](size_t i) {
      if (row == kPadded || static_cast<int64_t>(i) >= rotated) return 0.0;
      const int64_t half = shape.head_dim / 2;
      const int64_t at = static_cast<int64_t>(i);
      const bool low = at % shape.head_dim < half;
      return Tolerance(shape, wanted[at], wanted[low ? at + half : at - half]);
    };
    EXPECT_TRUE(AllClose(wanted, got.data() + row * host.stride, static_cast<size_t>(host.stride),
                         tolerance))
        << "row " << row;
  }
}

void ExpectReference(const Shape& shape, uint32_t seed) {
  SCOPED_TRACE(::testing::Message()
               << "heads " << shape.heads << "+" << shape.kv_heads << " of " << shape.head_dim
               << ", " << Name(shape.activation) << " to " << Name(shape.cache) << ", block "
               << shape.block_size << ", cp " << shape.ownership.rank << "/" << shape.ownership.size
               << (shape.norms ? ", normalised" : "") << ", gap " << shape.gap << ", off by "
               << shape.misalignment << " and " << shape.arena_misalignment << ", seed " << seed);
  const Host host(shape, seed);
  Outcome outcome = RunOnDevice(host, shape);
  ExpectRotated(host, shape, outcome.qkv);
  // Exact, of what was stored; where nothing is due the poison stays.
  const std::vector<float> wanted = Cached(host, shape, outcome.qkv);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (std::isnan(wanted[i]) && std::isnan(outcome.cache[i])) continue;
    ASSERT_EQ(wanted[i], outcome.cache[i]) << "cache element " << i;
  }
}

TEST(RopeKvCudaTest, MatchesReferenceForEveryTypeAndHeadDim) {
  const uint32_t seed = FreshSeed();
  for (const DType activation : kDTypes) {
    for (const DType cache : kDTypes) {
      for (const int32_t head_dim : {2, 6, 16, 64, 66, 80, 128, 192, 256, 576}) {
        for (const bool norms : {false, true}) {
          ExpectReference(
              {.head_dim = head_dim, .activation = activation, .cache = cache, .norms = norms},
              seed);
        }
      }
    }
  }
}

TEST(RopeKvCudaTest, MatchesReferenceWhereverTheArraysLie) {
  const uint32_t seed = FreshSeed();
  for (const DType dtype : kDTypes) {
    for (const size_t misalignment : {0, 1, 4, 8}) {
      for (const size_t arena_misalignment : {0, 1, 8}) {
        for (const int64_t gap : {0, 3}) {
          ExpectReference({.head_dim = 128,
                           .activation = dtype,
                           .norms = misalignment != 4,
                           .misalignment = misalignment,
                           .arena_misalignment = arena_misalignment,
                           .gap = gap},
                          seed);
        }
      }
    }
  }
}

TEST(RopeKvCudaTest, MatchesReferenceForEveryNumberOfHeadsAndBlockSize) {
  const uint32_t seed = FreshSeed();
  for (const int32_t heads : {1, 7, 32, 96}) {
    for (const int32_t kv_heads : {1, 8}) {
      ExpectReference({.heads = heads, .kv_heads = kv_heads, .head_dim = 128}, seed);
    }
  }
  for (const int32_t block_size : {1, 5, 16, 64}) {
    ExpectReference({.block_size = block_size, .cache = DType::kFloat32}, seed);
  }
}

TEST(RopeKvCudaTest, EachBlockIsWrittenByItsOwnerOnly) {
  const uint32_t seed = FreshSeed();
  for (const int32_t size : {2, 3, 4}) {
    for (int32_t rank = 0; rank < size; ++rank) {
      ExpectReference({.activation = DType::kFloat16, .ownership = {rank, size}}, seed);
    }
  }
}

TEST(RopeKvCudaTest, WithoutAnArenaOnlyRotates) {
  ExpectReference({.arena = false}, FreshSeed());
  ExpectReference({.head_dim = 6, .arena = false}, FreshSeed());
}

}  // namespace
}  // namespace muster
