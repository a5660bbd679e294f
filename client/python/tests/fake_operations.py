"""The operations of a fake fleet: changes of its context-parallel size, which keep its sequences."""

import threading

import grpc
from proto.muster.v1 import error_pb2, fleet_pb2

# How a replica's part in an operation ends, and the event that tells of it.
_TURNS = {fleet_pb2.RESIZE_STAGE_DONE: fleet_pb2.EVENT_KIND_RESIZED,
          fleet_pb2.RESIZE_STAGE_ROLLED_BACK: fleet_pb2.EVENT_KIND_ROLLED_BACK}


class FakeOperations:
    """A mixin for FakeFleet.

    Attributes:
      go_on: is awaited by an operation in its preparing stage; set at first.
      lose_watches: how many streams of operations are lost after their first state.
      failure: what the next operations are rolled back for; empty: they come about.
      asked: every request that began or joined an operation.
      kept: how many operations are listed at most.
      listed: how often they were.
    """

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.lose_watches = 0
        self.failure = ""
        self.asked: list[object] = []
        self.kept, self.listed = 16, 0
        self._operations: list[fleet_pb2.Operation] = []

    def ScaleContextParallel(self, request, context):
        for operation in self._operate(
                request, context, fleet_pb2.OPERATION_KIND_SCALE_CONTEXT_PARALLEL, request.cp):
            yield fleet_pb2.ScaleContextParallelResponse(operation=operation)

    def ApplyTopology(self, request, context):
        for operation in self._operate(
                request, context, fleet_pb2.OPERATION_KIND_APPLY_TOPOLOGY, request.config.cp):
            yield fleet_pb2.ApplyTopologyResponse(operation=operation)

    def DrainWorker(self, request, context):
        for operation in self._operate(
                request, context, fleet_pb2.OPERATION_KIND_DRAIN_WORKER, self.cp - 1):
            yield fleet_pb2.DrainWorkerResponse(operation=operation)

    def CancelOperation(self, request, context):
        for operation in self._operations:
            if operation.id == request.operation_id:
                if operation.state == fleet_pb2.OPERATION_STATE_RUNNING:
                    self.failure = "cancelled by request"
                    self.go_on.set()
                return fleet_pb2.CancelOperationResponse(operation=operation)
        context.abort(grpc.StatusCode.NOT_FOUND, f"there is no operation {request.operation_id}")

    def ListOperations(self, request, context):
        self.listed += 1
        newest = list(reversed(self._operations))
        return fleet_pb2.ListOperationsResponse(operations=newest[:self.kept])

    def operation_events(self, context):
        """Of operations: their beginning, what became of the replica, their end; as they happen."""
        told = 0
        for _ in self._changes(context, lambda: len(self._marks())):
            for kind, name in self._marks()[told:]:
                told += 1
                yield fleet_pb2.WatchEventsResponse(sequence=told, kind=kind, operation_id=name)

    def describe_change(self, cp: int, change: fleet_pb2.ReplicaChange) -> None:
        change.from_epoch, change.to_epoch = self.epoch, self.epoch + 1
        getattr(change, "from").cp, change.to.cp = self.cp, cp
        change.ranks.add(worker_id="w0", role=fleet_pb2.RankChange.ROLE_SURVIVOR, peak_bytes=5)
        change.flows.add(from_rank=0, to_rank=1, blocks=2, bytes=64)
        change.kv_blocks_moved, change.kv_blocks_kept = 2, 3
        change.predicted_pause.nanos = 4_000_000

    def _marks(self) -> list[tuple[int, str]]:
        marks = []
        for operation in self._operations:
            marks.append((fleet_pb2.EVENT_KIND_OPERATION_STARTED, operation.id))
            for resize in operation.replicas:
                if resize.stage in _TURNS:
                    marks.append((_TURNS[resize.stage], operation.id))
            if operation.state != fleet_pb2.OPERATION_STATE_RUNNING:
                marks.append((fleet_pb2.EVENT_KIND_OPERATION_ENDED, operation.id))
        return marks

    def _operate(self, request, context, kind: int, cp: int):
        operation = self._begun(request, context, kind, cp)
        yield operation
        if self.lose_watches:
            self.lose_watches -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        if operation.state == fleet_pb2.OPERATION_STATE_RUNNING:
            self.go_on.wait(20)
            self._end(operation, cp)
            yield operation

    def _begun(self, request, context, kind: int, cp: int) -> fleet_pb2.Operation:
        """The operation of a request: a new one, or that which it began before."""
        with self.change():
            self.asked.append(request)
            for operation in self._operations:
                if operation.id == request.request_id:
                    return operation
            if running := [it for it in self._operations
                           if it.state == fleet_pb2.OPERATION_STATE_RUNNING]:
                context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION, f"operation {running[0].id} runs")
            operation = fleet_pb2.Operation(
                id=request.request_id, kind=kind, state=fleet_pb2.OPERATION_STATE_RUNNING,
                summary=f"cp {self.cp} to {cp}")
            operation.started.seconds = 100
            if cp == self.cp:
                operation.no_change = True
                operation.state = fleet_pb2.OPERATION_STATE_DONE
            else:
                self._describe(operation.replicas.add(), cp)
            self._operations.append(operation)
            return operation

    def _describe(self, resize: fleet_pb2.ReplicaResize, cp: int) -> None:
        resize.stage = fleet_pb2.RESIZE_STAGE_PREPARING
        resize.from_epoch, resize.to_epoch = self.epoch, self.epoch + 1
        getattr(resize, "from").cp, resize.to.cp = self.cp, cp
        rank = resize.ranks.add(rank=0, worker_id="w0")
        rank.progress.phase = "load"

    def _end(self, operation: fleet_pb2.Operation, cp: int) -> None:
        resize = operation.replicas[0]
        if operation.state != fleet_pb2.OPERATION_STATE_RUNNING:
            return
        if not self.failure:
            self.cp = cp
            self.begin_epoch(keep=True)
        with self.change():
            operation.ended.seconds = 101
            if self.failure:
                operation.state = fleet_pb2.OPERATION_STATE_ROLLED_BACK
                resize.stage = fleet_pb2.RESIZE_STAGE_ROLLED_BACK
                operation.failure.code = grpc.StatusCode.ABORTED.value[0]
                operation.failure.message = self.failure
                operation.failure.detail.reason = error_pb2.ERROR_REASON_OPERATION_CANCELLED
                operation.failure.detail.workers.append("w0")
                return
            operation.state = fleet_pb2.OPERATION_STATE_DONE
            resize.stage = fleet_pb2.RESIZE_STAGE_DONE
            resize.prepare_time.nanos, resize.pause.nanos = 250_000_000, 4_000_000
            resize.kv_blocks_moved, resize.kv_blocks_kept = 21, 20
            resize.kv_bytes_moved = 4096
