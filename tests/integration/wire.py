"""The daemons as a program without Muster's client meets them: bare stubs, bare messages."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import grpc
import pytest
from admin_port import ADMIN, await_requests
from fleets import MODELS, await_that
from google.protobuf import duration_pb2
from muster.fleet_process import bin_directory
from proto.google.rpc import status_pb2
from proto.muster.v1 import (
    error_pb2,
    fleet_pb2,
    fleet_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    types_pb2,
    worker_control_pb2_grpc,
)

# Far above what a call takes here.
CALL_SECONDS = 20.0
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True)
class Refusal:
    """What a call failed with."""

    code: str
    message: str
    detail: error_pb2.ErrorDetail | None
    detail_bytes: int = 0

    @property
    def reason(self) -> str:
        reason = error_pb2.ERROR_REASON_UNSPECIFIED if self.detail is None else self.detail.reason
        return error_pb2.ErrorReason.Name(reason).removeprefix("ERROR_REASON_")

    @classmethod
    def of_call(cls, error: grpc.RpcError) -> "Refusal":
        packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        status = status_pb2.Status.FromString(packed)
        if not packed:
            return cls(error.code().name, error.details(), None)
        assert (status.code, status.message) == (error.code().value[0], error.details())
        return cls.of_status(status)

    @classmethod
    def of_status(cls, status: status_pb2.Status) -> "Refusal":
        if not status.details:
            return cls(_CODES[status.code], status.message, None, status.ByteSize())
        detail = error_pb2.ErrorDetail()
        (packed,) = status.details
        assert packed.Unpack(detail)
        return cls(_CODES[status.code], status.message, detail, status.ByteSize())

    @classmethod
    def of_failure(cls, failure) -> "Refusal":
        """Of a fleet's Failure or an EpochAborted."""
        return cls(_CODES[failure.code], failure.message, failure.detail, failure.ByteSize())


def refusal(call: Callable[[], object]) -> Refusal:
    """What `call` fails with, which it must."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return Refusal.of_call(caught.value)


def seconds(value: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


def piece(sequence: str, tokens=(), first: int = 0, sample: bool = True, **fields):
    """A slice of a sequence."""
    return inference_pb2.SequenceSlice(
        sequence_id=sequence, token_ids=tokens, first_position=first, sample=sample, **fields)


def forward_request(*slices, client: str = "test", **fields) -> inference_pb2.ForwardRequest:
    return inference_pb2.ForwardRequest(client_id=client, slices=slices, **fields)


class Rank:
    """One worker's services."""

    def __init__(self, address: str):
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(address, options)
        self.inference = inference_pb2_grpc.InferenceStub(self.channel)
        self.control = worker_control_pb2_grpc.WorkerControlStub(self.channel)

    def forward(self, *slices, **fields) -> inference_pb2.ForwardResponse:
        return self.inference.Forward(forward_request(*slices, **fields), timeout=CALL_SECONDS)

    def stream(self, *requests: inference_pb2.ForwardRequest):
        """A ForwardStream, which hands them to the engine in this order."""
        return self.inference.ForwardStream(iter(requests), timeout=CALL_SECONDS)

    def fork(self, sequence: str, new_sequence: str, client: str = "test", **fields):
        return self.inference.ForkSequence(
            inference_pb2.ForkSequenceRequest(
                client_id=client, sequence_id=sequence, new_sequence_id=new_sequence, **fields),
            timeout=CALL_SECONDS)

    def free(self, *sequences: str, client: str = "test") -> int:
        """Frees the sequences, or all of the client's; returns how many were held."""
        return self.inference.FreeSequences(
            inference_pb2.FreeSequencesRequest(
                client_id=client, sequence_ids=sequences, all=not sequences),
            timeout=CALL_SECONDS).freed

    def health(self) -> str:
        """What grpc.health.v1 says of Inference; its messages are of one field each."""
        service = b"muster.v1.Inference"
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = check(b"\x0a" + bytes([len(service)]) + service, timeout=CALL_SECONDS)
        return {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}[answer]

    def capacity(self) -> inference_pb2.Capacity:
        return self.inference.GetCapacity(
            inference_pb2.GetCapacityRequest(), timeout=CALL_SECONDS).capacity


def _thread_states(pid: int) -> Iterator[str]:
    """Of all threads of a process, as proc(5) has them."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        yield (thread / "stat").read_text().rsplit(") ", 1)[1][0]


@dataclass
class Coordinator:
    address: str
    process: subprocess.Popen

    @cached_property
    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])

    @cached_property
    def fleet(self) -> fleet_pb2_grpc.FleetStub:
        return fleet_pb2_grpc.FleetStub(self.channel)

    def replica(self) -> fleet_pb2.ReplicaStatus:
        request = fleet_pb2.GetTopologyRequest()
        return self.fleet.GetTopology(request, timeout=CALL_SECONDS).replicas[0]

    def workers(self) -> dict[str, fleet_pb2.WorkerStatus]:
        request = fleet_pb2.ListWorkersRequest()
        response = self.fleet.ListWorkers(request, timeout=CALL_SECONDS)
        return {worker.worker_id: worker for worker in response.workers}

    def plan(self, tp: int = 1, cp: int = 1) -> fleet_pb2.PlanTopologyResponse:
        config = types_pb2.ParallelConfig(tp=tp, cp=cp, pp=1, replicas=1)
        return self.fleet.PlanTopology(
            fleet_pb2.PlanTopologyRequest(config=config), timeout=CALL_SECONDS)


@dataclass
class ServingFleet:
    """A replica of two workers, w0 and w1, that split the KV cache."""

    coordinator: Coordinator
    processes: dict[str, subprocess.Popen]
    ranks: list[Rank] = field(default_factory=list)

    @property
    def leader(self) -> Rank:
        return self.ranks[0]

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """The follower is stopped: a step that begins does not end until this is left, which must
        be soon."""
        follower = self.processes[self.coordinator.replica().topology.ranks[1].worker_id]
        os.kill(follower.pid, signal.SIGSTOP)
        try:
            # Its threads run on for a moment, on other cores.
            await_that(lambda: set(_thread_states(follower.pid)) == {"T"}, "the follower stands")
            yield
        finally:
            os.kill(follower.pid, signal.SIGCONT)

    def standing_step(self, *requests: inference_pb2.ForwardRequest):
        """A stream of requests while it stands still: the first is in its step, and the others wait
        behind it."""
        stream = self.leader.stream(*requests)
        leader = self.coordinator.replica().topology.ranks[0].worker_id
        await_requests(self.processes[leader], len(requests))
        await_that(lambda: self.leader.capacity().queued_requests == len(requests) - 1,
                   "the step runs")
        return stream


class Daemons:
    """Starts daemons for one module's tests, and ends them with it.

    Their logs are NUMBER-DAEMON.log in `directory`, as far as `log_level` lets them write any.
    """

    def __init__(self, directory: Path, log_level: str = "info"):
        self.directory = directory
        self._log_level = log_level
        self._processes: list[subprocess.Popen] = []

    def start(self, daemon: str, *words: str) -> subprocess.Popen:
        log = self.directory / f"{len(self._processes)}-{daemon}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [str(bin_directory() / daemon), *words, "--die-with-parent", "--log-level",
                 self._log_level],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
        self._processes.append(process)
        return process

    def log_of(self, process: subprocess.Popen) -> str:
        """What a daemon has written so far."""
        (log,) = self.directory.glob(f"{self._processes.index(process)}-*.log")
        return log.read_text()

    def coordinator(self, cp: int = 1, *words: str, lease: str = "20s") -> Coordinator:
        """A coordinator with so long a lease that a worker may stand still for a while."""
        port_file = self.directory / f"port-{len(self._processes)}"
        process = self.start(
            "muster-coordinator", "--listen", "127.0.0.1:0", "--cp", str(cp), "--lease", lease,
            "--port-file", str(port_file), *words)
        await_that(port_file.exists, "the coordinator listens")
        return Coordinator(port_file.read_text().strip(), process)

    def worker(self, coordinator: Coordinator, worker: str, model: str | Path = "llama-mha12",
               kv_memory: str = "4MiB", words: tuple[str, ...] = ()) -> subprocess.Popen:
        directory = MODELS / model if isinstance(model, str) else model
        return self.start(
            "muster-worker", "--coordinator", coordinator.address, "--worker-id", worker,
            "--model", str(directory), "--kv-memory", kv_memory, "--threads", "1", *words)

    def serving_fleet(self, model: str | Path = "llama-mha12",
                      kv_memory: str = "4MiB") -> ServingFleet:
        coordinator = self.coordinator(cp=2)
        processes = {
            name: self.worker(coordinator, name, model, kv_memory, ADMIN)
            for name in ("w0", "w1")}
        await_that(lambda: coordinator.replica().state == fleet_pb2.REPLICA_STATE_SERVING,
                   "the fleet serves")
        ranks = [Rank(rank.address) for rank in coordinator.replica().topology.ranks]
        return ServingFleet(coordinator, processes, ranks)

    def end(self) -> None:
        # Nobody is left to hand a rank over to.
        for process in self._processes:
            process.send_signal(signal.SIGINT)
        for process in reversed(self._processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def daemons_of_a_module(directory: Path, log_level: str = "info") -> Iterator[Daemons]:
    """They are ended with the module, and leave no shared memory."""
    segments = set(os.listdir("/dev/shm"))
    daemons = Daemons(directory, log_level)
    if not (bin_directory() / "muster-worker").exists():
        pytest.fail(f"{bin_directory()} has no daemons: run ./muster build, or set MUSTER_BIN_DIR")
    try:
        yield daemons
    finally:
        daemons.end()
    assert set(os.listdir("/dev/shm")) <= segments
