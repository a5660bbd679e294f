"""Channels to daemons, with errors as MusterError."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc
from muster.errors import MusterError, from_rpc_error
from muster.methods import Method, Q, R
from muster.tls import PLAINTEXT, Tls


class Link:
    """A channel to a daemon that may move. Thread-safe.

    A connection that is made after the files of its TLS were replaced uses the new ones.
    """

    def __init__(self, address: str, tls: Tls = PLAINTEXT):
        """Raises MusterError if the files of TLS cannot be used."""
        self.address = address
        self._tls = tls
        self._channel = self._dial(self.address)
        self._former: list[grpc.Channel] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        for channel in (self._channel, *self._former):
            channel.close()

    def move(self, address: str) -> None:
        """Later calls go to `address`. Those on their way to the former one fail.

        Raises:
          MusterError: the files of TLS cannot be used; nothing has changed then.
        """
        if address != self.address:
            former, self._channel = self._channel, self._dial(address)
            self.address = address
            former.close()

    def call(self, method: Method[Q, R], request: Q, timeout: float) -> R:
        call = self._channel.unary_unary(
            method.path, request_serializer=method.encode, response_deserializer=method.decode)
        try:
            return call(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self._failure(error) from None

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
            raise self._failure(error) from None
        finally:
            responses.cancel()

    def _failure(self, error: grpc.RpcError) -> MusterError:
        failure = from_rpc_error(error, self.address, self._tls.folder, self._tls.explain)
        with self._lock:
            if failure.unanswered and self._tls.replaced():
                try:
                    channel = self._dial(self.address)
                except MusterError:
                    return failure  # They are just being replaced: the next failure looks again.
                # Calls may still be on their way on it.
                self._former.append(self._channel)
                self._channel = channel
        return failure

    def _dial(self, address: str) -> grpc.Channel:
        credentials = self._tls.credentials()
        if credentials is None:
            return grpc.insecure_channel(address, options=self._tls.options)
        return grpc.secure_channel(address, credentials, options=self._tls.options)


class AsyncLink:
    """The same for asyncio. Belongs to one event loop."""

    def __init__(self, address: str, tls: Tls = PLAINTEXT):
        """As Link."""
        self.address = address
        self._tls = tls
        self.channel = self._dial(self.address)
        self._former: list[grpc.aio.Channel] = []

    async def close(self) -> None:
        for channel in (self.channel, *self._former):
            await channel.close()

    async def move(self, address: str) -> None:
        """Later calls go to `address`. Those on their way to the former one fail.

        Raises:
          MusterError: the files of TLS cannot be used; nothing has changed then.
        """
        if address != self.address:
            former, self.channel = self.channel, self._dial(address)
            self.address = address
            await former.close()

    async def call(self, method: Method[Q, R], request: Q, timeout: float) -> R:
        call = self.channel.unary_unary(
            method.path, request_serializer=method.encode, response_deserializer=method.decode)
        try:
            return await call(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self.failure(error) from None

    @asynccontextmanager
    async def stream(self, method: Method[Q, R], request: Q) -> AsyncIterator[AsyncIterator[R]]:
        """Responses as they come; left early, the call is cancelled."""
        call = self.channel.unary_stream(
            method.path, request_serializer=method.encode, response_deserializer=method.decode)
        responses = call(request)
        try:
            yield responses.__aiter__()
        except grpc.RpcError as error:
            raise self.failure(error) from None
        finally:
            responses.cancel()

    def failure(self, error: grpc.RpcError) -> MusterError:
        """The exception for a failed call of `channel`, which may be another one from then on."""
        failure = from_rpc_error(error, self.address, self._tls.folder, self._tls.explain)
        if failure.unanswered and self._tls.replaced():
            try:
                channel = self._dial(self.address)
            except MusterError:
                return failure  # They are just being replaced: the next failure looks again.
            self._former.append(self.channel)
            self.channel = channel
        return failure

    def _dial(self, address: str) -> grpc.aio.Channel:
        credentials = self._tls.credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(address, options=self._tls.options)
        return grpc.aio.secure_channel(address, credentials, options=self._tls.options)
