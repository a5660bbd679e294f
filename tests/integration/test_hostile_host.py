"""The machine misbehaves: the log goes to a full disk or to nobody, and somebody sets the clock."""

import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleets import MODELS, PATIENCE, Programs, await_that, golden, written
from proto.muster.v1 import fleet_pb2
from wire import Coordinator

_MODEL = "llama-mha12"
_HOUR = 3600
# So short that a wait which took an hour, or no time, would be seen.
_LEASE = "3s"


class Fleet:
    """A coordinator and two workers whose stderr, and whose environment, is the test's own."""

    def __init__(self, programs: Programs, folder: Path, stderr: int,
                 environment: dict[str, str] | None = None):
        self._programs = programs
        self._stderr = stderr
        self._environment = os.environ | (environment or {})
        port_file = folder / "port"
        process = self._start("muster-coordinator", "--listen", "127.0.0.1:0", "--cp", "2",
                              "--lease", _LEASE, "--port-file", str(port_file))
        await_that(port_file.exists, "the coordinator listens")
        self.coordinator = Coordinator(port_file.read_text().strip(), process)
        self.workers = {name: self.start_worker(name) for name in ("w0", "w1")}
        self.await_serving()

    def _start(self, daemon: str, *words: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(self._programs.bin / daemon), *words, "--log-level", "debug"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._stderr,
            env=self._environment)

    def start_worker(self, name: str) -> subprocess.Popen:
        return self._start(
            "muster-worker", "--coordinator", self.coordinator.address, "--worker-id", name,
            "--model", str(MODELS / _MODEL), "--kv-memory", "4MiB", "--threads", "1")

    def await_serving(self, after_epoch: int = 0) -> None:
        def serves() -> bool:
            replica = self.coordinator.replica()
            return (replica.state == fleet_pb2.REPLICA_STATE_SERVING
                    and replica.topology.epoch > after_epoch)
        await_that(serves, "the fleet serves")

    def epoch(self) -> int:
        return self.coordinator.replica().topology.epoch

    def assert_answers(self) -> None:
        result = self._programs.musterctl(
            "forward", "--coordinator", self.coordinator.address, "--prompt-tokens",
            written(golden(_MODEL)["prompt"]))
        assert result.returncode == 0, result.stderr

    def assert_survives_a_death(self) -> None:
        """A worker dies and comes again: that is seen, and the fleet serves once more."""
        before = self.epoch()
        self.workers["w1"].kill()
        self.workers["w1"].wait()
        self.workers["w1"] = self.start_worker("w1")
        self.await_serving(after_epoch=before)
        self.assert_answers()

    def assert_ends(self) -> None:
        processes = [*self.workers.values(), self.coordinator.process]
        for process in processes:
            process.send_signal(signal.SIGINT)
        assert [process.wait(PATIENCE) for process in processes] == [0, 0, 0]


@pytest.fixture
def full_disk() -> Iterator[int]:
    with open("/dev/full", "wb") as file:
        yield file.fileno()


def test_a_fleet_serves_while_its_log_finds_no_room(programs, tmp_path, full_disk):
    fleet = Fleet(programs, tmp_path, full_disk)
    fleet.assert_answers()
    fleet.assert_survives_a_death()
    fleet.assert_ends()


def test_a_fleet_serves_when_nobody_reads_its_log_any_more(programs, tmp_path):
    reader, writer = os.pipe()
    fleet = Fleet(programs, tmp_path, writer)
    os.close(writer)
    os.close(reader)
    fleet.assert_answers()
    fleet.assert_ends()


def test_an_error_on_a_full_disk_still_shows_in_the_status(programs, full_disk):
    result = subprocess.run([str(programs.bin / "muster-coordinator"), "--cp", "none"],
                            stdin=subprocess.DEVNULL, stderr=full_disk, check=False)
    assert result.returncode == 2


class Clock:
    """The time of day of the daemons that `environment` is given to."""

    def __init__(self, folder: Path, library: Path):
        self._file = folder / "clock"
        self.set_ahead(0)
        self.environment = {"LD_PRELOAD": str(library), "MUSTER_TEST_CLOCK": str(self._file)}

    def set_ahead(self, seconds: int) -> None:
        content = struct.pack("=q", seconds)
        # In place: the daemons have mapped the file.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            assert os.write(descriptor, content) == len(content)
        finally:
            os.close(descriptor)


@pytest.fixture(scope="module")
def clock_library(tmp_path_factory) -> Path:
    if not shutil.which("g++"):
        pytest.skip("g++ is not here, and what sets the clock of one process must be compiled")
    library = tmp_path_factory.mktemp("clock") / "set_clock.so"
    source = Path(__file__).with_name("set_clock.cc")
    subprocess.run(["g++", "-std=c++20", "-shared", "-fPIC", "-O1", "-Wall", "-Werror",
                    "-o", str(library), str(source)], check=True)
    return library


@pytest.mark.parametrize("jump", [_HOUR, -_HOUR], ids=["forward", "back"])
def test_a_clock_that_is_set_ends_no_lease_and_delays_nothing(programs, tmp_path, clock_library,
                                                              jump):
    clock = Clock(tmp_path, clock_library)
    with open(tmp_path / "log", "wb") as log:
        fleet = Fleet(programs, tmp_path, log.fileno(), clock.environment)
    epoch = fleet.epoch()
    clock.set_ahead(jump)
    # Abseil asks for the time of day every two seconds.
    _await_heartbeats(fleet, beats=5)
    fleet.assert_answers()
    assert fleet.epoch() == epoch, "a worker was taken for lost"
    fleet.assert_survives_a_death()
    clock.set_ahead(0)
    fleet.assert_answers()
    fleet.assert_survives_a_death()
    fleet.assert_ends()


def _await_heartbeats(fleet: Fleet, beats: int) -> None:
    """Until both workers have been heard of so many times, five to a lease."""
    for name in ("w0", "w1"):
        ages = [0]
        heard = [0]

        def many(name: str = name, ages: list[int] = ages, heard: list[int] = heard) -> bool:
            ages.append(fleet.coordinator.workers()[name].heartbeat_age.ToNanoseconds())
            heard[0] += ages[-1] < ages[-2]
            return heard[0] >= beats

        await_that(many, f"{name} sends heartbeats")
