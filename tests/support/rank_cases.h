#ifndef MUSTER_TESTS_SUPPORT_RANK_CASES_H_
#define MUSTER_TESTS_SUPPORT_RANK_CASES_H_

#include "absl/strings/string_view.h"
#include "tests/support/run_ranks.h"

namespace muster::testing {

// Of the RankCases of this program; ends the program when there is none of that name.
const RankFunction& FindRankCase(absl::string_view name);

}  // namespace muster::testing

#endif  // MUSTER_TESTS_SUPPORT_RANK_CASES_H_
