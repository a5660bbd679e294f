"""How long a loaded fleet takes to be scraped, and a worker of it to hand over its rank. Prints lines; not a test.

Two ranks serve SmolLM2-135M-Instruct on the CPU, a third worker stands by, four clients decode. Every daemon is
scraped 200 times; then the follower gets SIGTERM.

    PYTHONPATH=client/python:out/python .venv/bin/python tests/scripts/drain_benchmark.py
"""

import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muster.client import Fleet
from muster.demo_model import demo_model
from muster.values import MusterError

BIN = Path(__file__).parents[2] / "out" / "bin"
PROMPT = list(range(1, 400))
LONGEST = 1500  # tokens at which a sequence begins anew


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Daemons:
    """A coordinator and three workers."""

    def __init__(self, model: Path, logs: Path):
        self.coordinator = f"127.0.0.1:{free_port()}"
        self.admin = {name: free_port() for name in ("coordinator", "w0", "w1", "w2")}
        self._logs = logs
        self.processes: dict[str, subprocess.Popen] = {}
        self._start("coordinator", "muster-coordinator", "--listen", self.coordinator, "--cp", "2")
        for name in ("w0", "w1", "w2"):
            self._start(name, "muster-worker", "--coordinator", self.coordinator, "--worker-id", name,
                        "--model", str(model), "--threads", "1", "--device", "cpu", "--kv-memory", "256MiB")

    def _start(self, name: str, daemon: str, *words: str) -> None:
        with (self._logs / name).open("w") as log:
            self.processes[name] = subprocess.Popen(
                [str(BIN / daemon), *words, "--admin-listen", f"127.0.0.1:{self.admin[name]}",
                 "--die-with-parent"], stderr=log)

    def end(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGINT)
        for process in self.processes.values():
            process.wait()


class Load:
    """Clients that decode until they are told to stop."""

    def __init__(self, fleet: Fleet):
        self._fleet = fleet
        self._stop = threading.Event()
        self.tokens = 0
        self.failures: list[str] = []

    @contextmanager
    def __call__(self, clients: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._talk) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _talk(self) -> None:
        try:
            with self._fleet.replica(wait=60) as replica:
                sequence = replica.sequence()
                token = sequence.decode(PROMPT).id
                while not self._stop.is_set():
                    if len(sequence) > LONGEST:
                        sequence.free()
                        sequence = replica.sequence()
                        token = sequence.decode(PROMPT).id
                    token = sequence.decode([token]).id
                    self.tokens += 1
        except MusterError as error:
            self.failures.append(str(error))


def scrape(port: int) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: muster\r\nConnection: close\r\n\r\n")
        while connection.recv(1 << 16):
            pass
    return (time.perf_counter() - begun) * 1e3


def measure(daemons: Daemons, fleet: Fleet) -> None:
    fleet.replica(wait=60)
    (replica,) = fleet.replicas()
    leader, follower = replica.workers
    load = Load(fleet)
    with load(4):
        time.sleep(5)
        for name in ("coordinator", leader, follower):
            times = [scrape(daemons.admin[name]) for _ in range(200)]
            print(f"scrape of {name}: median {statistics.median(times):.2f} ms, longest {max(times):.2f} ms")
        before, begun = load.tokens, time.perf_counter()
        daemons.processes[follower].send_signal(signal.SIGTERM)
        status = daemons.processes[follower].wait(60)
        print(f"{follower} ended with status {status} after {time.perf_counter() - begun:.2f} s, "
              f"{load.tokens - before} tokens were decoded meanwhile")
        time.sleep(1)
    print(f"{load.tokens} tokens, {len(load.failures)} failed requests {load.failures or ''}")
    for event in fleet.events():
        if event.kind == "RESIZED":
            print(event.message)


def main() -> None:
    model = demo_model(lambda line: print(line, file=sys.stderr))
    with tempfile.TemporaryDirectory() as logs:
        daemons = Daemons(model, Path(logs))
        try:
            with Fleet(daemons.coordinator) as fleet:
                measure(daemons, fleet)
        finally:
            daemons.end()


if __name__ == "__main__":
    main()
