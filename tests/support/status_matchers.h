// Assertions on absl::Status and absl::StatusOr, with GoogleTest alone.
#ifndef MUSTER_TESTS_SUPPORT_STATUS_MATCHERS_H_
#define MUSTER_TESTS_SUPPORT_STATUS_MATCHERS_H_

#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"

namespace muster::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

inline ::testing::AssertionResult IsOk(const absl::Status& status) {
  if (status.ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << status;
}

inline ::testing::AssertionResult HasStatus(const absl::Status& status, absl::StatusCode code,
                                            const std::string& part_of_message) {
  if (status.code() == code && absl::StrContains(status.message(), part_of_message)) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure()
         << "got " << status << "\nwanted " << absl::StatusCodeToString(code) << " with '"
         << part_of_message << "'";
}

}  // namespace muster::testing

#define EXPECT_OK(expr) EXPECT_TRUE(::muster::testing::IsOk(::muster::testing::StatusOf(expr)))
#define ASSERT_OK(expr) ASSERT_TRUE(::muster::testing::IsOk(::muster::testing::StatusOf(expr)))
// The code, and a part of the message.
#define EXPECT_STATUS(expr, code, part) \
  EXPECT_TRUE(::muster::testing::HasStatus(::muster::testing::StatusOf(expr), code, part))
#define ASSERT_STATUS(expr, code, part) \
  ASSERT_TRUE(::muster::testing::HasStatus(::muster::testing::StatusOf(expr), code, part))
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_INNER(MUSTER_TEST_CONCAT(muster_test_or_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_INNER(result, lhs, expr) \
  auto result = (expr);                               \
  ASSERT_OK(result);                                  \
  lhs = std::move(result).value()
#define MUSTER_TEST_CONCAT_INNER(a, b) a##b
#define MUSTER_TEST_CONCAT(a, b) MUSTER_TEST_CONCAT_INNER(a, b)

#endif  // MUSTER_TESTS_SUPPORT_STATUS_MATCHERS_H_
