#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/support/status_matchers.h"
#include "worker/device/block_digest.h"
#include "worker/device/cuda/cuda_block_copier.h"

namespace muster {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr std::byte kPoison{0xA5};

uint64_t DigestOf(const std::byte* data, size_t bytes) {
  BlockDigest digest;
  digest.Add(data, bytes);
  return digest.value();
}

// Blocks on the GPU, and the same on the host, where a test reads and writes them.
class MirroredBlocks {
 public:
  MirroredBlocks(CudaDevice& device, size_t blocks, size_t block_bytes)
      : device_(device), blocks_(blocks), block_bytes_(block_bytes) {
    const size_t bytes = std::max<size_t>(blocks * block_bytes, 1);
    stream_ = *device.CreateStream();
    host_ = *device.AllocateHost(bytes, "test", ledger_);
    gpu_ = *device.Allocate(bytes, "test", ledger_);
  }

  std::byte* host(size_t block) const { return host_.as<std::byte>() + block * block_bytes_; }
  std::byte* gpu(size_t block) const { return gpu_.as<std::byte>() + block * block_bytes_; }
  size_t blocks() const { return blocks_; }

  void Randomise(std::mt19937_64& random) {
    auto* const words = host_.as<uint64_t>();
    for (size_t i = 0; i < host_.size() / sizeof(uint64_t); ++i) words[i] = random();
    Upload();
  }
  void Poison() {
    std::fill_n(host_.as<std::byte>(), host_.size(), kPoison);
    Upload();
  }
  void Upload() { Copy(gpu_.data(), host_.data()); }
  void Download() { Copy(host_.data(), gpu_.data()); }

 private:
  void Copy(void* to, const void* from) {
    ASSERT_OK(device_.Copy(*stream_, to, from, gpu_.size()));
    ASSERT_OK(stream_->Synchronize());
  }

  CudaDevice& device_;
  const size_t blocks_;
  const size_t block_bytes_;
  Ledger ledger_;
  std::unique_ptr<Stream> stream_;
  Buffer host_, gpu_;
};

class CudaBlockCopierTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(device_, CudaDevice::Create({}));
    ASSERT_OK_AND_ASSIGN(copier_, CudaBlockCopier::Create(*device_));
    const auto seed = std::random_device()();
    std::printf("seed %u\n", seed);
    random_.seed(seed);
  }

  // Of blocks of `from`, in that order, to the first blocks of `to`.
  void CheckCopies(MirroredBlocks& from, MirroredBlocks& to, const std::vector<size_t>& order,
                   size_t block_bytes) {
    std::vector<const std::byte*> sources;
    std::vector<std::byte*> targets;
    for (size_t i = 0; i < order.size(); ++i) {
      sources.push_back(from.gpu(order[i]));
      targets.push_back(to.gpu(i));
    }
    std::vector<uint64_t> digests(order.size(), 1);
    ASSERT_OK(copier_->Copy(sources, targets, block_bytes, absl::MakeSpan(digests)));
    to.Download();
    for (size_t i = 0; i < order.size(); ++i) {
      const std::byte* const expected = from.host(order[i]);
      const auto at = std::mismatch(expected, expected + block_bytes, to.host(i)).first - expected;
      ASSERT_EQ(static_cast<size_t>(at), block_bytes) << "block " << i << ", first wrong byte";
      ASSERT_EQ(digests[i], DigestOf(expected, block_bytes)) << "block " << i;
    }
    for (size_t i = order.size(); i < to.blocks(); ++i) {
      const std::byte* const guard = to.host(i);
      ASSERT_EQ(std::count(guard, guard + block_bytes, kPoison),
                static_cast<std::ptrdiff_t>(block_bytes))
          << "block " << i << ", to which nothing was copied";
    }
  }

  std::unique_ptr<CudaDevice> device_;
  std::unique_ptr<CudaBlockCopier> copier_;
  std::mt19937_64 random_;
};

struct Shape {
  size_t blocks;
  size_t block_bytes;
};
// Around a stripe, a chunk of the kernel and a launch; blocks of models; more than a launch takes.
constexpr Shape kShapes[] = {{1, 64},        {3, 192},           {7, 6144},
                             {2, 32768},     {5, 32768 + 64},    {1025, 1024},
                             {9, 360 << 10}, {2500, 128},        {17, size_t{64} * 1001},
                             {4, 2 << 20},   {1, (5 << 20) + 64}};

TEST_F(CudaBlockCopierTest, DigestsAreThoseOfTheHost) {
  for (const auto [blocks, block_bytes] : kShapes) {
    SCOPED_TRACE(absl::StrCat(blocks, " blocks of ", block_bytes, " bytes"));
    MirroredBlocks all(*device_, blocks, block_bytes);
    all.Randomise(random_);
    std::vector<const std::byte*> pointers;
    for (size_t i = 0; i < blocks; ++i) pointers.push_back(all.gpu(blocks - 1 - i));
    std::vector<uint64_t> digests(blocks);
    ASSERT_OK(copier_->Digest(pointers, block_bytes, absl::MakeSpan(digests)));
    for (size_t i = 0; i < blocks; ++i) {
      ASSERT_EQ(digests[i], DigestOf(all.host(blocks - 1 - i), block_bytes)) << i;
    }
  }
}

TEST_F(CudaBlockCopierTest, CopiesArriveWhole) {
  for (const auto [blocks, block_bytes] : kShapes) {
    SCOPED_TRACE(absl::StrCat(blocks, " blocks of ", block_bytes, " bytes"));
    MirroredBlocks from(*device_, blocks, block_bytes), to(*device_, blocks + 1, block_bytes);
    from.Randomise(random_);
    to.Poison();
    std::vector<size_t> order(blocks);
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), random_);
    CheckCopies(from, to, order, block_bytes);
  }
}

TEST_F(CudaBlockCopierTest, EveryBitCounts) {
  constexpr size_t kBytes = 32768 + 128;
  MirroredBlocks all(*device_, 65, kBytes);
  all.Randomise(random_);
  std::vector<const std::byte*> pointers;
  for (size_t i = 0; i < 65; ++i) {
    std::copy_n(all.host(0), kBytes, all.host(i));
    if (i > 0) all.host(i)[random_() % kBytes] ^= std::byte{static_cast<uint8_t>(1 << i % 8)};
    pointers.push_back(all.gpu(i));
  }
  all.Upload();
  std::vector<uint64_t> digests(65);
  ASSERT_OK(copier_->Digest(pointers, kBytes, absl::MakeSpan(digests)));
  for (size_t i = 1; i < 65; ++i) EXPECT_NE(digests[i], digests[0]) << i;
}

TEST_F(CudaBlockCopierTest, BlocksWithoutBytesHaveTheDigestOfNothing) {
  MirroredBlocks all(*device_, 2, 64);
  std::vector<uint64_t> digests(1, 1);
  ASSERT_OK(copier_->Copy({all.gpu(0)}, {all.gpu(1)}, 0, absl::MakeSpan(digests)));
  EXPECT_EQ(digests[0], BlockDigest().value());
  ASSERT_OK(copier_->Copy({}, {}, 64, {}));
}

TEST_F(CudaBlockCopierTest, OtherSizesAreRefused) {
  MirroredBlocks all(*device_, 2, 128);
  uint64_t digest = 0;
  EXPECT_STATUS(copier_->Digest({all.gpu(0)}, 96, absl::MakeSpan(&digest, 1)),
                absl::StatusCode::kInvalidArgument, "blocks of 96 bytes");
}

TEST_F(CudaBlockCopierTest, ThreadsMayShareIt) {
  constexpr size_t kBytes = 6144, kBlocks = 100;
  std::vector<std::unique_ptr<MirroredBlocks>> memory;
  for (int i = 0; i < 3; ++i) {
    memory.push_back(std::make_unique<MirroredBlocks>(*device_, kBlocks, kBytes));
    memory.back()->Randomise(random_);
  }
  std::vector<absl::Status> results(memory.size());
  std::vector<int> wrong(memory.size(), 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < memory.size(); ++t) {
    threads.emplace_back([&, t] {
      std::vector<const std::byte*> pointers;
      for (size_t i = 0; i < kBlocks; ++i) pointers.push_back(memory[t]->gpu(i));
      for (int round = 0; round < 50; ++round) {
        std::vector<uint64_t> digests(kBlocks);
        results[t].Update(copier_->Digest(pointers, kBytes, absl::MakeSpan(digests)));
        for (size_t i = 0; i < kBlocks; ++i) {
          if (digests[i] != DigestOf(memory[t]->host(i), kBytes)) ++wrong[t];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& result : results) EXPECT_OK(result);
  EXPECT_EQ(wrong, std::vector<int>(memory.size(), 0));
}

TEST_F(CudaBlockCopierTest, KnowsWhatAPlainCopyReaches) {
  const double measured = copier_->Bandwidth();
  EXPECT_GT(measured, 1e10);
  EXPECT_EQ(copier_->Bandwidth(), measured);
}

// In GB/s of the blocks' bytes, the median of several.
template <typename Run>
double Speed(size_t bytes, Run run) {
  std::vector<double> speeds;
  for (int i = 0; i < 11; ++i) {
    const absl::Time begun = absl::Now();
    run();
    speeds.push_back(static_cast<double>(bytes) / absl::ToDoubleSeconds(absl::Now() - begun) / 1e9);
  }
  std::sort(speeds.begin(), speeds.end());
  return speeds[5];
}

TEST_F(CudaBlockCopierTest, SpeedBesidePlainCopies) {
  constexpr size_t kBytes = 2 * kMiB, kMost = 1024;
  Ledger ledger;
  ASSERT_OK_AND_ASSIGN(const Buffer from, device_->Allocate(kMost * kBytes, "test", ledger));
  ASSERT_OK_AND_ASSIGN(const Buffer to, device_->Allocate(kMost * kBytes, "test", ledger));
  ASSERT_OK_AND_ASSIGN(const auto stream, device_->CreateStream());
  std::printf("plain copy of the copier: %.0f GB/s\n", copier_->Bandwidth() / 1e9);
  std::printf(
      "| blocks of 2 MiB | digest GB/s | copy and digest GB/s | one plain copy GB/s | plain copies "
      "by block GB/s |\n|---|---|---|---|---|\n");
  for (const size_t blocks : {1, 8, 16, 32, 64, 128, 256, 512, 1024}) {
    std::vector<const std::byte*> sources;
    std::vector<std::byte*> targets;
    for (size_t i = 0; i < blocks; ++i) {
      sources.push_back(from.as<std::byte>() + i * kBytes);
      targets.push_back(to.as<std::byte>() + (blocks - 1 - i) * kBytes);
    }
    std::vector<uint64_t> digests(blocks);
    absl::Status status;
    const double digest = Speed(blocks * kBytes, [&] {
      status.Update(copier_->Digest(sources, kBytes, absl::MakeSpan(digests)));
    });
    const double copy = Speed(blocks * kBytes, [&] {
      status.Update(copier_->Copy(sources, targets, kBytes, absl::MakeSpan(digests)));
    });
    const double plain = Speed(blocks * kBytes, [&] {
      status.Update(device_->Copy(*stream, to.data(), from.data(), blocks * kBytes));
      status.Update(stream->Synchronize());
    });
    const double by_block = Speed(blocks * kBytes, [&] {
      for (size_t i = 0; i < blocks; ++i) {
        status.Update(device_->Copy(*stream, targets[i], sources[i], kBytes));
      }
      status.Update(stream->Synchronize());
    });
    ASSERT_OK(status);
    std::printf("| %zu | %.0f | %.0f | %.0f | %.0f |\n", blocks, digest, copy, plain, by_block);
  }
}

}  // namespace
}  // namespace muster
