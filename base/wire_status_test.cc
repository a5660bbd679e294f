#include "base/wire_status.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/metrics/answered_errors.h"
#include "proto/google/rpc/status.pb.h"
#include "tests/support/status_matchers.h"

namespace muster {
namespace {

constexpr auto kUnavailable = absl::StatusCode::kUnavailable;

ErrorDetail Example() {
  return {.reason = ErrorReason::kRankLost,
          .epoch = Epoch(18),
          .ranks = {GlobalRank(3), GlobalRank(1)},
          .workers = {"gpu-3", "gpu-1"},
          .phase = "warmup/exchange",
          .retriable = true,
          .kv_written = true};
}

// Eight times a thousand culprits, each with the longest id.
ErrorDetail Longest() {
  ErrorDetail detail = Example();
  detail.phase = std::string(256, 'p');
  detail.ranks.assign(1000, GlobalRank((1 << 20) - 1));
  detail.workers.assign(8000, std::string(128, 'w'));
  return detail;
}

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

v1::ErrorDetail OnlyDetail(const grpc::Status& status) {
  v1::ErrorDetail detail;
  const google::rpc::Status details = Details(status);
  EXPECT_EQ(details.details_size(), 1);
  if (details.details_size() == 1) {
    EXPECT_TRUE(details.details(0).UnpackTo(&detail));
  }
  return detail;
}

void ExpectEqual(const absl::Status& got, const absl::Status& wanted) {
  EXPECT_EQ(got, wanted);
  EXPECT_EQ(DetailOf(got).reason, DetailOf(wanted).reason);
  EXPECT_EQ(DetailOf(got).epoch, DetailOf(wanted).epoch);
  EXPECT_EQ(DetailOf(got).ranks, DetailOf(wanted).ranks);
  EXPECT_EQ(DetailOf(got).workers, DetailOf(wanted).workers);
  EXPECT_EQ(DetailOf(got).phase, DetailOf(wanted).phase);
  EXPECT_EQ(DetailOf(got).retriable, DetailOf(wanted).retriable);
  EXPECT_EQ(DetailOf(got).kv_written, DetailOf(wanted).kv_written);
}

TEST(WireStatus, EveryCodeGoesThereAndBackWithItsDetail) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status =
        MakeError(static_cast<absl::StatusCode>(code), "rank 3 is lost", Example());
    const grpc::Status wire = ToGrpc(status);
    EXPECT_EQ(wire.error_code(), code);
    EXPECT_EQ(wire.error_message(), "rank 3 is lost");
    ExpectEqual(FromGrpc(wire), status);
  }
}

TEST(WireStatus, OkStaysOk) {
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
  EXPECT_EQ(ToGrpc(absl::OkStatus()).error_details(), "");
  EXPECT_OK(FromGrpc(grpc::Status::OK));
}

TEST(WireStatus, AStatusWithoutDetailKeepsCodeAndMessage) {
  const absl::Status status = absl::NotFoundError("no such worker");
  EXPECT_EQ(FromGrpc(ToGrpc(status)), status);
  EXPECT_EQ(Details(ToGrpc(status)).details_size(), 0);
  EXPECT_EQ(FromGrpc(grpc::Status(grpc::StatusCode::NOT_FOUND, "no such worker")), status);
}

TEST(WireStatus, ACodeThatBlamesTheRequestHasThatReason) {
  for (const absl::Status& status : {absl::InvalidArgumentError("x"), absl::OutOfRangeError("x"),
                                     absl::AlreadyExistsError("x")}) {
    EXPECT_EQ(DetailOf(FromGrpc(ToGrpc(status))).reason, ErrorReason::kInvalidRequest);
  }
}

TEST(WireStatus, DetailsAreWhatOrdinaryClientsParse) {
  const grpc::Status wire = ToGrpc(MakeError(kUnavailable, "rank 3 is lost", Example()));
  EXPECT_EQ(Details(wire).code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Details(wire).message(), "rank 3 is lost");
  const v1::ErrorDetail detail = OnlyDetail(wire);
  EXPECT_EQ(detail.reason(), v1::ERROR_REASON_RANK_LOST);
  EXPECT_EQ(detail.epoch(), 18u);
  EXPECT_EQ(detail.ranks(0), 3u);
  EXPECT_EQ(detail.workers(1), "gpu-1");
  EXPECT_EQ(detail.culprit_count(), 2u);
  EXPECT_EQ(detail.phase(), "warmup/exchange");
  EXPECT_TRUE(detail.retriable());
  EXPECT_TRUE(detail.kv_written());
}

TEST(WireStatus, DetailsHoldEightCulpritsAndTheirNumberIn4KiB) {
  const grpc::Status wire = ToGrpc(MakeError(kUnavailable, std::string(5000, 'm'), Longest()));
  EXPECT_LE(wire.error_details().size(), 4096u);
  const v1::ErrorDetail detail = OnlyDetail(wire);
  EXPECT_EQ(detail.ranks_size(), 8);
  EXPECT_EQ(detail.workers_size(), 8);
  EXPECT_EQ(detail.workers(7), std::string(128, 'w'));
  EXPECT_EQ(detail.culprit_count(), 8000u);
}

TEST(WireStatus, ADetailThatDoesNotFitIsLeftOut) {
  for (size_t size = 2500; size <= 4500; ++size) {
    ErrorDetail detail = Example();
    detail.phase.assign(size, 'p');
    const grpc::Status wire = ToGrpc(MakeError(kUnavailable, std::string(5000, 'm'), detail));
    ASSERT_LE(wire.error_details().size(), 4096u) << size;
    if (Details(wire).details_size() > 0) {
      ASSERT_EQ(DetailOf(FromGrpc(wire)).phase, detail.phase);
    } else {
      EXPECT_GT(size, 2800u);
    }
    EXPECT_FALSE(IsFromTransport(wire));
  }
}

std::string Sent(const std::string& message) {
  return ToGrpc(absl::UnavailableError(message)).error_message();
}

TEST(WireStatus, AMessageIsCutAt1KiB) {
  EXPECT_EQ(Sent(std::string(1024, 'm')), std::string(1024, 'm'));
  EXPECT_EQ(Sent(std::string(1025, 'm')), std::string(1021, 'm') + "...");
  EXPECT_EQ(Sent(std::string(100000, 'm')), std::string(1021, 'm') + "...");
  for (size_t size = 1018; size <= 1030; ++size) {
    EXPECT_LE(Sent(std::string(size, '\xff')).size(), 1024u) << size;
    EXPECT_LE(Sent(std::string(size, 'm') + std::string(9, '\xff')).size(), 1024u) << size;
  }
}

TEST(WireStatus, AMessageIsNotCutWithinACharacter) {
  for (const std::string character : {"é", "€", "𝄞"}) {
    for (size_t before = 0; before < 4; ++before) {
      std::string message(before, 'm');
      while (message.size() <= 1100) message += character;
      const std::string sent = Sent(message);
      EXPECT_LE(sent.size(), 1024u);
      EXPECT_GT(sent.size(), 1024u - character.size());
      EXPECT_EQ((sent.size() - 3 - before) % character.size(), 0u) << character;
    }
  }
}

TEST(WireStatus, AMessageIsPrintableUtf8) {
  const std::pair<std::string, std::string> cases[] = {
      {"plain", "plain"},
      {"Grüße 東京 𝄞", "Grüße 東京 𝄞"},
      {"two\nlines\r\n", "two lines  "},
      {std::string("a\0b", 3), "a b"},
      {"\x1b[2Jcleared", " [2Jcleared"},
      {"\x7f", " "},
      {"a\xc2\x9b"
       "2J",
       "a 2J"},                      // a control character of two bytes
      {"\xc2\xa0", "\xc2\xa0"},      // and the first that is none
      {"\xff\xfe", "??"},            // never in UTF-8
      {"\xc0\xaf", "??"},            // longer than needed
      {"\xe0\x80\xaf", "???"},       // longer than needed
      {"\xed\xa0\x80", "???"},       // half of a surrogate pair
      {"\xf4\x90\x80\x80", "????"},  // above U+10FFFF
      {"\x80 stray", "? stray"},     // a continuation alone
      {"cut \xe2\x82", "cut ??"},    // a character without its end
      {"\xe2\x82"
       "a",
       "??a"},  // or with something else there
  };
  for (const auto& [message, sent] : cases) EXPECT_EQ(Sent(message), sent);
}

TEST(WireStatus, WhatGrpcMadeItselfCarriesNoDetails) {
  EXPECT_TRUE(IsFromTransport(grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection refused")));
  EXPECT_TRUE(IsFromTransport(grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "")));
  EXPECT_FALSE(IsFromTransport(ToGrpc(absl::UnavailableError("rank 3 is lost"))));
  EXPECT_FALSE(IsFromTransport(ToGrpc(MakeError(kUnavailable, "", Example()))));
  EXPECT_FALSE(IsFromTransport(grpc::Status::OK));
}

TEST(WireStatus, HostileDetailsLeaveCodeAndMessage) {
  google::rpc::Status unknown;
  unknown.add_details()->set_type_url("type.googleapis.com/somebody.Else");
  google::rpc::Status large;
  large.add_details()->set_type_url("type.googleapis.com/muster.v1.ErrorDetail");
  large.mutable_details(0)->set_value(std::string(1 << 20, 'x'));
  for (const std::string& details : {std::string("\xff\xff not protobuf"),
                                     unknown.SerializeAsString(), large.SerializeAsString()}) {
    const absl::Status status =
        FromGrpc(grpc::Status(grpc::StatusCode::UNAVAILABLE, "lost", details));
    EXPECT_EQ(status, absl::UnavailableError("lost"));
    EXPECT_EQ(DetailOf(status).reason, ErrorReason::kUnspecified);
  }
}

TEST(WireStatus, AnUnknownCodeOfAPeerIsUnknown) {
  const auto code = static_cast<grpc::StatusCode>(99);
  EXPECT_EQ(FromGrpc(grpc::Status(code, "odd")).code(), absl::StatusCode::kUnknown);
}

TEST(WireFailure, GoesThereAndBackWithinAMessage) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status =
        MakeError(static_cast<absl::StatusCode>(code), "rank 3 is lost", Example());
    const WireFailure failure = ToWireFailure(status);
    EXPECT_EQ(failure.code, static_cast<uint32_t>(code));
    EXPECT_EQ(failure.detail.culprit_count(), 2u);
    ExpectEqual(FromWireFailure(failure.code, failure.message, failure.detail), status);
  }
}

TEST(WireFailure, IsNeverOk) {
  for (const uint32_t code : {0u, 17u, 99u, 0xffffffffu}) {
    EXPECT_EQ(FromWireFailure(code, "odd", {}), absl::UnknownError("odd")) << code;
  }
}

TEST(WireFailure, HasTheLimitsOfAStatus) {
  const WireFailure failure =
      ToWireFailure(MakeError(kUnavailable, std::string(5000, '\n'), Longest()));
  EXPECT_EQ(failure.message, std::string(1021, ' ') + "...");
  EXPECT_EQ(failure.detail.workers_size(), 8);
  EXPECT_EQ(failure.detail.culprit_count(), 8000u);
  EXPECT_LE(failure.detail.ByteSizeLong(), 4096u);
}

TEST(AnsweredErrors, CountWhatIsAnsweredByItsReason) {
  const AnsweredErrors& errors = AnsweredErrors::Instance();
  const auto lost = static_cast<int>(ErrorReason::kRankLost);
  const auto invalid = static_cast<int>(ErrorReason::kInvalidRequest);
  const uint64_t before[] = {errors.count(0), errors.count(lost), errors.count(invalid)};
  ToGrpc(absl::OkStatus());
  ToGrpc(MakeError(kUnavailable, "a rank is lost", Example()));
  ToRpcStatus(absl::InvalidArgumentError("no such slice"));
  ToGrpc(absl::InternalError("without a reason"));
  EXPECT_EQ(errors.count(0), before[0] + 1);
  EXPECT_EQ(errors.count(lost), before[1] + 1);
  EXPECT_EQ(errors.count(invalid), before[2] + 1);
}

}  // namespace
}  // namespace muster
