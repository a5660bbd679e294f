// On a machine with a GPU: what only shows between processes, or ends one's use of the GPU.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/topology.h"
#include "kernels/cuda_status.h"
#include "tests/support/run_ranks.h"
#include "tests/support/status_matchers.h"
#include "worker/collective/group.h"
#include "worker/device/cuda/cuda_device.h"
#include "worker/device/cuda/cuda_export.h"
#include "worker/device/cuda/cuda_test_kernels.h"

namespace muster::testing {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr size_t kBytes = 3 * kMiB + 5;

absl::Status Wanted(bool true_that, absl::string_view what) {
  return true_that ? absl::OkStatus() : absl::DataLossError(absl::StrCat("not so: ", what));
}

// One of two ranks, each a process; on two GPUs where there are so many.
class Side {
 public:
  static absl::Status Run(RankContext& context, absl::Status (*body)(Side&)) {
    Side side(context);
    MUSTER_ASSIGN_OR_RETURN(
        side.device_, CudaDevice::Create(
                          {.ordinal = DeviceOrdinal(context.rank.value()), .oversubscribe = true}));
    MUSTER_ASSIGN_OR_RETURN(side.stream_, side.device_->CreateStream());
    return body(side);
  }

  bool exports() const { return context_.rank == GlobalRank(0); }
  CudaDevice& device() { return *device_; }
  Stream& stream() { return *stream_; }
  Ledger& ledger() { return ledger_; }

  absl::StatusOr<ExportedBuffer> Export() {
    return device_->AllocateExported(kBytes, "slab", ledger_);
  }
  // Both ranks meet; the answer is what the exporter gave.
  absl::StatusOr<std::string> Meet(absl::string_view key, absl::string_view value = "") {
    GroupSpec spec{.kind = GroupKind::kTp, .ranks = {GlobalRank(0), GlobalRank(1)}};
    spec.id = DigestGroup(Epoch(1), spec.kind, spec.ranks);
    MUSTER_ASSIGN_OR_RETURN(const Group group, Group::Create(spec, context_.rank));
    MUSTER_ASSIGN_OR_RETURN(const std::vector<std::string> values,
                            context_.rendezvous.AllGather(group, key, value, absl::Seconds(20)));
    return values[0];
  }
  absl::Status Fill(void* data, char with) {
    const std::vector<char> bytes(kBytes, with);
    MUSTER_RETURN_IF_ERROR(device_->Copy(*stream_, data, bytes.data(), kBytes));
    return stream_->Synchronize();
  }
  absl::Status ExpectAll(const void* data, char wanted, absl::string_view what) {
    std::vector<char> bytes(kBytes, static_cast<char>(wanted + 1));
    MUSTER_RETURN_IF_ERROR(device_->Copy(*stream_, bytes.data(), data, kBytes));
    MUSTER_RETURN_IF_ERROR(stream_->Synchronize());
    return Wanted(bytes == std::vector<char>(kBytes, wanted), what);
  }

 private:
  explicit Side(RankContext& context) : context_(context) {}

  RankContext& context_;
  Ledger ledger_;
  std::unique_ptr<CudaDevice> device_;
  std::unique_ptr<Stream> stream_;
};

#define SIDES_TEST(name)                                                                           \
  static absl::Status name(Side& side);                                                            \
  static const RankCase kCase_##name(                                                              \
      #name, [](RankContext& context) { return Side::Run(context, &name); });                      \
  TEST(CudaProcesses, name) { EXPECT_OK(AllOk(RunRanks(2, #name, {.as = RanksAs::kProcesses}))); } \
  static absl::Status name(Side& side)

SIDES_TEST(SeeEachOthersWritesInExportedMemory) {
  ExportedBuffer exported;
  if (side.exports()) {
    MUSTER_ASSIGN_OR_RETURN(exported, side.Export());
  }
  MUSTER_ASSIGN_OR_RETURN(const std::string handle, side.Meet("handle", exported.handle()));
  PeerMemory opened;
  if (!side.exports()) {
    MUSTER_ASSIGN_OR_RETURN(opened, side.device().OpenExported(handle));
    MUSTER_RETURN_IF_ERROR(Wanted(opened.bytes() == kBytes, "the size"));
    MUSTER_RETURN_IF_ERROR(side.ExpectAll(opened.data(), 0, "fresh memory is zero"));
  }
  MUSTER_RETURN_IF_ERROR(side.Meet("opened").status());
  if (side.exports()) MUSTER_RETURN_IF_ERROR(side.Fill(exported.data(), 7));
  MUSTER_RETURN_IF_ERROR(side.Meet("written").status());
  if (!side.exports()) {
    MUSTER_RETURN_IF_ERROR(side.ExpectAll(opened.data(), 7, "the exporter's bytes"));
    MUSTER_RETURN_IF_ERROR(side.Fill(opened.data(), 9));
    // Twice the same, and one goes before the other.
    MUSTER_ASSIGN_OR_RETURN(const PeerMemory again, side.device().OpenExported(handle));
    opened = PeerMemory();
    MUSTER_RETURN_IF_ERROR(side.ExpectAll(again.data(), 9, "the reader's own bytes"));
  }
  MUSTER_RETURN_IF_ERROR(side.Meet("closed").status());
  if (side.exports()) {
    MUSTER_RETURN_IF_ERROR(side.ExpectAll(exported.data(), 9, "the reader's bytes"));
  }
  return absl::OkStatus();
}

SIDES_TEST(CannotOpenWhatWasFreed) {
  ExportedBuffer exported;
  if (side.exports()) {
    MUSTER_ASSIGN_OR_RETURN(exported, side.Export());
  }
  MUSTER_ASSIGN_OR_RETURN(const std::string handle, side.Meet("handle", exported.handle()));
  exported = ExportedBuffer();
  MUSTER_RETURN_IF_ERROR(side.Meet("freed").status());
  if (!side.exports()) {
    const absl::Status status = side.device().OpenExported(handle).status();
    std::printf("[ figures ] freed: %s\n", status.ToString().c_str());
    MUSTER_RETURN_IF_ERROR(Wanted(absl::IsUnavailable(status), status.ToString()));
  }
  return side.Meet("tried").status();
}

SIDES_TEST(TellANewExportFromAnOldOneAtItsPlace) {
  ExportedBuffer exported;
  if (side.exports()) {
    MUSTER_ASSIGN_OR_RETURN(exported, side.Export());
  }
  MUSTER_ASSIGN_OR_RETURN(const std::string handle, side.Meet("handle", exported.handle()));
  if (side.exports()) {
    const void* const place = exported.data();
    exported = ExportedBuffer();
    MUSTER_ASSIGN_OR_RETURN(exported, side.Export());
    std::printf("[ figures ] the new export is at %s place\n",
                exported.data() == place ? "the same" : "another");
  }
  MUSTER_RETURN_IF_ERROR(side.Meet("freed and made again").status());
  if (!side.exports()) {
    const absl::Status status = side.device().OpenExported(handle).status();
    std::printf("[ figures ] replaced: %s\n", status.ToString().c_str());
    MUSTER_RETURN_IF_ERROR(Wanted(absl::IsUnavailable(status), status.ToString()));
  }
  return side.Meet("tried").status();
}

// A rank that gives up alone frees its region while kernels of its peers still push into it: their
// mapping keeps the memory, which nobody else gets meanwhile.
SIDES_TEST(WriteWhatALiveExporterHasFreedAndDisturbNobody) {
  ExportedBuffer exported;
  if (side.exports()) {
    MUSTER_ASSIGN_OR_RETURN(exported, side.Export());
  }
  MUSTER_ASSIGN_OR_RETURN(const std::string handle, side.Meet("handle", exported.handle()));
  PeerMemory opened;
  if (!side.exports()) {
    MUSTER_ASSIGN_OR_RETURN(opened, side.device().OpenExported(handle));
  }
  MUSTER_RETURN_IF_ERROR(side.Meet("opened").status());
  std::vector<ExportedBuffer> later;
  if (side.exports()) {
    exported = ExportedBuffer();
    for (int i = 0; i < 8; ++i) {
      MUSTER_ASSIGN_OR_RETURN(later.emplace_back(), side.Export());
      MUSTER_RETURN_IF_ERROR(side.Fill(later.back().data(), 3));
    }
  }
  MUSTER_RETURN_IF_ERROR(side.Meet("freed").status());
  if (!side.exports()) {
    MUSTER_RETURN_IF_ERROR(side.Fill(opened.data(), 9));
    MUSTER_RETURN_IF_ERROR(side.ExpectAll(opened.data(), 9, "what was freed by its owner"));
    opened = PeerMemory();
  }
  MUSTER_RETURN_IF_ERROR(side.Meet("written and closed").status());
  for (const ExportedBuffer& buffer : later) {
    MUSTER_RETURN_IF_ERROR(side.ExpectAll(buffer.data(), 3, "what its owner got afterwards"));
  }
  return side.Meet("looked").status();
}

SIDES_TEST(LeaveNoMemoryBehindAHundredExportsAndOpenings) {
  uint64_t before = 0;
  for (int i = 0; i < 101; ++i) {
    ExportedBuffer exported;
    if (side.exports()) {
      MUSTER_ASSIGN_OR_RETURN(exported, side.Export());
    }
    MUSTER_ASSIGN_OR_RETURN(const std::string handle,
                            side.Meet(absl::StrCat("handle", i), exported.handle()));
    if (!side.exports()) {
      MUSTER_ASSIGN_OR_RETURN(const PeerMemory opened, side.device().OpenExported(handle));
    }
    MUSTER_RETURN_IF_ERROR(side.Meet(absl::StrCat("closed", i)).status());
    exported = ExportedBuffer();
    MUSTER_RETURN_IF_ERROR(side.Meet(absl::StrCat("freed", i)).status());
    if (i == 0) before = side.device().Report().free_bytes;
  }
  const uint64_t after = side.device().Report().free_bytes;
  return Wanted(after + 8 * kMiB >= before, absl::StrCat(before, " bytes were free, now ", after));
}

const RankCase kExporterDies("ExporterDies", [](RankContext& context) {
  return Side::Run(context, [](Side& side) -> absl::Status {
    ExportedBuffer exported;
    if (side.exports()) {
      MUSTER_ASSIGN_OR_RETURN(exported, side.Export());
      MUSTER_RETURN_IF_ERROR(side.Fill(exported.data(), 7));
    }
    MUSTER_ASSIGN_OR_RETURN(const std::string handle, side.Meet("handle", exported.handle()));
    PeerMemory opened;
    if (!side.exports()) {
      MUSTER_ASSIGN_OR_RETURN(opened, side.device().OpenExported(handle));
    }
    MUSTER_RETURN_IF_ERROR(side.Meet("opened").status());
    if (side.exports()) raise(SIGKILL);
    while (side.Meet("is it gone").ok()) {
    }
    MUSTER_RETURN_IF_ERROR(side.ExpectAll(opened.data(), 7, "the bytes of the dead"));
    opened = PeerMemory();
    const absl::Status status = side.device().OpenExported(handle).status();
    std::printf("[ figures ] exporter gone: %s\n", status.ToString().c_str());
    return Wanted(absl::IsUnavailable(status), status.ToString());
  });
});

TEST(CudaProcesses, ReadWhatTheyOpenedWhenTheExporterIsDead) {
  const std::vector<RankResult> results = RunRanks(2, "ExporterDies", {.as = RanksAs::kProcesses});
  EXPECT_STATUS(results[0].status, absl::StatusCode::kUnavailable, "killed by signal 9");
  EXPECT_OK(results[1].status);
}

const RankCase kIllegal("Illegal", [](RankContext& context) {
  return Side::Run(context, [](Side& side) -> absl::Status {
    MUSTER_ASSIGN_OR_RETURN(const Buffer memory, side.device().Allocate(4096, "kv", side.ledger()));
    MUSTER_ASSIGN_OR_RETURN(const ExportedBuffer exported, side.Export());
    auto& stream = CudaDeviceStream::From(side.stream());
    auto* const nowhere = reinterpret_cast<uint32_t*>(uint64_t{16});
    MUSTER_RETURN_IF_ERROR(CudaStatus(AddOneCuda(nowhere, stream.get()), "adding one"));
    const absl::Status status = stream.Synchronize();
    std::printf("[ figures ] illegal address: %s\n", status.ToString().c_str());
    MUSTER_RETURN_IF_ERROR(Wanted(absl::IsInternal(status), status.ToString()));
    return Wanted(!side.device().Allocate(1, "kv", side.ledger()).ok(), "all is over");
  });
});

TEST(CudaProcesses, AnIllegalAddressIsReportedAndAllIsGivenBack) {
  EXPECT_OK(AllOk(RunRanks(1, "Illegal", {.as = RanksAs::kProcesses})));
}

const RankCase kStart("Start", [](RankContext& context) {
  const auto start = std::chrono::steady_clock::now();
  const absl::Status status = Side::Run(context, [](Side&) { return absl::OkStatus(); });
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  context.output = absl::StrCat(took.count());
  return status;
});

TEST(CudaProcesses, PrintHowLongADeviceTakesToStart) {
  for (const char* loading : {"LAZY", "EAGER"}) {
    setenv("CUDA_MODULE_LOADING", loading, 1);
    const std::vector<RankResult> results = RunRanks(1, "Start", {.as = RanksAs::kProcesses});
    EXPECT_OK(AllOk(results));
    std::printf("[ figures ] a device starts in %s ms, module loading %s\n",
                results[0].output.c_str(), loading);
  }
  unsetenv("CUDA_MODULE_LOADING");
}

}  // namespace
}  // namespace muster::testing
