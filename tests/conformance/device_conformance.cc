// What every Device, Stream and Graph keep to.
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/conformance/rank_harness.h"
#include "tests/support/allocation_count.h"

namespace muster::testing {
namespace {

class DeviceConformance : public RanksConformance {};
INSTANTIATE_CONFORMANCE(DeviceConformance);

RANKS_TEST(DeviceConformance, MemoryIsZeroedAlignedAndCharged, {1}) {
  for (size_t bytes : {size_t{1}, size_t{4097}, (size_t{3} << 20) + 5}) {
    MUSTER_ASSIGN_OR_RETURN(const Buffer buffer, rank.Allocate(bytes));
    MUSTER_RETURN_IF_ERROR(ExpectTrue(reinterpret_cast<uintptr_t>(buffer.data()) % 256 == 0,
                                      absl::StrCat("the alignment of ", bytes, " bytes")));
    MUSTER_RETURN_IF_ERROR(ExpectTrue(rank.ledger().total() == bytes, "the charge"));
    MUSTER_ASSIGN_OR_RETURN(const Bytes got, rank.Download(buffer, bytes));
    MUSTER_RETURN_IF_ERROR(ExpectEqual("fresh memory", got, Bytes(bytes)));
  }
  return ExpectTrue(rank.ledger().total() == 0, "nothing is charged at the end");
}

RANKS_TEST(DeviceConformance, ExportedMemoryIsZeroedAlignedChargedAndOpensByItsHandle, {1}) {
  constexpr size_t kBytes = 70001;
  {
    MUSTER_ASSIGN_OR_RETURN(const ExportedBuffer exported,
                            rank.device().AllocateExported(kBytes, "kv", rank.ledger()));
    MUSTER_RETURN_IF_ERROR(
        ExpectTrue(reinterpret_cast<uintptr_t>(exported.data()) % 256 == 0, "the alignment"));
    MUSTER_RETURN_IF_ERROR(ExpectTrue(rank.ledger().total() >= kBytes, "the charge"));
    MUSTER_ASSIGN_OR_RETURN(const PeerMemory opened, rank.device().OpenExported(exported.handle()));
    MUSTER_RETURN_IF_ERROR(ExpectTrue(opened.bytes() == kBytes, "the size that was opened"));
    const Bytes sent = RandomBytes("sent", kBytes);
    Bytes before(kBytes, std::byte{1}), got(kBytes);
    MUSTER_RETURN_IF_ERROR(rank.Execute([&]() -> absl::Status {
      Device& device = rank.device();
      MUSTER_RETURN_IF_ERROR(device.Copy(rank.stream(), before.data(), opened.data(), kBytes));
      MUSTER_RETURN_IF_ERROR(device.Copy(rank.stream(), exported.data(), sent.data(), kBytes));
      return device.Copy(rank.stream(), got.data(), opened.data(), kBytes);
    }));
    MUSTER_RETURN_IF_ERROR(ExpectEqual("fresh memory", before, Bytes(kBytes)));
    MUSTER_RETURN_IF_ERROR(ExpectEqual("what was opened", got, sent));
  }
  MUSTER_RETURN_IF_ERROR(ExpectStatus(rank.device().OpenExported("nonsense").status(),
                                      absl::StatusCode::kUnavailable, ""));
  return ExpectTrue(rank.ledger().total() == 0, "nothing is charged at the end");
}

RANKS_TEST(DeviceConformance, AnAllocationBeyondTheLimitNamesWantedAndFreeBytes, {1}) {
  MUSTER_RETURN_IF_ERROR(rank.UseBackend({.memory_limit = 1 << 20}));
  MUSTER_ASSIGN_OR_RETURN(const Buffer most, rank.Allocate(768 << 10));
  const absl::Status status = rank.Allocate(512 << 10).status();
  MUSTER_RETURN_IF_ERROR(
      ExpectStatus(status, absl::StatusCode::kResourceExhausted, "wanted 512.0 KiB"));
  MUSTER_RETURN_IF_ERROR(
      ExpectStatus(status, absl::StatusCode::kResourceExhausted, "256.0 KiB free"));
  return ExpectTrue(rank.ledger().total() == most.size(), "only what succeeded is charged");
}

RANKS_TEST(DeviceConformance, TheOrdinalIsThatOfTheOptionsWhateverTheRank, {3}) {
  MUSTER_RETURN_IF_ERROR(ExpectTrue(
      rank.device().Report().ordinal == DeviceOrdinal(rank.world() - rank.rank()), "the ordinal"));
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.JoinWorld());
  return rank.Execute([&] { return joined.communicator->Barrier(rank.stream()); });
}

RANKS_TEST(DeviceConformance, CopiesRunInTheOrderInWhichTheyAreEnqueued, {1}) {
  const Bytes first = RandomBytes("first", 1000), second = RandomBytes("second", 1000);
  MUSTER_ASSIGN_OR_RETURN(const Buffer a, rank.Allocate(1000));
  MUSTER_ASSIGN_OR_RETURN(const Buffer b, rank.Allocate(1000));
  MUSTER_RETURN_IF_ERROR(rank.Execute([&]() -> absl::Status {
    MUSTER_RETURN_IF_ERROR(rank.device().Copy(rank.stream(), a.data(), first.data(), 1000));
    MUSTER_RETURN_IF_ERROR(rank.device().Copy(rank.stream(), b.data(), a.data(), 1000));
    return rank.device().Copy(rank.stream(), a.data(), second.data(), 1000);
  }));
  MUSTER_ASSIGN_OR_RETURN(const Bytes in_a, rank.Download(a, 1000));
  MUSTER_RETURN_IF_ERROR(ExpectEqual("the last copy", in_a, second));
  MUSTER_ASSIGN_OR_RETURN(const Bytes in_b, rank.Download(b, 1000));
  return ExpectEqual("the copy in between", in_b, first);
}

RANKS_TEST(DeviceConformance, AGraphRunsWhatWasRecordedOnWhatItsMemoryHoldsNow, {1}) {
  MUSTER_ASSIGN_OR_RETURN(Buffer from, rank.Upload(RandomBytes("first", 100)));
  MUSTER_ASSIGN_OR_RETURN(const Buffer to, rank.Allocate(100));
  MUSTER_ASSIGN_OR_RETURN(const auto graph, rank.device().Capture(rank.stream(), [&] {
    return rank.device().Copy(rank.stream(), to.data(), from.data(), 100);
  }));
  MUSTER_ASSIGN_OR_RETURN(const Bytes untouched, rank.Download(to, 100));
  MUSTER_RETURN_IF_ERROR(ExpectEqual("memory after the capture", untouched, Bytes(100)));
  for (const char* round : {"second", "third"}) {
    MUSTER_RETURN_IF_ERROR(rank.Upload(RandomBytes(round, 100), from));
    MUSTER_RETURN_IF_ERROR(graph->Launch(rank.stream()));
    MUSTER_ASSIGN_OR_RETURN(const Bytes got, rank.Download(to, 100));
    MUSTER_RETURN_IF_ERROR(ExpectEqual(round, got, RandomBytes(round, 100)));
  }
  return absl::OkStatus();
}

RANKS_TEST(DeviceConformance, ACaptureThatFailsKeepsAndRunsNothing, {1}) {
  MUSTER_ASSIGN_OR_RETURN(const Buffer from, rank.Upload(RandomBytes("first", 100)));
  MUSTER_ASSIGN_OR_RETURN(const Buffer to, rank.Allocate(100));
  const auto failed = rank.device().Capture(rank.stream(), [&]() -> absl::Status {
    MUSTER_RETURN_IF_ERROR(rank.device().Copy(rank.stream(), to.data(), from.data(), 100));
    return absl::DataLossError("half way");
  });
  MUSTER_RETURN_IF_ERROR(ExpectStatus(failed.status(), absl::StatusCode::kDataLoss, "half way"));
  MUSTER_ASSIGN_OR_RETURN(const Bytes untouched, rank.Download(to, 100));
  return ExpectEqual("memory after the capture", untouched, Bytes(100));
}

RANKS_TEST(DeviceConformance, AReplayOfCollectivesAllocatesNothing, {1, 2, 3}) {
  constexpr int kTokens = 40, kWidth = 96;  // several slices of the slab
  constexpr size_t kBytes = size_t{kTokens} * kWidth * sizeof(float);
  MUSTER_ASSIGN_OR_RETURN(JoinedGroup joined, rank.Join(rank.WorldGroup(), 4096));
  MUSTER_ASSIGN_OR_RETURN(const Buffer in, rank.Upload(RandomBytes("operand", kBytes)));
  MUSTER_ASSIGN_OR_RETURN(const Buffer out, rank.Allocate(kBytes * 3));
  const FusedAllReduceRmsNorm norm{.partial = in.data(),
                                   .weight = in.as<float>(),
                                   .norm_out = out.data(),
                                   .tokens = kTokens,
                                   .hidden = kWidth};
  const CpCombine combine{.partial = in.as<float>(),
                          .lse = in.as<float>(),
                          .out = out.as<float>(),
                          .tokens = kTokens,
                          .heads = 3,
                          .head_dim = 32};
  joined.endpoint->SetTwoShotBytes(2048);
  MUSTER_ASSIGN_OR_RETURN(
      const auto graph, rank.device().Capture(rank.stream(), [&]() -> absl::Status {
        MUSTER_RETURN_IF_ERROR(joined.workspace->Enqueue(rank.stream(), norm));
        MUSTER_RETURN_IF_ERROR(joined.workspace->Enqueue(rank.stream(), combine));
        Communicator& plain = *joined.communicator;
        MUSTER_RETURN_IF_ERROR(plain.AllReduce(rank.stream(), out.data(), 5000, DType::kFloat32));
        MUSTER_RETURN_IF_ERROR(plain.AllGather(rank.stream(), in.data(), out.data(), 5000));
        MUSTER_RETURN_IF_ERROR(
            plain.ReduceScatter(rank.stream(), in.data(), out.data(), 1000, DType::kBFloat16));
        MUSTER_RETURN_IF_ERROR(plain.Broadcast(rank.stream(), out.data(), 5000, GroupRank(0)));
        return plain.Barrier(rank.stream());
      }));
  MUSTER_RETURN_IF_ERROR(graph->Launch(rank.stream()));
  const uint64_t before = AllocationsOfThisThread();
  for (int i = 0; i < 20; ++i) MUSTER_RETURN_IF_ERROR(graph->Launch(rank.stream()));
  const uint64_t allocated = AllocationsOfThisThread() - before;
  return ExpectTrue(allocated == 0, absl::StrCat("no allocation; it was ", allocated));
}

}  // namespace
}  // namespace muster::testing
