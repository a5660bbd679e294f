"""What daemons answer when they refuse or fail, as exceptions."""

from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from proto.google.rpc import status_pb2
from proto.muster.v1 import error_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_REASON_PREFIX = "ERROR_REASON_"


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


def from_rpc_error(error: grpc.RpcError, address: str) -> MusterError:
    """The exception for a failed call of the daemon at `address`."""
    code = error.code()
    detail = _detail(error)
    if detail is None:
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            # gRPC's own text tells of sockets; whoever reads this wants to know who is missing.
            return MusterError(f"nothing answers at {address}", code.name, retriable=True)
        return MusterError(error.details() or code.name, code.name)
    return MusterError(
        message=error.details(),
        code=code.name,
        reason=error_pb2.ErrorReason.Name(detail.reason).removeprefix(_REASON_PREFIX)
        if detail.reason in error_pb2.ErrorReason.values() else f"REASON_{detail.reason}",
        epoch=detail.epoch,
        ranks=tuple(detail.ranks),
        workers=tuple(detail.workers),
        culprit_count=detail.culprit_count,
        phase=detail.phase,
        retriable=detail.retriable,
        kv_written=detail.kv_written)


def _detail(error: grpc.RpcError) -> error_pb2.ErrorDetail | None:
    """The typed detail in the trailing metadata, if there is a readable one."""
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS_KEY:
            continue
        try:
            status = status_pb2.Status.FromString(value)
            for packed in status.details:
                detail = error_pb2.ErrorDetail()
                if packed.Unpack(detail):
                    return detail
        except DecodeError:
            return None
    return None
