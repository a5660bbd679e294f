"""Forward requests on one stream, several at once, over connections that may be lost."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import grpc
from muster.aio import Replica, StreamCall
from muster.errors import MusterError, from_status
from muster.messages import forward_to_wire, result_of
from muster.retry import Retries, may_retry
from muster.values import Slice, StepResult
from proto.muster.v1 import inference_pb2


@dataclass(frozen=True)
class Answer:
    """What became of a request: its result, or why it was refused."""

    request_id: str
    result: StepResult | MusterError


class ForwardStream:
    """Requests run in the order in which they were sent, and each is answered once.

    When the connection is lost, those without an answer are sent again under their former ids, by
    which the leader recognises what it has run.
    """

    def __init__(self, replica: Replica):
        self._replica = replica
        self._pending: dict[str, inference_pb2.ForwardRequest] = {}
        self._call: StreamCall | None = None
        self._writing = asyncio.Lock()
        self._wanted = asyncio.Event()

    @property
    def pending(self) -> int:
        """Requests that have no answer yet."""
        return len(self._pending)

    async def send(self, slices: Iterable[Slice], request_id: str) -> None:
        """Sends a request; its answer comes from `answers`. Its id must not have been used."""
        request = forward_to_wire(self._replica.client_id, request_id, slices)
        async with self._writing:
            self._pending[request_id] = request
            self._wanted.set()
            if self._call is not None:
                await self._write(self._call, request)

    async def answers(self) -> AsyncIterator[Answer]:
        """Answers as they come, in the order of the requests. To be read by one task.

        Raises:
          MusterError: the leader could not be reached for as long as the replica's patience.
        """
        retries = Retries(self._replica.patience)
        while True:
            if not self._pending:
                self._wanted.clear()
                await self._wanted.wait()
                # Time in which nothing was asked for is no time that the leader was away.
                retries = Retries(self._replica.patience)
            try:
                async for answer in self._read():
                    retries = Retries(self._replica.patience)
                    yield answer
            except MusterError as error:
                if not self._pending:
                    continue
                # A leader that does not lead any more is to be looked for.
                worth_it = may_retry(error) or error.reason == "NOT_LEADER"
                cause = error if not worth_it or error.retriable else MusterError(
                    error.message, error.code, error.reason, retriable=True)
                await self._replica.recover(cause, retries.pause_after(cause))

    def forget(self) -> None:
        """Drops what waits for an answer, with the connection."""
        self._pending.clear()
        self.close()

    def close(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _read(self) -> AsyncIterator[Answer]:
        """Answers of one connection, which ends with a MusterError."""
        call = await self._connect()
        try:
            while True:
                response = await call.read()
                if not isinstance(response, inference_pb2.ForwardStreamResponse):
                    raise MusterError(
                        f"{self._replica.address} ended the stream", "UNAVAILABLE", retriable=True)
                # A request that was forgotten meanwhile has no one to tell.
                if self._pending.pop(response.request_id, None) is None:
                    continue
                if response.WhichOneof("result") == "error":
                    yield Answer(response.request_id, from_status(response.error))
                else:
                    yield Answer(response.request_id, result_of(response.response))
        except grpc.RpcError as error:
            raise self._lost_with(self._replica.failure(error)) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._call is not call and task is not None and not task.cancelling():
                raise MusterError("the stream was closed", "UNAVAILABLE", retriable=True) from None
            raise
        finally:
            if self._call is call:
                self._call = None
            call.cancel()

    def _lost_with(self, error: MusterError) -> MusterError:
        # A write on a connection that has just broken makes gRPC's own library end the call.
        if error.code == "INTERNAL" and error.reason == "UNSPECIFIED":
            return MusterError(
                f"nothing answers at {self._replica.address}", "UNAVAILABLE", retriable=True)
        return error

    async def _connect(self) -> StreamCall:
        """A new connection on which all that waits has been sent again."""
        async with self._writing:
            call = self._replica.open_stream()
            for request in list(self._pending.values()):
                await self._write(call, request)
            self._call = call
            return call

    async def _write(self, call: StreamCall, request: inference_pb2.ForwardRequest) -> None:
        try:
            await call.write(request)
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # The reader of the answers learns of it as well, and sends it again.
