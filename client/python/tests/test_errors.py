"""Failed calls become exceptions, whatever their metadata holds."""

import grpc
import pytest
from muster.errors import from_rpc_error
from proto.google.rpc import status_pb2
from proto.muster.v1 import error_pb2


class FailedCall(grpc.RpcError):
    """What gRPC raises, made by hand."""

    def __init__(self, code, details, metadata=()):
        super().__init__()
        self.code = lambda: code
        self.details = lambda: details
        self.trailing_metadata = lambda: metadata


def with_details(payload: bytes) -> FailedCall:
    return FailedCall(
        grpc.StatusCode.ABORTED, "aborted", (("grpc-status-details-bin", payload),))


def test_without_details_code_and_text_are_kept():
    error = from_rpc_error(FailedCall(grpc.StatusCode.INTERNAL, "odd", None), "host:1")
    assert (error.code, error.message, error.reason) == ("INTERNAL", "odd", "UNSPECIFIED")


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_a_transport_failure_names_the_address_instead_of_sockets(code):
    error = from_rpc_error(FailedCall(code, "ipv4:127.0.0.1:1: connection refused"), "host:1")
    assert (error.message, error.retriable) == ("nothing answers at host:1", True)


def test_a_server_that_ends_is_gone_and_a_caller_that_cancels_has_cancelled():
    refused = from_rpc_error(FailedCall(grpc.StatusCode.CANCELLED, "CANCELLED"), "host:1")
    assert (refused.code, refused.retriable) == ("UNAVAILABLE", True)
    cancelled = from_rpc_error(FailedCall(grpc.StatusCode.CANCELLED, "Channel closed!"), "host:1")
    assert (cancelled.code, cancelled.retriable) == ("CANCELLED", False)


@pytest.mark.parametrize("payload", [b"\xff\xff", b"", b"\x1a\x02\x0a\x09"])
def test_broken_details_are_passed_over(payload):
    assert from_rpc_error(with_details(payload), "host:1").message == "aborted"


def test_details_of_a_strange_type_are_passed_over():
    status = status_pb2.Status(code=10)
    status.details.add().Pack(status_pb2.Status(message="no ErrorDetail"))
    assert from_rpc_error(with_details(status.SerializeToString()), "h").reason == "UNSPECIFIED"


def test_a_reason_of_a_newer_daemon_keeps_its_number():
    status = status_pb2.Status()
    detail = error_pb2.ErrorDetail(phase="x")
    detail.reason = 999
    status.details.add().Pack(detail)
    error = from_rpc_error(with_details(status.SerializeToString()), "h")
    assert (error.reason, error.phase) == ("REASON_999", "x")
