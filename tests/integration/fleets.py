"""Runs the programs as a person would, and watches what becomes of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from muster.fleet_process import FleetOptions, FleetProcess, bin_directory

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "tests" / "testdata" / "goldens"
# Far above what anything here takes; a test that gets there has found a hang.
PATIENCE = 60.0
# What the product promises: an interrupt, and news of a death, take no longer.
PROMISE = 2.0


def await_that(condition: Callable[[], object], what: str, timeout: float = PATIENCE):
    """Polls until `condition` is true, and returns its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)
    return value


def golden(name: str) -> dict:
    return json.loads((MODELS / name / "golden.json").read_text())


def written(tokens: list[int]) -> str:
    return ",".join(map(str, tokens))


def musterctl(*words: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(bin_directory() / "musterctl"), *words], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=timeout, check=False)


class Programs:
    """The programs of one test, known by a mark in their environment.

    Args:
      mark: "NAME=value", which is in this process' environment.
    """

    def __init__(self, mark: str):
        self.bin = bin_directory()
        self._mark = mark.encode()
        self._fleets: list[FleetProcess] = []

    def musterctl(self, *words: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess:
        return musterctl(*words, timeout=timeout)

    def up(self, model: str | Path, tp: int = 1, cp: int = 2, extra: tuple[str, ...] = (),
           **options) -> FleetProcess:
        """Starts `musterctl up --json`; ended with the test."""
        directory = MODELS / model if isinstance(model, str) else model
        small = ("--kv-memory", "4MiB", "--threads", "1") if "--kv-memory" not in extra else ()
        fleet = FleetProcess(FleetOptions(directory, tp, cp, extra=(*small, *extra), **options))
        self._fleets.append(fleet)
        return fleet

    def demo_command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "muster.demo", *words]

    def demo(self, *words: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.demo_command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout, check=False)

    def demo_json(self, *words: str) -> dict:
        """What `demo --json` printed: one object on one line, and nothing else."""
        result = self.demo("--json", *words)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("\n") == 1
        return json.loads(result.stdout)

    def running(self) -> dict[int, str]:
        """Names of the marked processes that live, this one and zombies not counted."""
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            try:
                marked = self._mark in Path("/proc", entry, "environ").read_bytes().split(b"\0")
                status = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            name, state = status[status.index("(") + 1:].rsplit(") ", 1)
            if marked and state[0] != "Z":
                found[int(entry)] = name
        return found

    def end(self) -> None:
        """Ends what a test that failed may have left, by the ids of its own processes."""
        for fleet in self._fleets:
            fleet.stop()
        for pid in self.running():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def worker_pid(started: dict, worker: str) -> int:
    """From the "started" event of `musterctl up --json`."""
    return next(it["pid"] for it in started["workers"] if it["worker_id"] == worker)


def assert_one_line(result: subprocess.CompletedProcess, *parts: str, status: int = 1) -> None:
    """It failed with one line on stderr that holds all parts, and no traceback."""
    assert result.returncode == status, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("muster")]
    complaint = [line for line in lines if line.split(":")[0] in ("muster", "musterctl")]
    assert len(complaint) == 1, result.stderr
    for part in parts:
        assert part in complaint[0]
    assert "Traceback" not in result.stderr + result.stdout
