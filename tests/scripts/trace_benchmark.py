"""What decoding loses while somebody traces all ranks and scrapes their metrics. Prints a table; not a test.

Two ranks decode one sequence, in many turns with and without; each pair of turns is compared by itself, so that what
else the machine does counts for both. A turn that is observed has `musterctl trace`, on the same processors as the
ranks, and a scrape of every daemon.

    PYTHONPATH=client/python:out/python .venv/bin/python tests/scripts/trace_benchmark.py --pairs 200
"""

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muster.client import Fleet
from muster.demo_model import demo_model
from muster.fleet_process import FleetOptions, FleetProcess
from muster.sequence import Sequence

CONTEXT = 512  # tokens at which a sequence begins anew
FIRST = 10  # tokens of a turn that do not count: musterctl starts, and scrapes are answered
MUSTERCTL = Path(__file__).parents[2] / "out" / "bin" / "musterctl"


class Decoding:
    """Decodes token by token, on a new sequence whenever one is long."""

    def __init__(self, fleet: Fleet):
        self._replica = fleet.replica(wait=30)
        self._sequence = self._begin()

    def _begin(self) -> Sequence:
        sequence = self._replica.sequence()
        self._token = sequence.decode([1, 2, 3]).id
        return sequence

    def run(self, count: int) -> list[float]:
        """Seconds of each of so many tokens."""
        if len(self._sequence) + count > CONTEXT:
            self._sequence.free()
            self._sequence = self._begin()
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            self._token = self._sequence.decode([self._token]).id
            times.append(time.perf_counter() - begun)
        return times[FIRST:]


class Observation:
    """Traces all ranks and scrapes all daemons, from outside of this process as far as can be."""

    def __init__(self, coordinator: str, admin_ports: list[str], folder: Path):
        self._command = [str(MUSTERCTL), "trace", "--coordinator", coordinator, "--seconds", "60"]
        self._admin_ports = admin_ports
        self._file = folder / "trace.json"
        self.steps = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._file.open("w") as file, subprocess.Popen(
                self._command, stdout=file, stderr=subprocess.DEVNULL) as process:
            for port in self._admin_ports:
                scrape(port)
            try:
                yield
            finally:
                process.send_signal(signal.SIGINT)
                process.wait()
        self.steps += self._file.read_text().count('"name":"step"')


def scrape(port: str) -> None:
    """By hand: a library for HTTP takes longer than the daemon."""
    host, _, number = port.rpartition(":")
    with socket.create_connection((host, int(number)), timeout=10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: muster\r\nConnection: close\r\n\r\n")
        while connection.recv(1 << 16):
            pass


def admin_ports_in(logs: Path) -> list[str]:
    found = [re.search(r"admin port on (\S+)", log.read_text()) for log in logs.iterdir()]
    return [match[1] for match in found if match]


def measure(model: Path, pairs: int, tokens: int) -> None:
    os.environ["MUSTER_ADMIN_LISTEN"] = "127.0.0.1:0"
    with (tempfile.TemporaryDirectory() as logs,
          FleetProcess(FleetOptions(model, cp=2, threads=1, extra=("--log-dir", logs))) as process):
        serving = process.await_event("serving", 120)
        ports = admin_ports_in(Path(logs))
        assert len(ports) >= 2, "the workers have no admin ports"
        with Fleet(serving["coordinator"]) as fleet:
            observation = Observation(serving["coordinator"], ports, Path(logs))
            decoding = Decoding(fleet)
            decoding.run(tokens)
            alone: list[list[float]] = []
            observed: list[list[float]] = []
            for pair in range(pairs):
                # Each comes first as often as the other.
                for watched in (pair % 2 == 0, pair % 2 == 1):
                    if watched:
                        with observation():
                            observed.append(decoding.run(tokens))
                    else:
                        alone.append(decoding.run(tokens))
    assert observation.steps > pairs * tokens, "nothing was traced"
    report(model.name, alone, observed)


def report(model: str, alone: list[list[float]], observed: list[list[float]]) -> None:
    ratios = [statistics.median(without) / statistics.median(with_both)
              for without, with_both in zip(alone, observed, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"| decoding {model}, 2 ranks | ms per token: lower quartile | median |")
    print("| --- | --- | --- |")
    for name, turns in (("alone", alone), ("traced and scraped", observed)):
        quarter, half, _ = statistics.quantiles([it * 1e3 for turn in turns for it in turn], n=4)
        print(f"| {name} | {quarter:.3f} | {half:.3f} |")
    print(f"\nthroughput traced and scraped / alone, median of {len(ratios)} pairs: {middle:.4f} "
          f"(half of them {low:.3f} to {high:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: the demo's")
    parser.add_argument("--pairs", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=150, help="of a turn; default: %(default)s")
    arguments = parser.parse_args()
    measure(arguments.model or demo_model(lambda line: print(line, file=sys.stderr)),
            arguments.pairs, arguments.tokens)


if __name__ == "__main__":
    main()
