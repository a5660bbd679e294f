"""What daemons answer when they refuse or fail, as exceptions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from proto.google.rpc import status_pb2
from proto.muster.v1 import error_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_REASON_PREFIX = "ERROR_REASON_"
_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass
class MusterError(Exception):
    """A call that a daemon refused, or that did not reach it.

    Attributes:
      message: one line for people.
      code: name of the gRPC status code, e.g. "RESOURCE_EXHAUSTED".
      reason: what a program may act on, e.g. "KV_CAPACITY"; "UNSPECIFIED" if the daemon gave none.
      epoch: the epoch concerned, 0 if none is.
      ranks: ranks concerned, the first 8 of `culprit_count`.
      workers: ids of the workers concerned, the first 8 of `culprit_count`.
      culprit_count: how many ranks or workers are concerned in all.
      phase: phase of the life cycle, e.g. "warmup/exchange"; empty if none.
      retriable: whether the same request may succeed later, unchanged.
      kv_written: whether KV blocks of the request's sequences may have been written.
    """

    message: str
    code: str = "UNKNOWN"
    reason: str = "UNSPECIFIED"
    epoch: int = 0
    ranks: tuple[int, ...] = ()
    workers: tuple[str, ...] = ()
    culprit_count: int = 0
    phase: str = ""
    retriable: bool = False
    kv_written: bool = False

    # Exceptions are kept in sets, by logging for one.
    __hash__ = Exception.__hash__

    def __str__(self) -> str:
        return self.message

    @property
    def unanswered(self) -> bool:
        """Whether no daemon gave this answer: the call may have run, or may not."""
        return self.reason == "UNSPECIFIED" and self.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")

    @property
    def of_admission(self) -> bool:
        """Whether there was no room, so that a change of capacity may let the request in."""
        return self.code == "RESOURCE_EXHAUSTED" and self.retriable

    @property
    def of_lost_sequence(self) -> bool:
        """Whether the replica does not hold the sequence as its client believes."""
        return self.reason in ("UNKNOWN_SEQUENCE", "POSITION_MISMATCH")


class _FailedCall(Protocol):
    """What every grpc.RpcError is besides, though its type does not tell."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


# Makes an error of gRPC's words for a connection that was not made, and the address; None where it
# knows nothing better.
Explain = Callable[[str, str], MusterError | None]


def from_rpc_error(error: grpc.RpcError, address: str, tls: str = "",
                   explain: Explain | None = None) -> MusterError:
    """The exception for a failed call of the daemon at `address`.

    Args:
      error: of the call.
      address: as the caller knows it.
      tls: the folder of the certificate that was shown; "" in plaintext.
      explain: is asked first where no daemon answered.
    """
    failed = cast(_FailedCall, error)
    code = failed.code()
    text = failed.details() or code.name
    detail = _detail_in(failed.trailing_metadata() or ())
    if detail is not None:
        return _with_detail(text, code.name, detail)
    if code == grpc.StatusCode.CANCELLED and text == code.name:
        # A server that ends refuses so what comes to it meanwhile; a caller that cancels says more.
        code = grpc.StatusCode.UNAVAILABLE
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        explained = explain(text, address) if explain else None
        if explained is not None:
            return explained
        # gRPC's own text tells of sockets; whoever reads this wants to know who is missing.
        return MusterError(f"nothing answers at {address}", code.name, retriable=True)
    if tls and code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        text += f" (tls={tls} names the certificate that was shown)"
    return MusterError(text, code.name)


def from_status(status: status_pb2.Status) -> MusterError:
    """The exception for an error inside of a response."""
    code = _CODE_NAMES.get(status.code, "UNKNOWN")
    detail = _detail_of(status)
    text = status.message or code
    return MusterError(text, code) if detail is None else _with_detail(text, code, detail)


def from_failure(code: int, message: str, detail: error_pb2.ErrorDetail) -> MusterError:
    """The exception for a failure that a message tells of."""
    name = _CODE_NAMES.get(code, "UNKNOWN")
    return _with_detail(message or name, name, detail)


def _with_detail(message: str, code: str, detail: error_pb2.ErrorDetail) -> MusterError:
    return MusterError(
        message=message,
        code=code,
        reason=error_pb2.ErrorReason.Name(detail.reason).removeprefix(_REASON_PREFIX)
        if detail.reason in error_pb2.ErrorReason.values() else f"REASON_{detail.reason}",
        epoch=detail.epoch,
        ranks=tuple(detail.ranks),
        workers=tuple(detail.workers),
        culprit_count=detail.culprit_count,
        phase=detail.phase,
        retriable=detail.retriable,
        kv_written=detail.kv_written)


def _detail_in(metadata: Iterable[tuple[str, str | bytes]]) -> error_pb2.ErrorDetail | None:
    """The typed detail in trailing metadata, if there is a readable one."""
    for key, value in metadata:
        if key != _DETAILS_KEY or isinstance(value, str):
            continue
        try:
            return _detail_of(status_pb2.Status.FromString(value))
        except DecodeError:
            return None
    return None


def _detail_of(status: status_pb2.Status) -> error_pb2.ErrorDetail | None:
    for packed in status.details:
        detail = error_pb2.ErrorDetail()
        try:
            if packed.Unpack(detail):
                return detail
        except DecodeError:
            return None
    return None
