#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/add_rms_norm.h"
#include "kernels/all_reduce_rms_norm.h"
#include "kernels/peer_test_support.h"
#include "kernels/reduce_ranks.h"

namespace muster {
namespace {

using testing::CudaCheck;
using testing::DeviceBytes;
using testing::kInfinity;
using testing::kNaN;
using testing::LocalPeers;
using testing::RandomFloats;
using testing::TypedArray;

constexpr float kEps = 1e-5f;

uint32_t FreshSeed() {
  const uint32_t seed = std::random_device()();
  std::printf("seed %u\n", seed);
  return seed;
}

struct Shape {
  int64_t rows, hidden;
  DType dtype = DType::kFloat32;
  bool with_residual = true;
  size_t misalignment = 0;  // of all arrays, in elements

  size_t count() const { return static_cast<size_t>(rows * hidden); }
};

enum class Shots { kOne, kTwo };

// One reduction with its operands on host and device, and what must come out.
class Reduction {
 public:
  Reduction(int world, const Shape& shape, uint32_t seed) : shape(shape), weight(shape.hidden) {
    RandomFloats random(seed);
    for (int rank = 0; rank < world; ++rank) {
      partials.emplace_back(shape.dtype, shape.count());
      random.Fill(partials.back(), -3, 3);
    }
    residual = std::make_unique<TypedArray>(shape.dtype, shape.count());
    random.Fill(*residual, -3, 3);
    for (float& w : weight) w = random.Uniform(0.5f, 1.5f);
  }

  void Upload() {
    const size_t off = shape.misalignment;
    for (const TypedArray& partial : partials) {
      parts_.push_back(Copied(partial, off));
      residuals_.push_back(Copied(*residual, off));
      norms_.push_back(std::make_unique<DeviceBytes>(Bytes(), off * SizeOf(shape.dtype)));
    }
    weight_ = std::make_unique<DeviceBytes>(weight.data(), weight.size() * 4, off * 4);
  }

  AllReduceRmsNormCudaParams Params(const LocalPeers& peers, int rank) const {
    return {.peers = peers.For(rank),
            .stamp = {.what = 7,
                      .rows = static_cast<uint32_t>(shape.rows),
                      .row_bytes = static_cast<uint32_t>(shape.hidden)},
            .partial = parts_[rank]->data(),
            .residual_in = shape.with_residual ? residuals_[rank]->data() : nullptr,
            .weight = weight_->as<float>(),
            .eps = kEps,
            .hidden = shape.hidden,
            .residual_out = residuals_[rank]->data(),
            .norm_out = norms_[rank]->data(),
            .dtype = shape.dtype,
            .blocks_per_row = blocks_per_row};
  }

  CudaLaunch Launch(const LocalPeers& peers, int rank, Shots shots) const {
    return shots == Shots::kOne
               ? AllReduceRmsNormOneShotCuda(Params(peers, rank), shape.rows, peers.stream(rank))
               : AllReduceRmsNormTwoShotCuda(Params(peers, rank), shape.rows, peers.stream(rank));
  }
  void LaunchAll(const LocalPeers& peers, Shots shots) const {
    for (int rank = 0; rank < peers.world(); ++rank) {
      const CudaLaunch launch = Launch(peers, rank, shots);
      CudaCheck(static_cast<cudaError_t>(launch.error), "launch");
    }
  }

  std::vector<unsigned char> Residual(int rank) const { return Downloaded(*residuals_[rank]); }
  std::vector<unsigned char> Norm(int rank) const { return Downloaded(*norms_[rank]); }

  // The bits of the residual, all ranks' bits of both, and the norm within its tolerance: a sum of
  // squares is off by as many roundings, its root by half, what follows by a few and the store's.
  void Check() const {
    TypedArray wanted(shape.dtype, shape.count()), norm(DType::kFloat32, shape.count());
    Reference(&wanted, &norm);
    const std::vector<unsigned char> residual0 = Residual(0), norm0 = Norm(0);
    const std::vector<float> got = Floats(residual0), expected = Floats(wanted);
    ASSERT_TRUE(testing::AllSame(expected.data(), got.data(), shape.count())) << "residual";
    const std::vector<float> norm_wanted = Floats(norm), norm_got = Floats(norm0);
    const double relative =
        (static_cast<double>(shape.hidden) / 2 + 6) * 0x1p-24 + testing::RoundingOf(shape.dtype);
    ASSERT_TRUE(Near(norm_wanted, norm_got, 1.01 * relative)) << "norm";
    for (size_t rank = 0; rank < partials.size(); ++rank) {
      ASSERT_TRUE(parts_[rank]->GuardsIntact() && residuals_[rank]->GuardsIntact() &&
                  norms_[rank]->GuardsIntact());
      ASSERT_EQ(residual0, Residual(rank)) << "rank " << rank;
      ASSERT_EQ(norm0, Norm(rank)) << "rank " << rank;
    }
  }

  Shape shape;
  int blocks_per_row = 0;
  std::vector<TypedArray> partials;
  std::unique_ptr<TypedArray> residual;
  std::vector<float> weight;

 private:
  size_t Bytes() const { return shape.count() * SizeOf(shape.dtype); }
  std::unique_ptr<DeviceBytes> Copied(const TypedArray& array, size_t off) const {
    return std::make_unique<DeviceBytes>(array.data(), Bytes(), off * SizeOf(shape.dtype));
  }
  static std::vector<unsigned char> Downloaded(const DeviceBytes& from) {
    std::vector<unsigned char> bytes(from.size());
    from.Download(bytes.data());
    return bytes;
  }
  static std::vector<float> Floats(const TypedArray& from) {
    std::vector<float> values(from.size());
    for (size_t i = 0; i < values.size(); ++i) values[i] = from.Get(i);
    return values;
  }
  std::vector<float> Floats(const std::vector<unsigned char>& bytes) const {
    TypedArray typed(shape.dtype, shape.count());
    std::memcpy(typed.data(), bytes.data(), bytes.size());
    return Floats(typed);
  }
  ::testing::AssertionResult Near(const std::vector<float>& wanted, const std::vector<float>& got,
                                  double relative) const {
    const double tiny = shape.dtype == DType::kFloat16 ? 0x1p-24 : 0x1p-126;
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (!std::isfinite(wanted[i])) continue;
      if (std::abs(double{got[i]} - wanted[i]) <= relative * std::abs(wanted[i]) + tiny) continue;
      return ::testing::AssertionFailure()
             << "at " << i << ": expected " << wanted[i] << ", got " << got[i];
    }
    return ::testing::AssertionSuccess();
  }

  void Reference(TypedArray* residual_out, TypedArray* norm_out) const {
    AllReduceRmsNormParams params{.world = static_cast<int32_t>(partials.size()),
                                  .dtype = shape.dtype,
                                  .residual_in = shape.with_residual ? residual->data() : nullptr,
                                  .residual_out = residual_out->data(),
                                  .residual_dtype = shape.dtype,
                                  .weight = weight.data(),
                                  .eps = kEps,
                                  .hidden = shape.hidden,
                                  .norm_out = norm_out->data(),
                                  .norm_dtype = DType::kFloat32};
    for (size_t rank = 0; rank < partials.size(); ++rank) {
      params.parts[rank] = partials[rank].data();
    }
    AllReduceRmsNormReference(params, {0, shape.rows});
  }

  std::vector<std::unique_ptr<DeviceBytes>> parts_, residuals_, norms_;
  std::unique_ptr<DeviceBytes> weight_;
};

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

// By every way, which must not matter to a bit.
void CheckAllWays(LocalPeers& peers, const Shape& shape, uint32_t seed) {
  SCOPED_TRACE(::testing::Message()
               << peers.world() << " ranks, " << shape.rows << " x " << shape.hidden << " "
               << Name(shape.dtype) << ", seed " << seed);
  std::vector<unsigned char> norm;
  for (const int blocks : {0, 1, 2, 4, 8, -1}) {
    const Shots shots = blocks < 0 ? Shots::kTwo : Shots::kOne;
    if (blocks > peers.For(0).max_blocks / 2) continue;
    Reduction one(peers.world(), shape, seed);
    one.blocks_per_row = std::max(blocks, 0);
    one.Upload();
    one.LaunchAll(peers, shots);
    peers.Synchronize();
    ASSERT_EQ(peers.fault(0).failed_operations, 0u);
    ASSERT_NO_FATAL_FAILURE(one.Check()) << "blocks " << blocks;
    if (norm.empty()) norm = one.Norm(0);
    ASSERT_EQ(norm, one.Norm(0)) << "other bits with blocks " << blocks;
  }
}

class AllReduceRmsNormCudaTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, AllReduceRmsNormCudaTest, ::testing::Values(2, 3, 4, 5, 8, 16));

TEST_P(AllReduceRmsNormCudaTest, GivesTheReferencesBitsOnAllRanksInOneShotAndInTwo) {
  LocalPeers peers(GetParam(), {});
  const uint32_t seed = FreshSeed();
  for (DType dtype : kDTypes) {
    for (const auto& [rows, hidden] : {std::pair<int64_t, int64_t>{1, 128},
                                       {3, 136},
                                       {1, 4096},
                                       {7, 2048},
                                       {2, 7168},
                                       {1, 16384},
                                       {40, 576}}) {
      ASSERT_NO_FATAL_FAILURE(CheckAllWays(peers, {rows, hidden, dtype}, seed));
    }
    ASSERT_NO_FATAL_FAILURE(CheckAllWays(peers, {5, 64, dtype, false}, seed));
  }
  EXPECT_TRUE(peers.BoxesAreEmpty());
}

TEST_P(AllReduceRmsNormCudaTest, TakesAnySizeAndAnyAlignment) {
  LocalPeers peers(GetParam(), {});
  const uint32_t seed = FreshSeed();
  for (DType dtype : kDTypes) {
    for (const auto& [rows, hidden, off] : {std::tuple<int64_t, int64_t, size_t>{3, 37, 0},
                                            {17, 1, 0},
                                            {3, 577, 1},
                                            {2, 1024, 1},
                                            {1, 2051, 3}}) {
      ASSERT_NO_FATAL_FAILURE(CheckAllWays(peers, {rows, hidden, dtype, true, off}, seed));
    }
  }
  EXPECT_TRUE(peers.BoxesAreEmpty());
}

// Values that a sentinel or a flush to zero could swallow; all of them in every position of a word.
TEST_P(AllReduceRmsNormCudaTest, BringsZerosSubnormalsInfinitiesAndNansAcross) {
  LocalPeers peers(GetParam(), {});
  for (DType dtype : kDTypes) {
    const float least = dtype == DType::kFloat16    ? 0x1p-24f
                        : dtype == DType::kBFloat16 ? 0x1p-133f
                                                    : 0x1p-149f;
    const float values[] = {-0.0f, 0.0f, least, -least, kInfinity, -kInfinity, kNaN, 1.0f, -0.0f};
    for (Shots shots : {Shots::kOne, Shots::kTwo}) {
      Reduction one(peers.world(), {11, 136, dtype}, 1);
      for (size_t i = 0; i < one.shape.count(); ++i) {
        const size_t row = i / 136;
        for (size_t rank = 0; rank < one.partials.size(); ++rank) {
          one.partials[rank].Set(i, row < 9 ? values[row] : values[(i + rank * (row - 8)) % 9]);
        }
        one.residual->Set(i, row < 9 ? -0.0f : 1.0f);
      }
      // All bits set: a NaN, and what an unwritten word looks like.
      std::memset(one.partials.back().data(), 0xFF, 136 * SizeOf(dtype));
      one.Upload();
      one.LaunchAll(peers, shots);
      peers.Synchronize();
      ASSERT_NO_FATAL_FAILURE(one.Check()) << Name(dtype);
    }
  }
}

TEST_P(AllReduceRmsNormCudaTest, HasTheBitsOfTheUnfusedOperationsInFloat32) {
  LocalPeers peers(GetParam(), {});
  for (const auto& [rows, hidden] :
       {std::pair<int64_t, int64_t>{3, 4096}, {2, 37}, {1, 16384}, {4, 1032}}) {
    Reduction one(peers.world(), {rows, hidden}, FreshSeed());
    one.Upload();
    one.LaunchAll(peers, Shots::kOne);
    peers.Synchronize();
    ReduceRanksParams sum{
        .world = peers.world(), .dtype = DType::kFloat32, .out_dtype = DType::kFloat32};
    for (int rank = 0; rank < peers.world(); ++rank) sum.parts[rank] = one.partials[rank].data();
    std::vector<float> host(one.shape.count());
    sum.out = host.data();
    ReduceRanksReference(sum, {0, rows * hidden});
    const DeviceBytes a = testing::ToDevice(host), residual = testing::ToDevice(*one.residual),
                      weight = testing::ToDevice(one.weight);
    const AddRmsNormParams params{.a = a.data(),
                                  .residual_in = residual.data(),
                                  .weight = weight.as<float>(),
                                  .eps = kEps,
                                  .hidden = hidden,
                                  .residual_out = residual.data(),
                                  .out = a.data()};
    testing::CudaFinish(AddRmsNormCuda(params, rows, nullptr));
    std::vector<unsigned char> norm(a.size()), sums(a.size());
    a.Download(norm.data());
    residual.Download(sums.data());
    EXPECT_EQ(norm, one.Norm(0));
    EXPECT_EQ(sums, one.Residual(0));
  }
}

TEST_P(AllReduceRmsNormCudaTest, GivesTheSameBitsOnADeviceWithoutClusters) {
  LocalPeers with(GetParam(), {}), without(GetParam(), {.clusters = false});
  const uint32_t seed = FreshSeed();
  for (DType dtype : kDTypes) {
    for (const int64_t hidden : {136, 4096, 7168, 16384}) {
      const Shape shape{.rows = 3, .hidden = hidden, .dtype = dtype};
      Reduction clusters(with.world(), shape, seed), blocks(with.world(), shape, seed);
      blocks.blocks_per_row = kMaxRowBlocks;
      for (auto [one, peers] : {std::pair(&clusters, &with), std::pair(&blocks, &without)}) {
        one->Upload();
        one->LaunchAll(*peers, Shots::kOne);
        peers->Synchronize();
      }
      ASSERT_NO_FATAL_FAILURE(blocks.Check());
      EXPECT_EQ(clusters.Norm(0), blocks.Norm(0));
      EXPECT_EQ(clusters.Residual(0), blocks.Residual(0));
    }
  }
}

TEST_P(AllReduceRmsNormCudaTest, TenThousandOperationsOfRandomSizesHaveNoWrongBit) {
  LocalPeers peers(GetParam(), {});
  const uint32_t seed = FreshSeed();
  RandomFloats random(seed);
  const int total = 10'000, in_flight = 25;
  for (int done = 0; done < total; done += in_flight) {
    std::vector<std::unique_ptr<Reduction>> batch;
    for (int i = 0; i < in_flight; ++i) {
      const int64_t hidden = 8 * random.Integer(1, 64);
      const Shape shape{random.Integer(1, 4), hidden, kDTypes[random.Integer(0, 2)]};
      batch.push_back(std::make_unique<Reduction>(peers.world(), shape, seed + done + i));
      batch.back()->Upload();
    }
    for (const auto& one : batch) {
      one->LaunchAll(peers, random.Integer(0, 1) == 0 ? Shots::kOne : Shots::kTwo);
    }
    peers.Synchronize();
    for (const auto& one : batch) ASSERT_NO_FATAL_FAILURE(one->Check()) << "after " << done;
    if (GetParam() > 4 && done > 1000) break;
  }
  EXPECT_TRUE(peers.BoxesAreEmpty());
}

// After four days at 13,000 operations a second.
TEST_P(AllReduceRmsNormCudaTest, TheSequenceWrapsAround) {
  LocalPeers peers(GetParam(), {});
  const uint32_t nearly = 0xFFFFFFFCu;  // even, as the boxes' turn is now
  for (int rank = 0; rank < peers.world(); ++rank) {
    std::byte* const own = peers.For(rank).regions[rank];
    testing::CudaCheck(cudaMemcpy(own + offsetof(PeerHeader, sequence), &nearly, sizeof(nearly),
                                  cudaMemcpyHostToDevice),
                       "sequence");
  }
  for (int i = 0; i < 8; ++i) {
    for (Shots shots : {Shots::kTwo, Shots::kOne}) {
      Reduction one(peers.world(), {3, 136, DType::kBFloat16}, 7 + i);
      one.Upload();
      one.LaunchAll(peers, shots);
      peers.Synchronize();
      ASSERT_NO_FATAL_FAILURE(one.Check()) << i;
    }
  }
  EXPECT_TRUE(peers.BoxesAreEmpty());
}

TEST_P(AllReduceRmsNormCudaTest, ACapturedSequenceCanBeReplayed) {
  LocalPeers peers(GetParam(), {});
  Reduction first(peers.world(), {3, 1024, DType::kBFloat16, false}, FreshSeed());
  Reduction second(peers.world(), {9, 512, DType::kFloat32, false}, FreshSeed());
  first.Upload();
  second.Upload();
  std::vector<cudaGraphExec_t> graphs(peers.world());
  for (int rank = 0; rank < peers.world(); ++rank) {
    const cudaStream_t stream = peers.stream(rank);
    CudaCheck(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (int i = 0; i < 7; ++i) {
      for (const Reduction* one : {&first, &second}) {
        EXPECT_TRUE(one->Launch(peers, rank, i % 3 == 2 ? Shots::kTwo : Shots::kOne).ok());
      }
    }
    cudaGraph_t graph;
    CudaCheck(cudaStreamEndCapture(stream, &graph), "capture");
    CudaCheck(cudaGraphInstantiate(&graphs[rank], graph, 0), "instantiate");
    CudaCheck(cudaGraphDestroy(graph), "graph");
  }
  for (int replay = 0; replay < 30; ++replay) {
    for (int rank = 0; rank < peers.world(); ++rank) {
      CudaCheck(cudaGraphLaunch(graphs[rank], peers.stream(rank)), "replay");
    }
  }
  peers.Synchronize();
  first.Check();
  second.Check();
  for (cudaGraphExec_t graph : graphs) cudaGraphExecDestroy(graph);
}

// ---- Failures

double Seconds(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// An epoch serves while the next is prepared. Of each, one rank is in its operation before the
// other can be, on half of the GPU or all of it.
TEST(AllReduceRmsNormCudaEpochsTest, TwoEpochsWaitAtTheSameTimeInEitherOrder) {
  for (const Shots shots : {Shots::kOne, Shots::kTwo}) {
    for (const int64_t hidden : {512, 4096, 16384}) {
      SCOPED_TRACE(hidden);
      LocalPeers::Options options;
      options.slot_bytes = options.slice_bytes = 256 * hidden * 2;
      LocalPeers serving(2, options), prepared(2, options);
      const Shape shape{256, hidden, DType::kBFloat16, true};
      Reduction first(2, shape, FreshSeed()), second(2, shape, FreshSeed());
      first.Upload();
      second.Upload();
      CudaCheck(static_cast<cudaError_t>(second.Launch(prepared, 0, shots).error), "launch");
      CudaCheck(static_cast<cudaError_t>(first.Launch(serving, 1, shots).error), "launch");
      const auto both_wait = [&] {
        return prepared.LatestStamp(1, 0).sequence != 0 && serving.LatestStamp(0, 1).sequence != 0;
      };
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
      while (!both_wait()) ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      CudaCheck(static_cast<cudaError_t>(first.Launch(serving, 0, shots).error), "launch");
      CudaCheck(static_cast<cudaError_t>(second.Launch(prepared, 1, shots).error), "launch");
      serving.Synchronize();
      prepared.Synchronize();
      for (int rank = 0; rank < 2; ++rank) {
        EXPECT_EQ(serving.fault(rank).failure, PeerFailure::kNone);
        EXPECT_EQ(prepared.fault(rank).failure, PeerFailure::kNone);
      }
      first.Check();
      second.Check();
    }
  }
}

class PeerFailureCudaTest : public ::testing::TestWithParam<Shots> {
 protected:
  Reduction Uploaded(int64_t rows) {
    Reduction one(3, {rows, 1024, DType::kBFloat16}, 1);
    one.Upload();
    return one;
  }
};
INSTANTIATE_TEST_SUITE_P(Shots, PeerFailureCudaTest, ::testing::Values(Shots::kOne, Shots::kTwo));

TEST_P(PeerFailureCudaTest, ARankThatDoesNotComeEndsTheWaitAndAllThatFollows) {
  LocalPeers peers(3, {.timeout_ns = 100'000'000});
  const Reduction one = Uploaded(4);
  one.LaunchAll(peers, GetParam());
  peers.Synchronize();
  const double waited = Seconds([&] {
    for (int rank : {0, 1}) EXPECT_TRUE(one.Launch(peers, rank, GetParam()).ok());
    peers.Synchronize();
  });
  EXPECT_GT(waited, 0.09);
  EXPECT_LT(waited, 0.5);
  const PeerFault& fault = peers.fault(0);
  EXPECT_EQ(fault.failed_operations, 1u);
  EXPECT_EQ(fault.failure, PeerFailure::kMissing);
  EXPECT_EQ(fault.peer, 2);
  EXPECT_EQ(fault.own.sequence, 2u);
  EXPECT_EQ(fault.latest[1].sequence, 2u);
  EXPECT_EQ(fault.latest[2].sequence, 1u);
  EXPECT_EQ(fault.latest[2].rows, 4u);
  EXPECT_LT(Seconds([&] {
              for (int i = 0; i < 10; ++i) EXPECT_TRUE(one.Launch(peers, 0, GetParam()).ok());
              peers.Synchronize();
            }),
            0.05);
  EXPECT_EQ(fault.failed_operations, 11u);
}

TEST_P(PeerFailureCudaTest, AnAbortEndsTheWait) {
  LocalPeers peers(3, {});
  const Reduction one = Uploaded(4);
  EXPECT_TRUE(one.Launch(peers, 1, GetParam()).ok());
  EXPECT_EQ(cudaStreamQuery(peers.stream(1)), cudaErrorNotReady);
  peers.control(1) = kPeerAbort;
  EXPECT_LT(Seconds([&] { peers.Synchronize(); }), 0.5);
  EXPECT_EQ(peers.fault(1).failure, PeerFailure::kAborted);
}

TEST_P(PeerFailureCudaTest, ARankThatHasLeftEndsTheWaitUnlessItHadComeBefore) {
  LocalPeers peers(3, {});
  const Reduction one = Uploaded(4);
  EXPECT_TRUE(one.Launch(peers, 1, Shots::kOne).ok());
  while (peers.LatestStamp(0, 1).sequence != 1) {
  }
  for (int rank : {0, 2}) {
    peers.control(rank) = PeerGone(1);
    EXPECT_TRUE(one.Launch(peers, rank, Shots::kOne).ok());
  }
  peers.Synchronize();
  one.Check();
  EXPECT_EQ(peers.fault(0).failed_operations, 0u);
  for (int rank : {0, 2}) EXPECT_TRUE(one.Launch(peers, rank, GetParam()).ok());
  CudaCheck(cudaStreamSynchronize(peers.stream(0)), "kernel");
  EXPECT_EQ(peers.fault(0).failure, PeerFailure::kGone);
  EXPECT_EQ(peers.fault(0).peer, 1);
  peers.control(2) = kPeerAbort;
}

TEST_P(PeerFailureCudaTest, RanksThatDisagreeFindOutAndKeepBothStamps) {
  LocalPeers peers(3, {});
  const Reduction four = Uploaded(4), five = Uploaded(5);
  EXPECT_LT(Seconds([&] {
              for (int rank : {0, 1, 2}) {
                EXPECT_TRUE((rank == 1 ? five : four).Launch(peers, rank, GetParam()).ok());
              }
              peers.Synchronize();
            }),
            1);
  for (int rank : {0, 2}) {
    EXPECT_EQ(peers.fault(rank).failure, PeerFailure::kDisagreement);
    EXPECT_EQ(peers.fault(rank).peer, 1);
    EXPECT_EQ(peers.fault(rank).own.rows, 4u);
    EXPECT_EQ(peers.fault(rank).latest[1].rows, 5u);
  }
  EXPECT_EQ(peers.fault(1).failure, PeerFailure::kDisagreement);
  EXPECT_EQ(peers.fault(1).latest[peers.fault(1).peer].rows, 4u);
}

TEST(AllReduceRmsNormCudaLaunchTest, RefusesWhatDoesNotFit) {
  LocalPeers peers(2, {.slot_bytes = 4096, .slice_bytes = 4096});
  Reduction one(2, {3, 1024, DType::kFloat32}, 1);
  one.Upload();
  EXPECT_EQ(one.Launch(peers, 0, Shots::kOne).error, cudaErrorInvalidValue);
  EXPECT_EQ(one.Launch(peers, 0, Shots::kTwo).error, cudaErrorInvalidValue);
}

}  // namespace
}  // namespace muster
