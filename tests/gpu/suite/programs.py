"""Programs with a limit of time, their output in a file."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_GRACE_SECONDS = 3.0


@dataclass(frozen=True)
class Outcome:
    """How a program ended; `status` is None if it ran out of time."""

    status: int | None
    seconds: float
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")


def run(command: Sequence[str | Path], log: Path, limit: float, environment: Mapping[str, str],
        directory: Path) -> Outcome:
    """Runs a program to its end or to the limit, and then ends all that it started.

    Args:
      command: the program and its arguments.
      log: receives what it prints.
      limit: in seconds.
      environment: all of its variables.
      directory: in which it runs.
    """
    start = time.monotonic()
    with log.open("wb") as sink:
        try:
            process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                env=dict(environment), cwd=directory, start_new_session=True)
        except OSError as error:
            sink.write(f"cannot run {command[0]}: {error.strerror}\n".encode())
            return Outcome(127, 0.0, log)
        status: int | None
        try:
            status = process.wait(max(limit, 0.1))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end_group(process)
    return Outcome(status, time.monotonic() - start, log)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """The program's own session: itself and what it left behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
