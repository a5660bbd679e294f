#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels/peer_collectives.h"
#include "kernels/peer_test_support.h"
#include "kernels/reduce_ranks.h"

namespace muster {
namespace {

using testing::CudaCheck;
using testing::DeviceBytes;
using testing::LocalPeers;
using testing::RandomFloats;
using testing::TypedArray;

using Arrays = std::vector<std::unique_ptr<DeviceBytes>>;
using Bytes = std::vector<unsigned char>;

Bytes Downloaded(const DeviceBytes& from) {
  Bytes bytes(from.size());
  from.Download(bytes.data());
  return bytes;
}

class PeerCollectivesCudaTest : public ::testing::TestWithParam<int> {
 protected:
  int world() const { return GetParam(); }
  void Launched(CudaLaunch launch) { CudaCheck(static_cast<cudaError_t>(launch.error), "launch"); }

  LocalPeers peers_{GetParam(), {}};
};
INSTANTIATE_TEST_SUITE_P(Ranks, PeerCollectivesCudaTest, ::testing::Values(2, 3, 4, 8, 16));

// Random bytes, many of them with all bits set.
Bytes RandomBytes(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(count);
  for (size_t i = 0; i < count; i += 4) {
    const uint32_t word = random() % 2 == 0 ? ~0u : static_cast<uint32_t>(random());
    std::memcpy(&bytes[i], &word, std::min<size_t>(4, count - i));
  }
  return bytes;
}

TEST_P(PeerCollectivesCudaTest, GathersAnyBytesInRankOrder) {
  for (const auto& [count, off] :
       {std::pair<size_t, size_t>{0, 0}, {1, 0}, {13, 3}, {4096, 0}, {50001, 1}, {300'000, 0}}) {
    Arrays sends, receives;
    Bytes wanted;
    for (int rank = 0; rank < world(); ++rank) {
      const Bytes bytes = RandomBytes(count, static_cast<uint32_t>(rank));
      sends.push_back(std::make_unique<DeviceBytes>(bytes.data(), count, off));
      receives.push_back(std::make_unique<DeviceBytes>(count * world(), off));
      wanted.insert(wanted.end(), bytes.begin(), bytes.end());
    }
    for (int rank = 0; rank < world(); ++rank) {
      Launched(PeerGatherCuda({.peers = peers_.For(rank),
                               .send = sends[rank]->data(),
                               .receive = receives[rank]->data(),
                               .bytes = static_cast<int64_t>(count),
                               .receive_stride = static_cast<int64_t>(count)},
                              peers_.stream(rank)));
    }
    peers_.Synchronize();
    for (const auto& receive : receives) {
      EXPECT_EQ(Downloaded(*receive), wanted) << count << " bytes";
      EXPECT_TRUE(receive->GuardsIntact());
    }
  }
  EXPECT_TRUE(peers_.BoxesAreEmpty());
}

TEST_P(PeerCollectivesCudaTest, BroadcastsTheBytesOfAnyRoot) {
  for (int root = 0; root < world(); ++root) {
    const Bytes wanted = RandomBytes(5003, 5);
    Arrays arrays;
    for (int rank = 0; rank < world(); ++rank) {
      arrays.push_back(rank == root ? std::make_unique<DeviceBytes>(wanted.data(), wanted.size())
                                    : std::make_unique<DeviceBytes>(wanted.size()));
    }
    for (int rank = 0; rank < world(); ++rank) {
      Launched(PeerGatherCuda({.peers = peers_.For(rank),
                               .send = arrays[rank]->data(),
                               .receive = arrays[rank]->data(),
                               .bytes = static_cast<int64_t>(wanted.size()),
                               .receive_stride = 0,
                               .root = root},
                              peers_.stream(rank)));
    }
    peers_.Synchronize();
    for (const auto& array : arrays) EXPECT_EQ(Downloaded(*array), wanted) << "root " << root;
  }
}

TEST_P(PeerCollectivesCudaTest, SumsInRankOrderAndScattersTheSum) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (const int64_t count : {1, 7, 1001, 9001}) {
      const size_t all = static_cast<size_t>(count) * world();
      std::vector<TypedArray> parts;
      Arrays sends, receives;
      for (int rank = 0; rank < world(); ++rank) {
        RandomFloats random(static_cast<uint32_t>(rank));
        parts.emplace_back(dtype, all);
        random.Fill(parts.back(), -2, 2);
        sends.push_back(std::make_unique<DeviceBytes>(parts.back().data(), all * SizeOf(dtype)));
        receives.push_back(std::make_unique<DeviceBytes>(count * SizeOf(dtype)));
      }
      TypedArray sum(dtype, all);
      ReduceRanksParams reference{
          .world = world(), .dtype = dtype, .out = sum.data(), .out_dtype = dtype};
      for (int rank = 0; rank < world(); ++rank) reference.parts[rank] = parts[rank].data();
      ReduceRanksReference(reference, {0, static_cast<int64_t>(all)});
      const Bytes wanted(static_cast<unsigned char*>(sum.data()),
                         static_cast<unsigned char*>(sum.data()) + all * SizeOf(dtype));
      const auto reduce = [&](int rank, void* receive, int64_t stride, int64_t elements) {
        Launched(PeerReduceCuda({.peers = peers_.For(rank),
                                 .send = sends[rank]->data(),
                                 .receive = receive,
                                 .count = elements,
                                 .send_stride = stride,
                                 .dtype = dtype},
                                peers_.stream(rank)));
      };
      for (int rank = 0; rank < world(); ++rank) {
        reduce(rank, receives[rank]->data(), count, count);
        reduce(rank, sends[rank]->data(), 0, static_cast<int64_t>(all));
      }
      peers_.Synchronize();
      Bytes scattered;
      for (int rank = 0; rank < world(); ++rank) {
        EXPECT_EQ(Downloaded(*sends[rank]), wanted) << Name(dtype) << " x " << count;
        const Bytes part = Downloaded(*receives[rank]);
        scattered.insert(scattered.end(), part.begin(), part.end());
      }
      EXPECT_EQ(scattered, wanted) << Name(dtype) << " x " << count;
    }
  }
  EXPECT_TRUE(peers_.BoxesAreEmpty());
}

}  // namespace
}  // namespace muster
