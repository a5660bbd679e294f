"""What decoding loses while somebody traces all ranks and scrapes their metrics. Prints a table; not a test.

Two ranks decode one sequence, in many short turns with and without; each pair of turns is compared by itself, so that
what else the machine does counts for both. A turn that is observed has a scrape of every daemon, several a second,
which is far more than anybody wants.

    PYTHONPATH=client/python:out/python .venv/bin/python tests/scripts/trace_benchmark.py --pairs 200
"""

import argparse
import os
import re
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from muster.client import Fleet
from muster.demo_model import demo_model
from muster.fleet_process import FleetOptions, FleetProcess
from muster.sequence import Sequence
from proto.muster.v1 import fleet_pb2, fleet_pb2_grpc, trace_pb2, trace_pb2_grpc

CONTEXT = 256  # tokens at which a sequence begins anew
FIRST = 2  # tokens of a turn that do not count


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
    """Traces ranks and scrapes daemons, now and then."""

    def __init__(self, ranks: list[str], admin_ports: list[str]):
        self._stubs = [trace_pb2_grpc.TraceStub(grpc.insecure_channel(rank)) for rank in ranks]
        self._admin_ports = admin_ports
        self.spans = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        request = trace_pb2.CollectRequest()
        request.duration.FromSeconds(60)
        calls = [stub.Collect(request) for stub in self._stubs]
        for call in calls:
            next(call)
        threads = [threading.Thread(target=self._read, args=(call,)) for call in calls]
        threads.append(threading.Thread(target=self._scrape))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for call in calls:
                call.cancel()
            for thread in threads:
                thread.join()

    def _read(self, call: Iterator[trace_pb2.CollectResponse]) -> None:
        try:
            for response in call:
                self.spans += len(response.spans)
        except grpc.RpcError:
            pass  # cancelled

    def _scrape(self) -> None:
        for port in self._admin_ports:
            with urllib.request.urlopen(f"http://{port}/metrics", timeout=10) as response:
                response.read()


def ranks_of(coordinator: str) -> list[str]:
    """The addresses of all ranks."""
    with grpc.insecure_channel(coordinator) as channel:
        topology = fleet_pb2_grpc.FleetStub(channel).GetTopology(
            fleet_pb2.GetTopologyRequest(), timeout=10)
    return [rank.address for rank in topology.replicas[0].topology.ranks]


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
            observation = Observation(ranks_of(serving["coordinator"]), ports)
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
    assert observation.spans > pairs * tokens, "nothing was traced"
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
    parser.add_argument("--pairs", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=24, help="of a turn; default: %(default)s")
    arguments = parser.parse_args()
    measure(arguments.model or demo_model(lambda line: print(line, file=sys.stderr)),
            arguments.pairs, arguments.tokens)


if __name__ == "__main__":
    main()
