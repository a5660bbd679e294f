#include "base/ids.h"

#include <gtest/gtest.h>

#include <limits>
#include <sstream>
#include <type_traits>
#include <unordered_set>

#include "absl/container/flat_hash_set.h"

namespace muster {
namespace {

template <typename From, typename To>
constexpr bool kConverts = std::is_convertible_v<From, To> || std::is_constructible_v<To, From> ||
                           std::is_assignable_v<To&, From>;
template <typename A, typename B>
concept Adds = requires(A a, B b) {
  a + b;
};
template <typename A, typename B>
concept Compares = requires(A a, B b) {
  a == b;
};

static_assert(!kConverts<GlobalRank, GroupRank> && !kConverts<GroupRank, GlobalRank>);
static_assert(!kConverts<GlobalRank, DeviceOrdinal> && !kConverts<DeviceOrdinal, GlobalRank>);
static_assert(!kConverts<GroupRank, DeviceOrdinal> && !kConverts<DeviceOrdinal, GroupRank>);
static_assert(!kConverts<GlobalRank, ReplicaIndex> && !kConverts<ReplicaIndex, GlobalRank>);
static_assert(!kConverts<Epoch, Term> && !kConverts<Term, Epoch>);
static_assert(!kConverts<Epoch, StepNumber> && !kConverts<StepNumber, Epoch>);
static_assert(!kConverts<Incarnation, GroupId> && !kConverts<GroupId, Incarnation>);

// An integer becomes an id only where somebody says so, and an id never becomes one by itself.
static_assert(!std::is_convertible_v<int, GlobalRank> && std::is_constructible_v<GlobalRank, int>);
static_assert(!std::is_assignable_v<GlobalRank&, int>);
static_assert(!kConverts<GlobalRank, int> && !kConverts<Epoch, uint64_t>);
static_assert(!kConverts<GlobalRank, bool>);

static_assert(!Adds<GlobalRank, GlobalRank> && !Adds<GlobalRank, int>);
static_assert(Compares<GlobalRank, GlobalRank>);
static_assert(!Compares<GlobalRank, GroupRank> && !Compares<GlobalRank, int>);

static_assert(sizeof(GlobalRank) == sizeof(int) && sizeof(Epoch) == sizeof(uint64_t));
static_assert(std::is_trivially_copyable_v<Epoch>);

TEST(StrongId, HoldsItsValue) {
  EXPECT_EQ(GlobalRank(3).value(), 3);
  EXPECT_EQ(GlobalRank().value(), 0);
  EXPECT_EQ(Incarnation(std::numeric_limits<uint64_t>::max()).value(), 0xffffffffffffffffu);
}

TEST(StrongId, IsOrderedByItsValue) {
  EXPECT_LT(Epoch(1), Epoch(2));
  EXPECT_GT(Epoch(0x8000000000000000), Epoch(1));
  EXPECT_LT(GlobalRank(-1), GlobalRank(0));
  EXPECT_EQ(Term(7), Term(7));
  EXPECT_NE(Term(7), Term(8));
}

TEST(StrongId, IsAKeyOfBothHashes) {
  const std::unordered_set<GroupId> standard = {GroupId(1), GroupId(2), GroupId(1)};
  const absl::flat_hash_set<GroupId> flat = {GroupId(1), GroupId(2), GroupId(1)};
  EXPECT_EQ(standard.size(), 2u);
  EXPECT_EQ(flat.size(), 2u);
  EXPECT_TRUE(flat.contains(GroupId(2)));
}

TEST(StrongId, PrintsItsValue) {
  std::ostringstream out;
  out << GlobalRank(3) << " " << Epoch(18);
  EXPECT_EQ(out.str(), "3 18");
}

}  // namespace
}  // namespace muster
