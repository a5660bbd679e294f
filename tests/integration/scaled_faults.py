"""Daemons that a test freezes and kills one by one while their fleet changes its shape, a client
that must not notice, and what each worker holds."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import grpc
from fleets import await_that
from muster.client import Fleet
from muster.errors import MusterError
from muster.fleet_process import bin_directory
from muster.values import Event
from proto.muster.v1 import inference_pb2, types_pb2, worker_control_pb2
from scaled_fleet import ScaledFleet, Text, scaled_fleet, unresized
from wire import CALL_SECONDS, Rank

# Of the operation under test.
OPERATION = "grow"
# Far above what anything here takes.
SOON = 15.0
# Of one text, which then takes 27 KV blocks.
TEXT_TOKENS = 400
# Between two tokens, so that texts are being written for as long as a test lasts.
PACE_SECONDS = 0.002


def soon(condition: Callable[[], object], what: str):
    """Waits until `condition` is true, and returns its value."""
    return await_that(condition, what, SOON)


class Talk:
    """A client that writes texts in a thread of its own, and keeps one half written meanwhile. All
    must be as if the fleet had never changed, but for texts that are begun again because an epoch
    has ended."""

    def __init__(self, fleet: ScaledFleet):
        self.failures: list[str] = []
        self.losses: list[MusterError] = []  # of epochs that ended in the middle of a step
        self.written = 0  # tokens
        self.longest_wait = 0.0  # seconds, for a token
        self._expected = unresized(fleet, TEXT_TOKENS)
        self._fleet = Fleet(fleet.coordinator.address)
        self._replica = self._fleet.replica()
        self._silent = Text(self._replica)
        self._silent.write(TEXT_TOKENS // 2)
        self._epochs: list[int] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.await_tokens()

    @property
    def epochs(self) -> list[int]:
        """In which it wrote, in order."""
        return [epoch for epoch, _ in groupby(self._epochs)]

    def await_tokens(self, count: int = 20) -> None:
        """Waits until so many more are written."""
        wanted = self.written + count
        soon(lambda: self.written >= wanted or self.failures, "the client is served")
        assert not self.failures, self.failures

    def end(self, *, losses: int = 0) -> list[int]:
        """Writes the silent text to its end, and returns the epochs."""
        self._ending.set()
        self._thread.join(SOON)
        assert not self._thread.is_alive() and not self.failures, self.failures
        assert len(self.losses) <= losses, self.losses
        self._silent.write(TEXT_TOKENS - len(self._silent.tokens))
        assert self._silent.tokens == self._expected
        assert self.epochs == sorted(set(self.epochs))
        return self.epochs

    def close(self) -> None:
        self._ending.set()
        self._thread.join(SOON)
        self._replica.close()
        self._fleet.close()

    def _run(self) -> None:
        while not self._ending.is_set() and not self.failures:
            try:
                self._write_text(Text(self._replica))
            except MusterError as error:
                if error.kv_written and error.retriable:
                    self.losses.append(error)
                else:
                    self.failures.append(f"after {self.written} tokens: {error!r}")

    def _write_text(self, text: Text) -> None:
        for _ in range(TEXT_TOKENS):
            begun = time.monotonic()
            text.write()
            self.longest_wait = max(self.longest_wait, time.monotonic() - begun)
            if text.tokens != self._expected[:len(text.tokens)]:
                self.failures.append(f"{text.tokens} in epochs {text.epochs}")
                return
            self._epochs.append(text.epochs[-1])
            self.written += 1
            if self._ending.wait(PACE_SECONDS):
                break
        text.free()


@dataclass(frozen=True)
class Held:
    """What a process holds: its epochs' states and bytes by tag, as it counts them; and memory
    files, as the kernel does."""

    epochs: dict[int, tuple[str, dict[str, int]]]
    files_open: int
    files_mapped: int
    others_open: int  # but for sockets, which come and go with calls


class FaultyFleet:
    """A scaled fleet, at whose processes a test may shoot."""

    def __init__(self, fleet: ScaledFleet):
        self.fleet = fleet
        self._talk: Talk | None = None
        self._coordinators = [fleet.coordinator.process]

    def talk(self) -> Talk:
        """Starts the client."""
        assert self._talk is None
        self._talk = Talk(self.fleet)
        return self._talk

    # What befalls its processes.

    def pid(self, name: str) -> int:
        return self.fleet.processes[name].pid

    def kill(self, *names: str) -> None:
        for name in names:
            os.kill(self.pid(name), signal.SIGKILL)
        for name in names:
            self.await_death(name)

    def stop(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGCONT)

    def await_death(self, name: str) -> None:
        assert self.fleet.processes[name].wait(SOON) == -signal.SIGKILL

    def await_stop(self, name: str) -> None:
        soon(lambda: set(thread_states(self.pid(name))) == {"T"}, f"{name} stands still")

    def kill_coordinator(self) -> None:
        self._coordinators[-1].kill()
        self._coordinators[-1].wait()

    def start_coordinator(self, cp: int = 2) -> None:
        """Another one, where the last one was."""
        self._coordinators.append(self.fleet.daemons.start(
            "muster-coordinator", "--listen", self.fleet.coordinator.address, "--cp", str(cp),
            "--resize-range", "1:4", "--lease", "1.5s"))

    # The operation.

    def scale(self, cp: int = 3, *words: str) -> subprocess.Popen:
        """Starts `musterctl scale-cp`."""
        return subprocess.Popen(
            [str(bin_directory() / "musterctl"), "--coordinator", self.fleet.coordinator.address,
             "scale-cp", str(cp), "--request-id", OPERATION, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def operation(self) -> dict:
        """As `musterctl operations` tells of it, which it does once it has begun."""
        operations = soon(
            lambda: self.fleet.ctl_json("operations")["operations"], "the operation begins")
        assert operations[-1]["id"] == OPERATION
        return operations[-1]

    def await_end(self) -> dict:
        return soon(
            lambda: (it := self.operation())["state"] != "RUNNING" and it, "the operation ends")

    def events_of(self, kind: str) -> list[Event]:
        return [event for event in self.fleet.events() if event.kind == kind]

    def await_serving(self, least_epoch: int = 1):
        def serving():
            try:
                with Fleet(self.fleet.coordinator.address, patience=0) as client:
                    replica = client.replicas()[0]
            except MusterError:
                return None
            return replica.state == "SERVING" and replica.epoch >= least_epoch and replica
        return soon(serving, f"epoch {least_epoch} or a later one serves")

    # What workers hold.

    def epochs(self, name: str) -> dict[int, worker_control_pb2.EpochStatus]:
        with self._rank(name) as rank:
            status = rank.control.GetStatus(
                worker_control_pb2.GetStatusRequest(), timeout=CALL_SECONDS)
        return {it.epoch: it for it in status.epochs}

    def held(self, name: str) -> Held:
        epochs = {
            number: (types_pb2.WorkerState.Name(it.state).removeprefix("WORKER_STATE_"),
                     {entry.tag: entry.bytes for entry in it.ledger})
            for number, it in self.epochs(name).items()}
        files = list(open_files(self.pid(name)))
        maps = Path(f"/proc/{self.pid(name)}/maps").read_text()
        return Held(epochs, sum("memfd:" in it for it in files), maps.count("memfd:"),
                    sum("memfd:" not in it and "socket:" not in it for it in files))

    def await_held(self, expected: dict[str, Held]) -> None:
        """Waits until each worker holds what is expected, and nothing more."""
        for name, held in expected.items():
            now = self.held(name)
            deadline = time.monotonic() + SOON
            while now != held:
                assert time.monotonic() < deadline, f"{name}: {now}, not {held}"
                time.sleep(0.02)
                now = self.held(name)

    def all_held(self, *names: str) -> dict[str, Held]:
        return {name: self.held(name) for name in names}

    def leaders(self, names: Iterable[str]) -> dict[str, int]:
        """Those of the workers that let requests in, and in which epoch."""
        leaders = {}
        for name in names:
            with self._rank(name) as rank:
                try:
                    leaders[name] = rank.inference.GetModel(
                        inference_pb2.GetModelRequest(), timeout=CALL_SECONDS).epoch
                except grpc.RpcError:
                    pass
        return leaders

    def await_alone(self, epoch: int, *names: str) -> None:
        """Waits until each worker serves this epoch and holds no other; one of them leads."""
        for name in names:
            soon(lambda: [(it, held[0]) for it, held in self.held(name).epochs.items()] == [
                (epoch, "SERVING")], f"{name} holds epoch {epoch} alone")
        assert list(self.leaders(names).values()) == [epoch]

    @contextmanager
    def _rank(self, name: str) -> Iterator[Rank]:
        address = soon(
            lambda: (it := self.fleet.coordinator.workers().get(name)) and it.address,
            f"{name} is enlisted")
        rank = Rank(address)
        with rank.channel:
            yield rank

    def close(self) -> None:
        processes = [*self.fleet.processes.values(), *self._coordinators]
        if self._talk is not None:
            self._talk.close()
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def thread_states(pid: int) -> Iterator[str]:
    """Of all threads of a process, as proc(5) has them: one that is told to stop may run on for a
    moment, and even end."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            yield (thread / "stat").read_text().rsplit(") ", 1)[1][0]


def open_files(pid: int) -> Iterator[str]:
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            yield os.readlink(entry.path)
        except FileNotFoundError:
            pass
