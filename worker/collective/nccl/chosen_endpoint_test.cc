#include "worker/collective/nccl/chosen_endpoint.h"

#include <memory>

#include "tests/support/status_matchers.h"
#include "worker/collective/shm/shm_backend.h"
#include "worker/device/cpu/cpu_device.h"

namespace muster {
namespace {

// Two ranks in one thread, over two ends of shared memory each that stand for IPC and NCCL.
class ChosenEndpointTest : public ::testing::Test {
 protected:
  struct Rank {
    std::unique_ptr<ChosenEndpoint> endpoint;
    CollectiveEndpoint* ipc = nullptr;
    CollectiveEndpoint* nccl = nullptr;
  };

  Rank Make(int rank, GpuReach reach, bool sees_need = true) {
    GroupSpec spec{.kind = GroupKind::kStage, .ranks = {GlobalRank(0), GlobalRank(1)}};
    spec.id = DigestGroup(Epoch(1), spec.kind, spec.ranks);
    const Group group = Group::Create(spec, GlobalRank(rank)).value();
    const WorkspacePlan plan{
        .ranks = spec.ranks, .kinds = {spec.kind}, .slab_bytes = 4096, .tag = "workspace"};
    ChosenEndpoint::Candidates ends;
    ends.ipc = backend_.Allocate(group, plan, ledger_).value();
    if (sees_need) ends.nccl = backend_.Allocate(group, plan, ledger_).value();
    Rank made{.ipc = ends.ipc.get(), .nccl = ends.nccl.get()};
    made.endpoint =
        std::make_unique<ChosenEndpoint>(group, std::move(reach), std::move(ends), Logger());
    return made;
  }

  absl::Status Open(const Rank& a, const Rank& b) {
    const std::vector<std::string> handles = {a.endpoint->Handle(), b.endpoint->Handle()};
    absl::Status status = a.endpoint->Open(handles);
    status.Update(b.endpoint->Open(handles));
    return status;
  }

  CpuDevice device_{CpuDeviceOptions{}};
  ShmBackend backend_{device_, {}};
  Ledger ledger_;
};

TEST_F(ChosenEndpointTest, TakesIpcWhereTheGpusReachEachOtherAndGivesTheOtherEndBack) {
  Rank a = Make(0, {"h", "A", {}}), b = Make(1, {"h", "B", {}});
  const uint64_t both = ledger_.total();
  ASSERT_OK(Open(a, b));
  EXPECT_EQ(a.endpoint->chosen(), a.ipc);
  EXPECT_EQ(b.endpoint->chosen(), b.ipc);
  EXPECT_EQ(ledger_.total(), both / 2);
}

TEST_F(ChosenEndpointTest, TakesNcclOnAllRanksWhereOneGpuDoesNotReachTheOther) {
  Rank a = Make(0, {"h", "A", {}}), b = Make(1, {"h", "B", {"A"}});
  ASSERT_OK(Open(a, b));
  EXPECT_EQ(a.endpoint->chosen(), a.nccl);
  EXPECT_EQ(b.endpoint->chosen(), b.nccl);
}

TEST_F(ChosenEndpointTest, NamesARankThatSawNoNeedForNccl) {
  Rank a = Make(0, {"h", "A", {}}, /*sees_need=*/false), b = Make(1, {"h", "B", {"A"}});
  const absl::Status status = Open(a, b);
  EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition,
                "no peer access between A of rank 0 and B of rank 1");
  EXPECT_STATUS(status, absl::StatusCode::kFailedPrecondition, "rank 0 saw no need");
}

TEST_F(ChosenEndpointTest, GivesWorkspacesThatWorkOnceItIsOpen) {
  Rank a = Make(0, {"h", "A", {}}), b = Make(1, {"h", "B", {}});
  ASSERT_OK_AND_ASSIGN(const Group group, Group::Create({.kind = GroupKind::kStage,
                                                         .ranks = {GlobalRank(0), GlobalRank(1)}},
                                                        GlobalRank(0)));
  const auto workspace = a.endpoint->MakeWorkspace(group, Fusion::kFused);
  const auto communicator = a.endpoint->MakeCommunicator(group);
  ASSERT_OK_AND_ASSIGN(const auto stream, device_.CreateStream());
  EXPECT_STATUS(communicator->Barrier(*stream), absl::StatusCode::kFailedPrecondition, "opened");
  EXPECT_EQ(workspace->bytes(), 0u);
  ASSERT_OK(Open(a, b));
  EXPECT_NE(workspace->bytes(), 0u);
  communicator->Abort(absl::DataLossError("the power fails"));
  absl::Status status = communicator->Barrier(*stream);
  status.Update(stream->Synchronize());
  EXPECT_STATUS(status, absl::StatusCode::kDataLoss, "the power fails");
}

TEST_F(ChosenEndpointTest, IsNotOpenedAfterAnAbort) {
  Rank a = Make(0, {"h", "A", {}}), b = Make(1, {"h", "B", {}});
  a.endpoint->Abort(absl::DataLossError("the power fails"));
  EXPECT_STATUS(Open(a, b), absl::StatusCode::kDataLoss, "the power fails");
}

TEST_F(ChosenEndpointTest, RefusesHandlesOfSomethingElse) {
  Rank a = Make(0, {"h", "A", {}});
  EXPECT_STATUS(a.endpoint->Open({"x", "y"}), absl::StatusCode::kInvalidArgument, "not a handle");
}

}  // namespace
}  // namespace muster
