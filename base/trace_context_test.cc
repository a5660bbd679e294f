#include "base/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace muster {
namespace {

// The example of the specification.
constexpr char kExample[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceParent, TheExampleOfTheSpecificationIsRead) {
  const auto trace = ParseTraceParent(kExample);
  ASSERT_TRUE(trace.has_value());
  EXPECT_EQ(trace->trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(trace->parent_span_id(), "00f067aa0ba902b7");
  EXPECT_TRUE(trace->sampled);
}

TEST(TraceParent, OnlyTheLastBitOfTheFlagsSaysSampled) {
  for (const auto& [flags, sampled] : {std::pair("00", false), std::pair("01", true),
                                       std::pair("fe", false), std::pair("ff", true)}) {
    const auto trace = ParseTraceParent(std::string(kExample, 53) + flags);
    ASSERT_TRUE(trace.has_value()) << flags;
    EXPECT_EQ(trace->sampled, sampled) << flags;
  }
}

TEST(TraceParent, ALaterVersionIsReadAsFarAsThisOneGoes) {
  const std::string later = "cc" + std::string(kExample).substr(2);
  EXPECT_EQ(ParseTraceParent(later), ParseTraceParent(kExample));
  EXPECT_EQ(ParseTraceParent(later + "-what-the-future-will-be-like"), ParseTraceParent(kExample));
  EXPECT_FALSE(ParseTraceParent(later + ".what-the-future-will-be-like").has_value());
}

TEST(TraceParent, WhatIsMalformedIsNone) {
  for (const std::string& header :
       {std::string(), std::string("00"), std::string(kExample).substr(1),
        std::string(kExample) + "-", std::string(kExample) + "-what-the-future-will-be-like",
        std::string(kExample) + " ", " " + std::string(kExample),
        std::string("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        std::string("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
        std::string("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
        std::string("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
        std::string("00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01"),
        std::string("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        std::string("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-011"),
        std::string("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\0", 55),
        std::string(1 << 20, '0')}) {
    EXPECT_FALSE(ParseTraceParent(header).has_value()) << header.substr(0, 80);
  }
}

TEST(TraceContext, WithoutATraceHasNoIds) {
  EXPECT_FALSE(TraceContext().is_set());
  EXPECT_EQ(TraceContext().trace_id(), "");
  EXPECT_EQ(TraceContext().parent_span_id(), "");
}

}  // namespace
}  // namespace muster
