"""Fleet, Replica and Sequence for asyncio: the calls of muster.client, awaited."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from collections.abc import Sequence as Tokens
from types import TracebackType

import grpc
from muster import methods
from muster.client import OnProgress, serving_leader
from muster.errors import MusterError
from muster.history import Growth, History, growth, new_sequence_id
from muster.lease import renewal_interval
from muster.link import AsyncLink
from muster.replica import PATIENCE, new_client_id
from muster.messages import (
    capacity_of, config_to_wire, event_of, fork_of, forward_to_wire, model_of, replica_of, result_of)
from muster.methods import Method, Q, R
from muster.operation_messages import (
    P, apply_to_wire, drain_to_wire, operation_of, outcome, plan_of, scale_to_wire)
from muster.retry import Retries
from muster.tls import COORDINATOR, WORKER, Tls, TlsFolder, find_tls
from muster.values import (
    Capacity, Event, Fork, Model, Operation, ParallelConfig, Plan, ReplicaStatus, Sampling, Slice,
    StepResult, Token)
from proto.muster.v1 import fleet_pb2, inference_pb2

# Answers "host:port" of a replica's leader, or raises MusterError.
FindLeader = Callable[[], Awaitable[str]]
StreamCall = grpc.aio.StreamStreamCall[
    inference_pb2.ForwardRequest, inference_pb2.ForwardStreamResponse]


class Fleet:
    """Calls of a coordinator. Every failed call raises MusterError. Belongs to one event loop."""

    def __init__(self, address: str, timeout: float = 10.0, patience: float = PATIENCE,
                 tls: TlsFolder = None):
        """As muster.client.Fleet."""
        self._timeout = timeout
        self._patience = patience
        self._tls = find_tls(tls)
        self._link = AsyncLink(address, Tls(self._tls, COORDINATOR))

    async def __aenter__(self) -> "Fleet":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self._link.close()

    async def replicas(self) -> list[ReplicaStatus]:
        """The replicas as they are now."""
        response = await self._call(methods.GET_TOPOLOGY, fleet_pb2.GetTopologyRequest())
        return [replica_of(replica) for replica in response.replicas]

    async def watch(self) -> AsyncIterator[list[ReplicaStatus]]:
        """The replicas at once, then after every change; a lost connection is made again."""
        retries = Retries(self._patience)
        while True:
            try:
                async with self._link.stream(
                        methods.WATCH_TOPOLOGY, fleet_pb2.WatchTopologyRequest()) as changes:
                    async for change in changes:
                        retries = Retries(self._patience)
                        yield [replica_of(replica) for replica in change.replicas]
                ended = MusterError(
                    f"{self._link.address} ended its watch", "UNAVAILABLE", retriable=True)
                await asyncio.sleep(retries.pause_after(ended))
            except MusterError as error:
                await asyncio.sleep(retries.pause_after(error))

    async def events(self, from_sequence: int = 0, follow: bool = False) -> AsyncIterator[Event]:
        """As muster.client.Fleet.events."""
        request = fleet_pb2.WatchEventsRequest(from_sequence=from_sequence, no_follow=not follow)
        async with self._link.stream(methods.WATCH_EVENTS, request) as events:
            async for event in events:
                yield event_of(event)

    async def plan(self, config: ParallelConfig) -> Plan:
        """As muster.client.Fleet.plan."""
        request = fleet_pb2.PlanTopologyRequest(config=config_to_wire(config))
        return plan_of(await self._call(methods.PLAN_TOPOLOGY, request))

    async def operations(self) -> list[Operation]:
        """The running operation and the last ones that have ended, newest first."""
        response = await self._call(methods.LIST_OPERATIONS, fleet_pb2.ListOperationsRequest())
        return [operation_of(operation) for operation in response.operations]

    async def cancel_operation(self, operation_id: str) -> Operation:
        """Has an operation that has not taken effect undone; returns it as it is then."""
        request = fleet_pb2.CancelOperationRequest(operation_id=operation_id)
        return operation_of((await self._call(methods.CANCEL_OPERATION, request)).operation)

    async def scale_context_parallel(self, cp: int, request_id: str | None = None,
                                     timeout: float | None = None,
                                     on_progress: OnProgress | None = None) -> Operation:
        """As muster.client.Fleet.scale_context_parallel."""
        return await self._operate(
            methods.SCALE_CONTEXT_PARALLEL, scale_to_wire(cp, request_id, timeout), on_progress)

    async def apply_topology(self, config: ParallelConfig, buckets: Iterable[int] = (),
                             drop: Iterable[str] = (), request_id: str | None = None,
                             timeout: float | None = None,
                             on_progress: OnProgress | None = None) -> Operation:
        """As muster.client.Fleet.apply_topology."""
        request = apply_to_wire(config, buckets, drop, request_id, timeout)
        return await self._operate(methods.APPLY_TOPOLOGY, request, on_progress)

    async def drain_worker(self, worker_id: str, request_id: str | None = None,
                           timeout: float | None = None,
                           on_progress: OnProgress | None = None) -> Operation:
        """As muster.client.Fleet.drain_worker."""
        request = drain_to_wire(worker_id, request_id, timeout)
        return await self._operate(methods.DRAIN_WORKER, request, on_progress)

    async def leader(self, index: int | None = None) -> str:
        """"host:port" of the leader of a replica, or of the first that serves; raises MusterError if it does not serve."""
        return serving_leader(await self.replicas(), index)

    async def replica(self, index: int | None = None) -> "Replica":
        """A replica that serves; its later calls follow the leader wherever it goes."""
        return Replica(await self.leader(index), patience=self._patience, tls=self._tls,
                       find_leader=lambda: self.leader(index))

    @property
    def tls(self) -> str:
        """The folder of its certificate; "" in plaintext."""
        return self._tls

    async def _call(self, method: Method[Q, R], request: Q) -> R:
        retries = Retries(self._patience)
        while True:
            try:
                return await self._link.call(method, request, self._timeout)
            except MusterError as error:
                await asyncio.sleep(retries.pause_after(error))

    async def _operate(self, method: Method[Q, P], request: Q,
                       on_progress: OnProgress | None) -> Operation:
        retries = Retries(self._patience)
        while True:
            last: Operation | None = None
            try:
                async with self._link.stream(method, request) as states:
                    async for state in states:
                        retries = Retries(self._patience)
                        last = operation_of(state.operation)
                        if on_progress is not None:
                            on_progress(last)
            except MusterError as error:
                if not error.unanswered:
                    raise
                await asyncio.sleep(retries.pause_after(error))
            else:
                return outcome(last)


class Replica:
    """Calls of a replica's leader, as one client with sequences of its own.

    Every failed call raises MusterError, after retries where the error says that they may help.
    Belongs to one event loop.
    """

    def __init__(self, address: str, client_id: str | None = None, timeout: float = 120.0,
                 patience: float = PATIENCE, find_leader: FindLeader | None = None,
                 tls: TlsFolder = None):
        """As muster.client.Replica."""
        self._client_id = client_id or new_client_id()
        self._timeout = timeout
        self.patience = patience
        self._find_leader = find_leader
        self._link = AsyncLink(address, Tls(find_tls(tls), WORKER))
        self._model: Model | None = None
        self._lease: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Replica":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()

    @property
    def client_id(self) -> str:
        return self._client_id

    @property
    def address(self) -> str:
        """Of the leader, as far as it is known."""
        return self._link.address

    async def close(self) -> None:
        if self._lease is not None:
            self._lease.cancel()
        await self._link.close()

    async def model(self) -> Model:
        """What the replica runs, asked anew."""
        response = await self._call(methods.GET_MODEL, inference_pb2.GetModelRequest())
        self._model = model_of(response)
        return self._model

    async def known_model(self) -> Model:
        """As `model`, asked once."""
        return self._model or await self.model()

    async def capacity(self) -> Capacity:
        request = inference_pb2.GetCapacityRequest(client_id=self._client_id)
        return capacity_of((await self._call(methods.GET_CAPACITY, request)).capacity)

    async def watch_capacity(self) -> AsyncIterator[Capacity]:
        """The capacity at once, then after every change; renews the lease meanwhile."""
        request = inference_pb2.WatchCapacityRequest(client_id=self._client_id)
        async with self._link.stream(methods.WATCH_CAPACITY, request) as changes:
            async for change in changes:
                yield capacity_of(change.capacity)

    async def forward(self, slices: Iterable[Slice], expected_epoch: int | None = None,
                      request_id: str | None = None) -> StepResult:
        """As muster.client.Replica.forward. To have several on their way: muster.stream."""
        request = forward_to_wire(
            self._client_id, request_id or secrets.token_hex(8), slices, expected_epoch)
        return result_of(
            await self._call(methods.FORWARD, request, in_epoch=expected_epoch is not None))

    async def fork(self, sequence_id: str, new_sequence_id: str, tokens: int | None = None) -> Fork:
        """As muster.client.Replica.fork."""
        request = inference_pb2.ForkSequenceRequest(
            client_id=self._client_id, sequence_id=sequence_id, new_sequence_id=new_sequence_id,
            tokens=tokens)
        return fork_of(await self._call(methods.FORK_SEQUENCE, request, idempotent=False))

    async def free(self, *sequence_ids: str) -> int:
        """Gives the KV blocks of sequences back; returns how many of them were held."""
        request = inference_pb2.FreeSequencesRequest(
            client_id=self._client_id, sequence_ids=sequence_ids)
        return (await self._call(methods.FREE_SEQUENCES, request)).freed

    async def free_all(self) -> int:
        """Frees all sequences of this client, in one try."""
        request = inference_pb2.FreeSequencesRequest(client_id=self._client_id, all=True)
        return (await self._link.call(methods.FREE_SEQUENCES, request, 2.0)).freed

    async def sequence(self) -> "Sequence":
        """A new sequence. As long as this replica is open, its lease is renewed."""
        model = await self.known_model()
        self.keep_lease(model)
        return Sequence(self, model)

    def keep_lease(self, model: Model) -> None:
        """Renews the client's lease from now on, until this is closed."""
        if self._lease is None and model.client_lease_s > 0:
            self._lease = asyncio.ensure_future(
                self._renew(renewal_interval(model.client_lease_s)))

    def open_stream(self) -> StreamCall:
        """A bare ForwardStream of the leader; muster.stream makes it outlast lost connections."""
        method = methods.FORWARD_STREAM
        return self._link.channel.stream_stream(
            method.path, request_serializer=method.encode, response_deserializer=method.decode)()

    def failure(self, error: grpc.RpcError) -> MusterError:
        """The exception for a failed call of such a stream."""
        return self._link.failure(error)

    async def recover(self, error: MusterError, pause: float) -> None:
        """Waits until what failed with `error` may be better: there is room, or another leader."""
        if error.of_admission:
            try:
                async with asyncio.timeout(pause):
                    changes = self.watch_capacity()
                    await anext(changes)
                    await anext(changes)
            except (TimeoutError, MusterError, StopAsyncIteration):
                pass  # Nothing changed for so long: asking again does no harm.
            return
        await asyncio.sleep(pause)
        if self._find_leader and (error.code == "UNAVAILABLE" or error.reason == "NOT_LEADER"):
            try:
                await self._link.move(await self._find_leader())
            except MusterError:
                pass  # The coordinator is away as well; the leader may be where it was.

    async def _call(self, method: Method[Q, R], request: Q, idempotent: bool = True,
                    in_epoch: bool = False) -> R:
        retries = Retries(self.patience)
        while True:
            try:
                return await self._link.call(method, request, self._timeout)
            except MusterError as error:
                # A stale epoch stays stale until whoever named it names another.
                stale = in_epoch and error.reason == "STALE_EPOCH"
                if stale or (error.unanswered and not idempotent):
                    raise
                await self.recover(error, retries.pause_after(error))

    async def _renew(self, interval: float) -> None:
        request = inference_pb2.GetCapacityRequest(client_id=self._client_id)
        while True:
            await asyncio.sleep(interval)
            try:
                await self._link.call(methods.GET_CAPACITY, request, self._timeout)
            except MusterError:
                pass


class Sequence:
    """As muster.sequence.Sequence, awaited. Made by Replica.sequence."""

    def __init__(self, replica: Replica, model: Model, history: History | None = None):
        self._replica = replica
        self._model = model
        self._history = history or History()

    async def __aenter__(self) -> "Sequence":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        try:
            await self.free()
        except MusterError:
            pass  # Its lease gives it back.

    @property
    def id(self) -> str:
        return self._history.sequence_id

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens that the replica holds."""
        return tuple(self._history.tokens)

    def __len__(self) -> int:
        return len(self._history.tokens)

    async def append(self, tokens: Tokens[int]) -> None:
        """Runs tokens, at least one, without sampling."""
        await self._run(growth(self._history, tokens, self._model.max_rows_per_step, None))

    async def decode(self, tokens: Tokens[int], sampling: Sampling = Sampling(),
                     top_n: int = 0) -> Token:
        """Runs tokens, at least one, and returns the token sampled after the last one."""
        token = await self._run(
            growth(self._history, tokens, self._model.max_rows_per_step, sampling, top_n))
        if token is None:
            raise MusterError("the replica sampled no token", "INTERNAL")
        return token

    async def generate(self, prompt: Tokens[int], max_tokens: int,
                       sampling: Sampling = Sampling(), top_n: int = 0) -> AsyncIterator[Token]:
        """Appends a prompt, then yields tokens up to the end token, which is included."""
        pending = prompt
        for _ in range(max_tokens):
            token = await self.decode(pending, sampling, top_n)
            yield token
            if token.id in self._model.eos_token_ids:
                return
            pending = [token.id]

    async def fork(self, tokens: int | None = None) -> "Sequence":
        """A new sequence that begins with the first `tokens` of this one (None: all)."""
        name = new_sequence_id()
        fork = await self._replica.fork(self.id, name, tokens)
        history = History(name, self._history.tokens[:fork.tokens], fork.epoch)
        return Sequence(self._replica, self._model, history)

    async def free(self) -> None:
        """Gives its KV blocks back; it is then empty and can be used again."""
        await self._replica.free(self.id)
        self._history = History(prefilled=self._history.prefilled)

    async def _run(self, steps: Growth) -> Token | None:
        try:
            step = next(steps)
            while True:
                try:
                    result = await self._replica.forward([step.piece], step.expected_epoch)
                except MusterError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            token: Token | None = end.value
            return token
