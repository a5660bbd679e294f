"""A fleet over gRPC, with the plain values of muster.values in and out."""

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

from muster import methods
from muster.errors import MusterError
from muster.link import Link
from muster.messages import config_to_wire, event_of, replica_of
from muster.methods import Method, Q, R
from muster.operation_messages import (
    P, apply_to_wire, drain_to_wire, operation_of, outcome, plan_of, scale_to_wire)
from muster.replica import PATIENCE, Replica
from muster.retry import Retries
from muster.tls import COORDINATOR, Tls, TlsFolder, find_tls
from muster.values import Event, Operation, ParallelConfig, Plan, ReplicaStatus
from proto.muster.v1 import fleet_pb2

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

    def replica(self, index: int | None = None, wait: float = 0.0) -> Replica:
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
