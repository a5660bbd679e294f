"""Workers that a test plays itself, to a coordinator that does not know better."""

import queue
import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
from fleets import await_that
from proto.muster.v1 import (
    membership_pb2,
    membership_pb2_grpc,
    rendezvous_pb2,
    rendezvous_pb2_grpc,
    types_pb2,
    worker_control_pb2,
    worker_control_pb2_grpc,
)
from wire import CALL_SECONDS, Coordinator, Refusal, seconds


class _Idle(worker_control_pb2_grpc.WorkerControlServicer):
    """Takes every rank, and loads until it is told to end."""

    def __init__(self, ending: threading.Event):
        self._ending = ending

    def Assign(self, request, context):
        return worker_control_pb2.AssignResponse()

    def Load(self, request, context) -> Iterator[worker_control_pb2.LoadResponse]:
        yield worker_control_pb2.LoadResponse(progress=types_pb2.Progress(phase="load"))
        while context.is_active() and not self._ending.wait(0.02):
            pass

    def Release(self, request, context):
        return worker_control_pb2.ReleaseResponse()


class HandWorker:
    """One enlisted worker: what it is told is kept in `notices`."""

    def __init__(self, coordinator: Coordinator, name: str, incarnation: int, address: str,
                 digest: str, build: str):
        self.name = name
        self.incarnation = incarnation
        self.notices: list[membership_pb2.EnlistResponse] = []
        self._messages: queue.SimpleQueue = queue.SimpleQueue()
        self.enlistment = membership_pb2.EnlistRequest(enlistment=membership_pb2.Enlistment(
            worker_id=name, incarnation=incarnation, address=address, model=model_by_hand(digest),
            device=types_pb2.DeviceReport(kind="cpu", name="by hand"), build=build))
        self._messages.put(self.enlistment)
        stub = membership_pb2_grpc.MembershipStub(coordinator.channel)
        self._stream = stub.Enlist(iter(self._messages.get, None))
        self._rendezvous = rendezvous_pb2_grpc.RendezvousStub(coordinator.channel)
        threading.Thread(target=self._read, daemon=True).start()
        await_that(lambda: self.notices, "the coordinator welcomes it")

    def leave(self) -> None:
        """Its lease ends, as if the process had died."""
        self._messages.put(None)
        self._stream.cancel()

    def aborted(self) -> Refusal:
        """Why its epoch was given up, as soon as it is told."""
        await_that(lambda: len(self.notices) > 1, "it is told that the epoch is over")
        return Refusal.of_failure(self.notices[1].epoch_aborted)

    def all_gather(self, topology: types_pb2.Topology, key: str, timeout: float = CALL_SECONDS,
                   **contribution) -> grpc.Future:
        """Meets all ranks of the stage; `contribution` is `value` or `failure`."""
        (rank,) = [it.rank for it in topology.ranks if it.worker_id == self.name]
        scope = rendezvous_pb2.RendezvousScope(epoch=topology.epoch, group_id=topology.groups[0].id)
        return self._rendezvous.AllGather.future(
            rendezvous_pb2.AllGatherRequest(
                scope=scope, key=key, group_rank=rank, timeout=seconds(timeout),
                incarnation=self.incarnation, **contribution),
            timeout=CALL_SECONDS)

    def _read(self) -> None:
        try:
            for notice in self._stream:
                self.notices.append(notice)
        except grpc.RpcError:
            pass  # It left, or the coordinator did.


class HandWorkers:
    """Makes them; they share one server, which answers the coordinator."""

    def __init__(self):
        self._ending = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        worker_control_pb2_grpc.add_WorkerControlServicer_to_server(
            _Idle(self._ending), self._server)
        self._address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        self._made: list[HandWorker] = []

    def enlist(self, coordinator: Coordinator, name: str, digest: str = "0" * 16,
               build: str = "") -> HandWorker:
        worker = HandWorker(coordinator, name, len(self._made) + 1, self._address, digest, build)
        self._made.append(worker)
        return worker

    def end(self) -> None:
        self._ending.set()
        for worker in self._made:
            worker.leave()
        self._server.stop(None)


def model_by_hand(digest: str) -> types_pb2.ModelSpec:
    return types_pb2.ModelSpec(
        architecture="LlamaForCausalLM", name="by-hand", layers=2, hidden=96, heads=12,
        kv_heads=12, head_dim=8, ffn=130, vocabulary=101, max_positions=512, dtype="float32",
        digest=digest, weight_bytes=1 << 20)
