"""Channels to daemons, with errors as MusterError."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc
from muster import methods
from muster.errors import from_rpc_error
from muster.methods import Method, Q, R


class Link:
    """A channel to a daemon that may move. Thread-safe."""

    def __init__(self, address: str):
        self.address = address
        self._channel = grpc.insecure_channel(address, options=methods.CHANNEL_OPTIONS)

    def close(self) -> None:
        self._channel.close()

    def move(self, address: str) -> None:
        """Later calls go to `address`. Those on their way to the former one fail."""
        if address != self.address:
            former, self._channel = self._channel, grpc.insecure_channel(
                address, options=methods.CHANNEL_OPTIONS)
            self.address = address
            former.close()

    def call(self, method: Method[Q, R], request: Q, timeout: float) -> R:
        call = self._channel.unary_unary(
            method.path, request_serializer=method.encode, response_deserializer=method.decode)
        try:
            return call(request, timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None

    @contextmanager
    def stream(self, method: Method[Q, R], request: Q,
               timeout: float | None) -> Iterator[Iterator[R]]:
        """Responses as they come; left early, the call is cancelled."""
        call = self._channel.unary_stream(
            method.path, request_serializer=method.encode, response_deserializer=method.decode)
        responses = call(request, timeout=timeout)
        try:
            yield responses
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None
        finally:
            responses.cancel()


class AsyncLink:
    """The same for asyncio. Belongs to one event loop."""

    def __init__(self, address: str):
        self.address = address
        self.channel = _channel(address)

    async def close(self) -> None:
        await self.channel.close()

    async def move(self, address: str) -> None:
        """Later calls go to `address`. Those on their way to the former one fail."""
        if address != self.address:
            former, self.channel, self.address = self.channel, _channel(address), address
            await former.close()

    async def call(self, method: Method[Q, R], request: Q, timeout: float) -> R:
        call = self.channel.unary_unary(
            method.path, request_serializer=method.encode, response_deserializer=method.decode)
        try:
            return await call(request, timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None

    @asynccontextmanager
    async def stream(self, method: Method[Q, R], request: Q) -> AsyncIterator[AsyncIterator[R]]:
        """Responses as they come; left early, the call is cancelled."""
        call = self.channel.unary_stream(
            method.path, request_serializer=method.encode, response_deserializer=method.decode)
        responses = call(request)
        try:
            yield responses.__aiter__()
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from None
        finally:
            responses.cancel()


def _channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=methods.CHANNEL_OPTIONS)
