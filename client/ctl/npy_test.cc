#include "client/ctl/npy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/support/status_matchers.h"

namespace muster::ctl {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// A file of version 1.0 with this header and this many bytes behind it.
std::string File(const std::string& header, size_t bytes) {
  std::string file("\x93NUMPY\1\0", 8);
  file += static_cast<char>(header.size() & 0xFF);
  file += static_cast<char>(header.size() >> 8);
  return file + header + std::string(bytes, '\0');
}

std::string Header(const std::string& shape) {
  return absl::StrCat("{'descr': '<f4', 'fortran_order': False, 'shape': ", shape, ", }\n");
}

TEST(Npy, WhatIsWrittenIsReadBack) {
  const FloatArray array = {{2, 3}, {0, -0.0f, 1.5f, 1e-40f, std::numeric_limits<float>::max(), 3}};
  ASSERT_OK_AND_ASSIGN(const FloatArray read, ParseNpy(ToNpy(array)));
  EXPECT_EQ(read.shape, array.shape);
  EXPECT_EQ(read.values, array.values);
  EXPECT_TRUE(std::signbit(read.values[1]));
}

TEST(Npy, TheDataBeginsAligned) {
  for (const auto& shape : {std::vector<uint64_t>{}, {4}, {1, 2, 3}}) {
    size_t count = 1;
    for (const uint64_t size : shape) count *= size;
    const std::string file = ToNpy({shape, std::vector<float>(count)});
    EXPECT_EQ((file.size() - count * sizeof(float)) % 64, 0u);
    ASSERT_OK_AND_ASSIGN(const FloatArray read, ParseNpy(file));
    EXPECT_EQ(read.shape, shape);
  }
}

TEST(Npy, WritesTheHeaderThatNumPyWrites) {
  const std::string file = ToNpy({{2}, {1, 2}});
  EXPECT_EQ(file.substr(10, 56), "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), ");
  EXPECT_EQ(file[127], '\n');
  EXPECT_EQ(file.size(), 128u + 8u);
}

TEST(Npy, ReadsHeadersInAnyOrderAndLaterVersions) {
  const std::string header = "{\"shape\":(1,2),'fortran_order':False ,'descr':'<f4'}";
  ASSERT_OK_AND_ASSIGN(const FloatArray read, ParseNpy(File(header, 8)));
  EXPECT_EQ(read.shape, (std::vector<uint64_t>{1, 2}));
  std::string second = File(Header("(1,)"), 4);
  second[6] = 2;
  second.insert(10, 2, '\0');
  EXPECT_OK(ParseNpy(second).status());
}

TEST(Npy, RefusesWhatIsNotFloat32InCOrder) {
  const std::string header = Header("(1,)");
  const auto with = [&](const char* from, const char* to) {
    return ParseNpy(File(absl::StrReplaceAll(header, {{from, to}}), 4));
  };
  EXPECT_STATUS(with("<f4", "<f8"), kInvalid, "its type is '<f8'");
  EXPECT_STATUS(with("<f4", ">f4"), kInvalid, "its type is '>f4'");
  EXPECT_STATUS(with("False", "True"), kInvalid, "Fortran order");
  EXPECT_STATUS(with("shape", "shapes"), kInvalid, "unknown key 'shapes'");
  EXPECT_STATUS(with("'descr': '<f4', ", ""), kInvalid, "lacks a key");
  EXPECT_STATUS(with("}\n", ""), kInvalid, "header");
  EXPECT_STATUS(with("}\n", "} x"), kInvalid, "goes on");
}

TEST(Npy, RefusesShapesThatTheBytesDoNotMatch) {
  EXPECT_STATUS(ParseNpy(File(Header("(2,)"), 4)), kInvalid, "its shape is (2), and 4 bytes");
  EXPECT_STATUS(ParseNpy(File(Header("(1,)"), 5)), kInvalid, "5 bytes follow");
  for (const char* shape : {"(-1,)", "(1", "1", "(a,)", "(4611686018427387905,)", "(1,,)", "(1 1)",
                            "(99999999999999999999,)", "(1,1,1,1,1,1,1,1,1)"}) {
    EXPECT_EQ(ParseNpy(File(Header(shape), 4)).status().code(), kInvalid) << shape;
  }
}

TEST(Npy, RefusesEveryFileThatIsCutShort) {
  const std::string file = ToNpy({{2, 2}, {1, 2, 3, 4}});
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_EQ(ParseNpy(absl::string_view(file).substr(0, size)).status().code(), kInvalid) << size;
  }
  EXPECT_STATUS(ParseNpy("PK\3\4 an .npz"), kInvalid, "does not begin as one");
}

}  // namespace
}  // namespace muster::ctl
