// What a conformance case runs on, on each rank.
#ifndef MUSTER_TESTS_CONFORMANCE_RANK_HARNESS_H_
#define MUSTER_TESTS_CONFORMANCE_RANK_HARNESS_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/conformance/backend.h"
#include "tests/conformance/numbers.h"
#include "tests/support/run_ranks.h"
#include "worker/collective/collective_backend.h"
#include "worker/collective/collective_set.h"
#include "worker/device/device.h"

namespace muster::testing {

// This rank's end of a group, without the phases of a CollectiveSet. Destroyed in this order:
// communicator and workspace, then the endpoint.
struct JoinedGroup {
  Group group;
  std::unique_ptr<CollectiveEndpoint> endpoint;
  std::unique_ptr<Workspace> workspace;
  std::unique_ptr<Communicator> communicator;
};

// One rank of a case: device, stream, ledger and shorthands. At its end the ledger must be empty
// and, in a process of its own, no descriptor may have been added.
class RankHarness {
 public:
  using Case = std::function<absl::Status(RankHarness&)>;

  // Runs `body` on what `context` asks for.
  static absl::Status Run(RankContext& context, const Case& body);

  RankContext& context() { return context_; }
  int rank() const { return context_.rank.value(); }
  int world() const { return context_.world; }
  RunMode mode() const { return variant_.mode; }
  Device& device() { return backend_->device(); }
  CollectiveBackend& collectives() { return backend_->collectives(); }
  Stream& stream() { return *stream_; }
  Ledger& ledger() { return ledger_; }

  // Another backend, on this rank's device, before the first use of the old one.
  absl::Status UseBackend(RankOptions options);

  // All ranks, or some, in an order, seen from this one.
  Group WorldGroup(Epoch epoch = Epoch(1)) const;
  absl::StatusOr<Group> GroupOf(GroupKind kind, const std::vector<int>& ranks,
                                Epoch epoch = Epoch(1)) const;
  // Allocates, exchanges handles and opens. All ranks of the group together.
  absl::StatusOr<JoinedGroup> Join(const Group& group, uint64_t slab_bytes,
                                   Fusion fusion = Fusion::kFused);
  absl::StatusOr<JoinedGroup> JoinWorld(uint64_t slab_bytes = uint64_t{16} << 10);

  // Enqueues on the stream, or captures and launches, then synchronises.
  absl::Status Execute(absl::FunctionRef<absl::Status()> enqueue);

  absl::StatusOr<Buffer> Allocate(size_t bytes);
  absl::StatusOr<Buffer> Upload(const Bytes& bytes);
  absl::Status Upload(const Bytes& bytes, Buffer& to);
  absl::StatusOr<Bytes> Download(const Buffer& from, size_t bytes);

  // Ranks of the case meet; values in rank order.
  absl::StatusOr<std::vector<std::string>> Meet(absl::string_view key,
                                                absl::string_view value = "");
  // Remembers a result that must have the same bits on all ranks; AgreeOnWitnesses compares all
  // so far, and names what differs.
  void Witness(absl::string_view what, const Bytes& bytes);
  absl::Status AgreeOnWitnesses();

 private:
  RankHarness(RankContext& context, Variant variant)
      : context_(context), variant_(std::move(variant)) {}

  RankContext& context_;
  const Variant variant_;
  Ledger ledger_;
  std::unique_ptr<RankBackend> backend_;
  std::unique_ptr<Stream> stream_;
  std::vector<std::string> witnesses_;
};

// Every size from 2 to 16 that a doubling or a halving could get wrong, and the lonely rank.
inline const std::vector<int> kGroupSizes = {1, 2, 3, 4, 5, 8, 16};

// Of a suite whose parameter is a Variant.
class RanksConformance : public ::testing::TestWithParam<Variant> {
 protected:
  // Runs the case on so many ranks.
  std::vector<RankResult> Run(int world, absl::string_view case_name);
  // Runs the case on each number of ranks; all must return OK, and leave no descriptor behind.
  void RunCase(absl::string_view case_name, const std::vector<int>& worlds);
};

// RANKS_TEST(Suite, SaysWhatHolds, {2, 3}) { ... rank ... return status; }: the body runs on every
// rank of each number of ranks.
#define RANKS_TEST(suite, name, ...)                                                        \
  static absl::Status Case_##suite##_##name(RankHarness& rank);                             \
  static const RankCase kCase_##suite##_##name(#suite "." #name, [](RankContext& context) { \
    return RankHarness::Run(context, &Case_##suite##_##name);                               \
  });                                                                                       \
  TEST_P(suite, name) { RunCase(#suite "." #name, __VA_ARGS__); }                           \
  static absl::Status Case_##suite##_##name(RankHarness& rank)

#define INSTANTIATE_CONFORMANCE(suite)                                    \
  INSTANTIATE_TEST_SUITE_P(On, suite, ::testing::ValuesIn(AllVariants()), \
                           [](const auto& info) { return info.param.Name(); })

}  // namespace muster::testing

#endif  // MUSTER_TESTS_CONFORMANCE_RANK_HARNESS_H_
