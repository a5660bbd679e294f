"""A fleet with standbys that changes its shape, and texts that are written on it meanwhile."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp

from fleets import PATIENCE, await_that, golden, musterctl
from muster.client import Fleet
from muster.errors import MusterError
from muster.fleet_process import bin_directory
from muster.replica import Replica
from muster.values import Event, Operation, ParallelConfig, ReplicaStatus
from proto.muster.v1 import fleet_pb2, types_pb2
from wire import Coordinator, Daemons, Rank

# 6 heads of 16: cp can be 1, 2, 3 or 4; tp can be 1 or 3. 512 positions, in float32.
MODEL = "llama-gqa6"
GOLDEN = golden(MODEL)
PROMPT = GOLDEN["prompt"]


@dataclass
class ScaledFleet:
    """A coordinator and workers by name, in the order in which they get ranks."""

    daemons: Daemons
    coordinator: Coordinator
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    @cached_property
    def client(self) -> Fleet:
        return Fleet(self.coordinator.address)

    @cached_property
    def directory(self) -> Path:
        return Path(mkdtemp(dir=self.daemons.directory))

    @property
    def replica(self) -> ReplicaStatus:
        return self.client.replicas()[0]

    @property
    def leader(self) -> Rank:
        """The leader's bare services, over a channel of its own."""
        return Rank(self.replica.leader)

    def rank_of(self, name: str) -> Rank:
        """The bare services of a worker, over a channel of its own."""
        return Rank(self.coordinator.workers()[name].address)

    @property
    def standbys(self) -> set[str]:
        """Workers that are enlisted and idle."""
        return {name for name, worker in self.coordinator.workers().items()
                if not worker.drained and worker.state == types_pb2.WORKER_STATE_ENLISTED}

    def start_worker(self, name: str, model=MODEL, kv_memory: str = "4MiB",
                     words: tuple[str, ...] = ()) -> None:
        """Returns when it is enlisted."""
        self.processes[name] = self.daemons.worker(
            self.coordinator, name, model, kv_memory, words)
        await_that(lambda: name in self.coordinator.workers(), f"{name} is enlisted")

    def ctl_command(self) -> list[str]:
        return [str(bin_directory() / "musterctl"), "--coordinator", self.coordinator.address]

    def ctl(self, *words: str) -> subprocess.CompletedProcess:
        """musterctl, run to its end."""
        return musterctl("--coordinator", self.coordinator.address, *words)

    def ctl_json(self, *words: str) -> dict:
        """What `musterctl --json` printed; it must succeed."""
        result = self.ctl("--json", *words)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def apply(self, file: str, *words: str) -> subprocess.CompletedProcess:
        """`musterctl apply` of a file with this text, with further words."""
        path = self.directory / "topology.yaml"
        path.write_text(file)
        return self.ctl("apply", str(path), *words)

    @contextmanager
    def running_ctl(self, *words: str) -> Iterator[subprocess.Popen]:
        """musterctl, while it runs; it has succeeded when this is left."""
        with subprocess.Popen([*self.ctl_command(), *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            yield process
            output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output + errors

    def scale(self, cp: int) -> Operation:
        return self.client.scale_context_parallel(cp)

    @contextmanager
    def scaling(self, cp: int, request_id: str) -> Iterator[None]:
        """A change to more workers that is not prepared until this is left, and has ended then:
        the standbys stand still."""
        # They are known to the coordinator by a connection; one that cannot be made is a loss.
        now = self.replica.config.cp
        self.scale(cp)
        self.scale(now)
        standbys = [self.processes[name].pid for name in self.standbys]
        for pid in standbys:
            os.kill(pid, signal.SIGSTOP)
        try:
            self.ctl_json("scale-cp", str(cp), "--no-wait", "--request-id", request_id)
            yield
        finally:
            for pid in standbys:
                os.kill(pid, signal.SIGCONT)
        await_that(lambda: self.operation(request_id).state != "RUNNING", "the operation ends")

    def operation(self, request_id: str) -> Operation:
        return next(it for it in self.client.operations() if it.id == request_id)

    def reset(self) -> None:
        """One tp rank, two cp ranks, and the buckets that there were first."""
        self.client.apply_topology(ParallelConfig(tp=1, cp=2), (32, 16, 8, 4, 2, 1))

    def events(self, from_sequence: int = 0) -> list[Event]:
        return list(self.client.events(from_sequence))

    def close(self) -> None:
        self.client.close()


@contextmanager
def scaled_fleet(daemons: Daemons, cp: int = 2, workers: int = 4, resize_range: str = "1:4",
                 model=MODEL, kv_memory: str = "4MiB", lease: str = "20s",
                 words: dict[str, tuple[str, ...]] | None = None,
                 coordinator_words: tuple[str, ...] = ()) -> Iterator[ScaledFleet]:
    """A fleet w0, w1, .. of which the first `cp` serve and the others stand by.

    Args:
      daemons: start it, and end it with their module.
      words: further arguments of workers, by their names.
      coordinator_words: of the coordinator.
    """
    coordinator = daemons.coordinator(
        cp, "--resize-range", resize_range, *coordinator_words, lease=lease)
    fleet = ScaledFleet(daemons, coordinator)
    for index in range(workers):
        fleet.start_worker(f"w{index}", model, kv_memory, (words or {}).get(f"w{index}", ()))
    await_that(lambda: coordinator.replica().state == fleet_pb2.REPLICA_STATE_SERVING,
               "the fleet serves")
    try:
        yield fleet
    finally:
        fleet.close()


class Text:
    """What a replica writes after a prompt, greedily and past any end token, token by token."""

    def __init__(self, replica: Replica, prompt: list[int] = PROMPT):
        self.sequence = replica.sequence()
        self._pending = prompt
        self.tokens: list[int] = []
        self.epochs: list[int] = []

    def write(self, count: int = 1) -> list[int]:
        """Writes so many tokens more, and returns all of them."""
        for _ in range(count):
            token = self.sequence.decode(self._pending)
            self._pending = [token.id]
            self.tokens.append(token.id)
            self.epochs.append(self.sequence.epoch or 0)
        return self.tokens

    @property
    def prefilled(self) -> int:
        """Tokens that this client has sent; those that it sent again count again."""
        return self.sequence.prefilled

    def free(self) -> None:
        self.sequence.free()


def unresized(fleet: ScaledFleet, count: int, prompt: list[int] = PROMPT) -> list[int]:
    """The first tokens of a text while the fleet keeps its shape."""
    with fleet.client.replica() as replica:
        text = Text(replica, prompt)
        tokens = text.write(count)
        text.free()
    assert len(set(text.epochs)) == 1
    return tokens


class Load:
    """A client of its own that writes the model's golden text again and again, in a thread.

        with Load(fleet) as load:
            ...
        assert load.texts and not load.failures
    """

    def __init__(self, fleet: ScaledFleet):
        self.texts = 0
        self.failures: list[str] = []
        self._fleet = Fleet(fleet.coordinator.address)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        await_that(lambda: self.texts or self.failures, "the first text is written")
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._fleet.close()

    def _run(self) -> None:
        try:
            with self._fleet.replica() as replica:
                while not self._ending.is_set():
                    text = Text(replica)
                    if text.write(len(GOLDEN["tokens"])) != GOLDEN["tokens"]:
                        self.failures.append(f"text {self.texts}: {text.tokens} in {text.epochs}")
                    text.free()
                    self.texts += 1
        except MusterError as error:
            self.failures.append(f"text {self.texts}: {error!r}")
