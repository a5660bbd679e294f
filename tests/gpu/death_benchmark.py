"""A rank of an 8B Llama is killed in mid-step: who names it how soon, and when it serves again. Prints one JSON object.

    death_benchmark.py [--model DIR] [--device DEVICE] [--tp N] [--cp N]

The worker is started again at once, as its supervisor would. Without MPS, which need not survive the death.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from gpu_fleet import GPUS, dummy_llama, fleet
from muster.client import Fleet
from muster.errors import MusterError
from muster.fleet_process import FleetProcess
from muster.replica import Replica

_LOADING_SECONDS = 150.0
_SERVING_SECONDS = 60.0
_PROMPT = list(range(3, 67))
# Tokens after which the worker dies, and more than it can still write.
_KILLED_AT, _MANY = 50, 100_000


def _kill_at_work(replica: Replica, pid: int) -> tuple[float, float, str]:
    """When the worker was killed, when the caller heard of it (both of the wall clock), and what."""
    killed = 0.0
    try:
        for count, _ in enumerate(replica.generate(_PROMPT, _MANY)):
            if count == _KILLED_AT:
                killed = time.time()
                os.kill(pid, signal.SIGKILL)
    except MusterError as error:
        if killed:
            return killed, time.time(), str(error)
        raise
    raise AssertionError("the text went on without the worker")


@contextmanager
def _started_again(command: list[str]) -> Iterator[None]:
    with subprocess.Popen([*command, "--die-with-parent"], stdin=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as worker:
        try:
            yield
        finally:
            worker.kill()


def _named_at(log: Path, victim: str, killed: float) -> float:
    """When a worker's log names the victim as lost."""
    for line in log.read_text().splitlines():
        stamp, _, text = line.partition(" ")
        if victim in text and re.search(r"\blost\b", text):
            at = datetime.fromisoformat(stamp).astimezone().timestamp()
            if at >= killed - 0.002:  # it has milliseconds
                return at
    raise AssertionError(f"{log.stem} does not name {victim}")


def _measure(process: FleetProcess, logs: Path) -> dict:
    started = process.await_event("started", _LOADING_SECONDS)
    pids = {it["worker_id"]: it["pid"] for it in started["workers"]}
    serving = process.await_event("serving", _LOADING_SECONDS)
    with Fleet(serving["coordinator"], patience=_SERVING_SECONDS) as client:
        (status,) = client.replicas()
        victim = status.workers[-1]
        words = Path("/proc", str(pids[victim]), "cmdline").read_bytes().decode().split("\0")[:-1]
        with client.replica(0) as replica:
            killed, heard, error = _kill_at_work(replica, pids[victim])
        with _started_again(words):
            with client.replica(0, wait=_SERVING_SECONDS) as replica:
                next(iter(replica.generate(_PROMPT, 1)))
            again = time.time()
    named = {worker: _named_at(logs / f"{worker}.log", victim, killed)
             for worker in status.workers if worker != victim}
    return {"tp": status.config.tp, "cp": status.config.cp, "victim": victim, "error": error,
            "caller_heard_ms": _ms(heard - killed),
            "named_ms": {worker: _ms(at - killed) for worker, at in named.items()},
            "serves_again_ms": _ms(again - killed)}


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="default: an 8B Llama")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tp", type=int, default=max(GPUS // 2, 1), help="default: half of the GPUs")
    parser.add_argument("--cp", type=int, default=2, help="default: %(default)s")
    options = parser.parse_args()
    with dummy_llama(options.model) as model, tempfile.TemporaryDirectory() as logs:
        with fleet(model, options.tp, options.cp, "--log-dir", logs, device=options.device,
                   load_format="dummy") as process:
            print(json.dumps(_measure(process, Path(logs)), indent=1))


if __name__ == "__main__":
    main()
