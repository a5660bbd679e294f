// main of a test whose ranks may be processes.
#include <gtest/gtest.h>

#include "tests/support/run_ranks.h"

int main(int argc, char** argv) {
  muster::testing::RunRankIfAsked(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
