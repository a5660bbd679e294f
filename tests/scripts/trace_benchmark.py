"""What decoding loses while somebody traces all ranks and scrapes their metrics. Prints a table; not a test.

Two ranks decode one sequence, in turns of about a second with both and without; the difference of each pair is taken,
so that what the machine does meanwhile counts for both.

    PYTHONPATH=client/python:out/python .venv/bin/python tests/scripts/trace_benchmark.py --pairs 20
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muster.client import Fleet
from muster.demo_model import demo_model
from muster.fleet_process import FleetOptions, FleetProcess, bin_directory
from muster.sequence import Sequence

SETTLE = 0.3  # seconds for a turn to begin, which do not count
SCRAPE_EVERY = 1.0
CONTEXT = 256  # tokens at which a sequence begins anew


class Decoding:
    """Decodes token by token, on a new sequence whenever one is long."""

    def __init__(self, fleet: Fleet):
        self._replica = fleet.replica(wait=30)
        self._sequence = self._begin()

    def _begin(self) -> Sequence:
        sequence = self._replica.sequence()
        self._token = sequence.decode([1, 2, 3]).id
        return sequence

    def run(self, seconds: float) -> list[float]:
        """Seconds per token."""
        times = []
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            self._token = self._sequence.decode([self._token]).id
            times.append(time.perf_counter() - begun)
            if len(self._sequence) >= CONTEXT:
                self._sequence.free()
                self._sequence = self._begin()
        return times


@contextmanager
def observed(coordinator: str, seconds: float, admin_ports: list[str]) -> Iterator[None]:
    """All ranks are traced for so long, and the daemons scraped meanwhile."""
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(SCRAPE_EVERY / 2):
            for port in admin_ports:
                with urllib.request.urlopen(f"http://{port}/metrics", timeout=10) as response:
                    response.read()

    scraping = threading.Thread(target=scrape)
    tracing = subprocess.Popen(
        [str(bin_directory() / "musterctl"), "--coordinator", coordinator, "trace", "--seconds",
         str(seconds)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    scraping.start()
    try:
        yield
    finally:
        stop.set()
        scraping.join()
        output, _ = tracing.communicate(timeout=60)
    assert tracing.returncode == 0 and '"name":"step"' in output, "nothing was traced"


def admin_ports_in(logs: Path) -> list[str]:
    found = [re.search(r"admin port on (\S+)", log.read_text()) for log in logs.iterdir()]
    return [match[1] for match in found if match]


def measure(model: Path, pairs: int, seconds: float) -> None:
    os.environ["MUSTER_ADMIN_LISTEN"] = "127.0.0.1:0"
    with tempfile.TemporaryDirectory() as logs, FleetProcess(FleetOptions(
            model, cp=2, threads=1, extra=("--log-dir", logs))) as process:
        coordinator = process.await_event("serving", 120)["coordinator"]
        ports = admin_ports_in(Path(logs))
        assert len(ports) >= 2, "the workers have no admin ports"
        with Fleet(coordinator) as fleet:
            decoding = Decoding(fleet)
            decoding.run(2)
            ratios, alone, both = [], [], []
            for pair in range(pairs):
                turns: dict[bool, list[float]] = {}
                # Each comes first as often as the other.
                for watched in (pair % 2 == 0, pair % 2 == 1):
                    if watched:
                        with observed(coordinator, seconds + 2 * SETTLE, ports):
                            decoding.run(SETTLE)
                            turns[watched] = decoding.run(seconds)
                    else:
                        decoding.run(SETTLE)
                        turns[watched] = decoding.run(seconds)
                alone += turns[False]
                both += turns[True]
                ratios.append(statistics.median(turns[False]) / statistics.median(turns[True]))
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"| decoding, 2 ranks, {model.name} | ms per token, median | tokens |\n| --- | --- | --- |")
    print(f"| alone | {statistics.median(alone) * 1e3:.3f} | {len(alone)} |")
    print(f"| traced and scraped | {statistics.median(both) * 1e3:.3f} | {len(both)} |")
    print(f"\nthroughput traced and scraped / alone, median of {pairs} pairs: "
          f"{statistics.median(ratios):.4f} (half of them {low:.3f} to {high:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: the demo's")
    parser.add_argument("--pairs", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.2, help="of a turn; %(default)s")
    arguments = parser.parse_args()
    measure(arguments.model or demo_model(lambda line: print(line, file=sys.stderr)),
            arguments.pairs, arguments.seconds)


if __name__ == "__main__":
    main()
