// absl::Status over gRPC: canonical codes, with google.rpc.Status details in
// `grpc-status-details-bin` that ordinary clients can read.
#ifndef MUSTER_BASE_WIRE_STATUS_H_
#define MUSTER_BASE_WIRE_STATUS_H_

#include <grpcpp/support/status.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "proto/google/rpc/status.pb.h"
#include "proto/muster/v1/error.pb.h"

namespace muster {

// The message is cut at 1 KiB and made printable UTF-8; the details are at most 4 KiB: one
// ErrorDetail, where the status carries one or its code alone blames the request
// (INVALID_ARGUMENT, OUT_OF_RANGE, ALREADY_EXISTS: reason INVALID_REQUEST).
grpc::Status ToGrpc(const absl::Status& status);
// The same as a message, for errors that are a part of an answer.
google::rpc::Status ToRpcStatus(const absl::Status& status);

// The inverse, with the ErrorDetail as the payload that DetailOf() reads. A status without details
// keeps code and message.
absl::Status FromGrpc(const grpc::Status& status);

// True when `status` was made by gRPC itself and not by a daemon: it carries no details.
bool IsFromTransport(const grpc::Status& status);

// The parts of a status that messages carry in fields `code`, `message` and `detail`.
struct WireFailure {
  uint32_t code = 0;
  std::string message;
  v1::ErrorDetail detail;
};
WireFailure ToWireFailure(const absl::Status& status);
// An unknown or zero code becomes UNKNOWN: a failure is never OK.
absl::Status FromWireFailure(uint32_t code, const std::string& message,
                             const v1::ErrorDetail& detail);

// The same for the messages themselves: Failure, RankFailure, EpochAborted.
template <typename Message>
void SetFailure(const absl::Status& status, Message* message) {
  WireFailure failure = ToWireFailure(status);
  message->set_code(failure.code);
  message->set_message(std::move(failure.message));
  *message->mutable_detail() = std::move(failure.detail);
}
template <typename Message>
absl::Status FailureOf(const Message& message) {
  return FromWireFailure(message.code(), message.message(), message.detail());
}

}  // namespace muster

#endif  // MUSTER_BASE_WIRE_STATUS_H_
