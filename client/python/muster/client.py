"""Fleet and replicas over gRPC, with the plain values of muster.values in and out."""

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Tokens
from types import TracebackType
from typing import Self

from muster import methods
from muster.errors import MusterError
from muster.lease import LeaseKeeper
from muster.link import Link
from muster.messages import (
    capacity_of, config_to_wire, event_of, fork_of, forward_to_wire, model_of, replica_of,
    result_of)
from muster.methods import Method, Q, R
from muster.operation_messages import (
    P, apply_to_wire, drain_to_wire, operation_of, outcome, plan_of, scale_to_wire)
from muster.retry import Retries
from muster.sequence import Sequence
from muster.tls import COORDINATOR, WORKER, Tls, TlsFolder, find_tls
from muster.values import (
    Capacity, Event, Fork, Model, Operation, ParallelConfig, Plan, ReplicaStatus, Sampling, Slice,
    StepResult, Token)
from proto.muster.v1 import fleet_pb2, inference_pb2

# Seconds for which what is marked retriable is retried, unless the caller says otherwise.
PATIENCE = 10.0
# Answers "host:port" of a replica's leader, or raises MusterError.
FindLeader = Callable[[], str]
# Is given an operation whenever it has got on.
OnProgress = Callable[[Operation], None]


class Fleet:
    """Calls of a coordinator. Every failed call raises MusterError. Thread-safe."""

    def __init__(self, address: str, timeout: float = 10.0, patience: float = PATIENCE,
                 tls: TlsFolder = None):
        """Connects when the first call is made.

        Args:
          address: "host:port" of the coordinator.
          timeout: seconds that one call may take.
          patience: seconds for which retriable failures are retried, in calls of the replicas too.
          tls: folder with tls.crt, tls.key and ca.crt, for calls of the replicas too; "" for
            plaintext, None for $MUSTER_TLS. What is not such a folder raises MusterError at once.
        """
        self._timeout = timeout
        self._patience = patience
        self._tls = find_tls(tls)
        self._link = Link(address, Tls(self._tls, COORDINATOR))

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._link.close()

    def replicas(self) -> list[ReplicaStatus]:
        """The replicas as they are now."""
        response = self._call(methods.GET_TOPOLOGY, fleet_pb2.GetTopologyRequest())
        return [replica_of(replica) for replica in response.replicas]

    def watch(self, timeout: float | None = None) -> Iterator[list[ReplicaStatus]]:
        """The replicas at once, then after every change; a lost connection is made again.

        Args:
          timeout: seconds after which it ends with a MusterError (DEADLINE_EXCEEDED); None: never.
        """
        end = None if timeout is None else time.monotonic() + timeout
        retries = Retries(self._patience)
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                with self._link.stream(
                        methods.WATCH_TOPOLOGY, fleet_pb2.WatchTopologyRequest(), left) as changes:
                    for change in changes:
                        retries = Retries(self._patience)
                        yield [replica_of(replica) for replica in change.replicas]
                ended = MusterError(
                    f"{self._link.address} ended its watch", "UNAVAILABLE", retriable=True)
                time.sleep(retries.pause_after(ended))
            except MusterError as error:
                time.sleep(retries.pause_after(error))

    def plan(self, config: ParallelConfig) -> Plan:
        """What other sizes would look like, and take; changes nothing. Sizes of 0 stay."""
        request = fleet_pb2.PlanTopologyRequest(config=config_to_wire(config))
        return plan_of(self._call(methods.PLAN_TOPOLOGY, request))

    def operations(self) -> list[Operation]:
        """The running operation and the last ones that have ended, newest first."""
        response = self._call(methods.LIST_OPERATIONS, fleet_pb2.ListOperationsRequest())
        return [operation_of(operation) for operation in response.operations]

    def cancel_operation(self, operation_id: str) -> Operation:
        """Has an operation that has not taken effect undone; returns it as it is then."""
        request = fleet_pb2.CancelOperationRequest(operation_id=operation_id)
        return operation_of(self._call(methods.CANCEL_OPERATION, request).operation)

    def scale_context_parallel(self, cp: int, request_id: str | None = None,
                               timeout: float | None = None,
                               on_progress: OnProgress | None = None) -> Operation:
        """Changes the cp of all replicas while they serve, and returns when that has ended.

        Where it did not take effect, why is raised. A connection that is lost meanwhile is made
        again: the operation goes on without it, and under its id it is found again.

        Args:
          cp: context-parallel size that is wanted.
          request_id: names the operation; the same one again joins it. By default a new one.
          timeout: seconds of each replica's change, after which it is rolled back.
          on_progress: is given the operation whenever it has got on.
        """
        return self._operate(
            methods.SCALE_CONTEXT_PARALLEL, scale_to_wire(cp, request_id, timeout), on_progress)

    def apply_topology(self, config: ParallelConfig, buckets: Iterable[int] = (),
                       drop: Iterable[str] = (), request_id: str | None = None,
                       timeout: float | None = None,
                       on_progress: OnProgress | None = None) -> Operation:
        """As scale_context_parallel, for all sizes; KV that cannot be moved is computed again.

        Args:
          config: sizes of 0 stay as they are.
          buckets: rows of the graphs, largest first; none: as they are.
          drop: "CLIENT/SEQUENCE" of those that may be lost, or "*".
          request_id, timeout, on_progress: as there.
        """
        request = apply_to_wire(config, buckets, drop, request_id, timeout)
        return self._operate(methods.APPLY_TOPOLOGY, request, on_progress)

    def drain_worker(self, worker_id: str, request_id: str | None = None,
                     timeout: float | None = None,
                     on_progress: OnProgress | None = None) -> Operation:
        """As scale_context_parallel: takes a worker out of service, with its KV kept elsewhere."""
        request = drain_to_wire(worker_id, request_id, timeout)
        return self._operate(methods.DRAIN_WORKER, request, on_progress)

    def events(self, from_sequence: int = 0, follow: bool = False,
               timeout: float | None = None) -> Iterator[Event]:
        """Events kept by the coordinator; with `follow` it goes on as they happen.

        Args:
          from_sequence: the first wanted; 0 means the oldest kept.
          follow: wait for further ones.
          timeout: seconds after which following ends with a MusterError; None: never.
        """
        request = fleet_pb2.WatchEventsRequest(from_sequence=from_sequence, no_follow=not follow)
        limit = timeout if follow else self._timeout
        with self._link.stream(methods.WATCH_EVENTS, request, limit) as events:
            for event in events:
                yield event_of(event)

    def replica(self, index: int | None = None, wait: float = 0.0) -> "Replica":
        """A replica that serves; its later calls follow the leader wherever it goes.

        Args:
          index: of the replica; the first that serves if there is none.
          wait: seconds to wait for it to serve.
        """
        leader = serving_leader(self.replicas(), index) if not wait else \
            self._await_leader(index, wait)
        return Replica(leader, patience=self._patience, tls=self._tls,
                       find_leader=lambda: serving_leader(self.replicas(), index))

    @property
    def tls(self) -> str:
        """The folder of its certificate; "" in plaintext."""
        return self._tls

    def _await_leader(self, index: int | None, wait: float) -> str:
        error: MusterError | None = None
        try:
            for statuses in self.watch(wait):
                try:
                    return serving_leader(statuses, index)
                except MusterError as why:
                    error = why
        except MusterError as ended:
            raise error or ended from None
        raise AssertionError("a watch does not end")

    def _call(self, method: Method[Q, R], request: Q) -> R:
        retries = Retries(self._patience)
        while True:
            try:
                return self._link.call(method, request, self._timeout)
            except MusterError as error:
                time.sleep(retries.pause_after(error))

    def _operate(self, method: Method[Q, P], request: Q,
                 on_progress: OnProgress | None) -> Operation:
        retries = Retries(self._patience)
        while True:
            last: Operation | None = None
            try:
                with self._link.stream(method, request, None) as states:
                    for state in states:
                        retries = Retries(self._patience)
                        last = operation_of(state.operation)
                        if on_progress is not None:
                            on_progress(last)
            except MusterError as error:
                if not error.unanswered:
                    raise
                time.sleep(retries.pause_after(error))
            else:
                return outcome(last)


class Replica:
    """Calls of a replica's leader, as one client with sequences of its own. Thread-safe.

    Every failed call raises MusterError, after retries where the error says that they may help.
    """

    def __init__(self, address: str, client_id: str | None = None, timeout: float = 120.0,
                 patience: float = PATIENCE, find_leader: FindLeader | None = None,
                 tls: TlsFolder = None):
        """Connects when the first call is made.

        Args:
          address: "host:port" of the leader.
          client_id: names the owner of the sequences; by default a new one.
          timeout: seconds that one call may take.
          patience: seconds for which retriable failures are retried; 0: not at all.
          find_leader: finds the leader when it no longer answers at `address`.
          tls: as of Fleet.
        """
        self._client_id = client_id or new_client_id()
        self._timeout = timeout
        self._patience = patience
        self._find_leader = find_leader
        self._link = Link(address, Tls(find_tls(tls), WORKER))
        self._model: Model | None = None
        self._lease = LeaseKeeper(self._renew)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    @property
    def client_id(self) -> str:
        return self._client_id

    @property
    def address(self) -> str:
        """Of the leader, as far as it is known."""
        return self._link.address

    def close(self) -> None:
        self._lease.stop()
        self._link.close()

    def model(self) -> Model:
        """What the replica runs, asked anew."""
        self._model = model_of(self._call(methods.GET_MODEL, inference_pb2.GetModelRequest()))
        return self._model

    def known_model(self) -> Model:
        """As `model`, asked once."""
        return self._model or self.model()

    def capacity(self) -> Capacity:
        request = inference_pb2.GetCapacityRequest(client_id=self._client_id)
        return capacity_of(self._call(methods.GET_CAPACITY, request).capacity)

    def watch_capacity(self, timeout: float | None = None) -> Iterator[Capacity]:
        """The capacity at once, then after every change; renews the lease meanwhile.

        Args:
          timeout: seconds after which it ends with a MusterError (DEADLINE_EXCEEDED); None: never.
        """
        request = inference_pb2.WatchCapacityRequest(client_id=self._client_id)
        with self._link.stream(methods.WATCH_CAPACITY, request, timeout) as changes:
            for change in changes:
                yield capacity_of(change.capacity)

    def forward(self, slices: Iterable[Slice], expected_epoch: int | None = None,
                request_id: str | None = None) -> StepResult:
        """Runs one batch, once, however often the connection is lost; a refused one changed nothing.

        Args:
          slices: of different sequences, prefill chunks and decode tokens mixed.
          expected_epoch: refuse to run in another epoch; the error names the current one.
          request_id: names the request for retries of the caller's own; by default a new one.
        """
        request = forward_to_wire(
            self._client_id, request_id or secrets.token_hex(8), slices, expected_epoch)
        return result_of(self._call(methods.FORWARD, request, in_epoch=expected_epoch is not None))

    def fork(self, sequence_id: str, new_sequence_id: str, tokens: int | None = None) -> Fork:
        """Makes a sequence that begins with the first `tokens` of another (None: all).

        A connection lost meanwhile is not retried: whether the sequence exists is then unknown, and
        `free` makes sure that it does not.
        """
        request = inference_pb2.ForkSequenceRequest(
            client_id=self._client_id, sequence_id=sequence_id, new_sequence_id=new_sequence_id,
            tokens=tokens)
        return fork_of(self._call(methods.FORK_SEQUENCE, request, idempotent=False))

    def free(self, *sequence_ids: str) -> int:
        """Gives the KV blocks of sequences back; returns how many of them were held."""
        request = inference_pb2.FreeSequencesRequest(
            client_id=self._client_id, sequence_ids=sequence_ids)
        return self._call(methods.FREE_SEQUENCES, request).freed

    def abandon(self, sequence_id: str) -> None:
        """Frees a sequence whose end must not hide why it ended: one try, and no error."""
        request = inference_pb2.FreeSequencesRequest(
            client_id=self._client_id, sequence_ids=[sequence_id])
        try:
            self._link.call(methods.FREE_SEQUENCES, request, 1.0)
        except (MusterError, ValueError):  # ValueError: the channel is closed.
            pass

    def sequence(self) -> Sequence:
        """A new sequence. As long as this replica is open, its lease is renewed."""
        self._lease.start(self.known_model().client_lease_s)
        return Sequence(self)

    def generate(self, prompt: Tokens[int], max_tokens: int, sampling: Sampling = Sampling(),
                 top_n: int = 0, chunk: int | None = None) -> Iterator[Token]:
        """Yields tokens, the end token included, and frees the sequence when it ends.

        Args:
          prompt: token ids, at least one.
          max_tokens: how many to generate at most.
          sampling: how tokens are chosen.
          top_n: how many most likely tokens to return with each.
          chunk: prompt tokens per step; by default as many as a step can hold.
        """
        with self.sequence() as sequence:
            yield from sequence.generate(prompt, max_tokens, sampling, top_n, chunk)

    def _call(self, method: Method[Q, R], request: Q, idempotent: bool = True,
              in_epoch: bool = False) -> R:
        retries = Retries(self._patience)
        while True:
            try:
                return self._link.call(method, request, self._timeout)
            except MusterError as error:
                # A stale epoch stays stale until whoever named it names another.
                stale = in_epoch and error.reason == "STALE_EPOCH"
                if stale or (error.unanswered and not idempotent):
                    raise
                self._wait(error, retries.pause_after(error))

    def _wait(self, error: MusterError, pause: float) -> None:
        """Until it may be better: there is room, or the leader is elsewhere."""
        if error.of_admission:
            self._await_change(pause)
            return
        time.sleep(pause)
        if self._find_leader and (error.code == "UNAVAILABLE" or error.reason == "NOT_LEADER"):
            try:
                self._link.move(self._find_leader())
            except MusterError:
                pass  # The coordinator is away as well; the leader may be where it was.

    def _await_change(self, pause: float) -> None:
        try:
            changes = self.watch_capacity(pause)
            next(changes)
            next(changes)
        except (MusterError, StopIteration):
            pass  # Nothing changed for so long: asking again does no harm.

    def _renew(self) -> None:
        request = inference_pb2.GetCapacityRequest(client_id=self._client_id)
        self._link.call(methods.GET_CAPACITY, request, self._timeout)


def new_client_id() -> str:
    return f"python-{os.getpid()}-{secrets.token_hex(4)}"


def serving_leader(statuses: Iterable[ReplicaStatus], index: int | None) -> str:
    """Where the leader of a replica answers, or of the first that serves; raises MusterError if it does not serve."""
    known = {status.replica: status for status in statuses}
    if index is None:
        index = next((it.replica for it in known.values() if it.state == "SERVING"), min(known, default=0))
    status = known.get(index)
    if status is None:
        numbers = ", ".join(map(str, sorted(known))) or "none"
        raise MusterError(f"there is no replica {index}: the fleet has {numbers}", "NOT_FOUND")
    if status.state != "SERVING":
        why = f": {status.failure}" if status.failure else ""
        raise MusterError(f"replica {index} is {status.state} and does not serve{why}",
                          "UNAVAILABLE", retriable=True)
    return status.leader
