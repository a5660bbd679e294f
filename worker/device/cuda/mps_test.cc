#include "worker/device/cuda/mps.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace muster {
namespace {

TEST(MpsPipeDirectory, IsThatOfTheEnvironmentOrTheUsualOne) {
  unsetenv("CUDA_MPS_PIPE_DIRECTORY");
  EXPECT_EQ(MpsPipeDirectory(), "/tmp/nvidia-mps");
  setenv("CUDA_MPS_PIPE_DIRECTORY", "/somewhere", 1);
  EXPECT_EQ(MpsPipeDirectory(), "/somewhere");
  setenv("CUDA_MPS_PIPE_DIRECTORY", "", 1);
  EXPECT_EQ(MpsPipeDirectory(), "/tmp/nvidia-mps");
}

TEST(MpsControlIsIn, SeesThePipe) {
  const std::string directory = testing::TempDir() + "/mps_test_pipes";
  std::filesystem::remove_all(directory);
  EXPECT_FALSE(MpsControlIsIn(directory));
  std::filesystem::create_directories(directory);
  EXPECT_FALSE(MpsControlIsIn(directory));
  std::ofstream(directory + "/control") << "";
  EXPECT_TRUE(MpsControlIsIn(directory));
}

TEST(MultiprocessorBudget, IsSharedOutUnderMpsOnly) {
  EXPECT_EQ(MultiprocessorBudget({.multiprocessors = 132, .ranks = 1, .mps = true}), 132);
  EXPECT_EQ(MultiprocessorBudget({.multiprocessors = 132, .ranks = 4, .mps = true}), 33);
  EXPECT_EQ(MultiprocessorBudget({.multiprocessors = 132, .ranks = 5, .mps = true}), 24);
  EXPECT_EQ(MultiprocessorBudget({.multiprocessors = 4, .ranks = 16, .mps = true}), 1);
  EXPECT_EQ(MultiprocessorBudget({.multiprocessors = 132, .ranks = 5, .mps = false}), 132);
}

TEST(SharingWarning, IsForRanksThatTakeTurns) {
  EXPECT_EQ(SharingWarning({.multiprocessors = 132, .ranks = 4, .mps = true}, "/none"), "");
  EXPECT_EQ(SharingWarning({.multiprocessors = 132, .ranks = 1, .mps = false}, "/none"), "");
  const std::string warning =
      SharingWarning({.multiprocessors = 132, .ranks = 4, .mps = false}, "/none");
  EXPECT_NE(warning.find("4 ranks share a GPU without MPS"), std::string::npos) << warning;
  EXPECT_NE(warning.find("no control daemon in /none"), std::string::npos) << warning;
}

}  // namespace
}  // namespace muster
