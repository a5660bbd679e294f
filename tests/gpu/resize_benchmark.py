"""An 8B Llama that holds 8 GiB of KV changes its size while it serves: prints a JSON object for each change.

    resize_benchmark.py [--model DIR] [--device DEVICE] [--sizes 1,2,4,2] [--sequences N] [--tokens N]
                        [--writers N] [--readers N] [--prompt N]
"""

import argparse
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from gpu_fleet import GPUS, dummy_llama, fleet, sharing
from muster.client import Fleet
from muster.replica import Replica
from muster.values import ReplicaResize, Slice

_LOADING_SECONDS = 150.0
# 128 KiB of KV for each token of this model.
_SEQUENCES, _TOKENS = 32, 2048
# Of clients that decode: a prompt, and tokens after which they begin anew.
_SHORT_PROMPT, _WRITTEN = 32, 200
# Of the fleet at work before, between and after changes.
_AT_WORK_SECONDS = 1.0


def _default_sizes() -> list[list[int]]:
    """To all GPUs and back; on one GPU two fleets, since ranks that share it have a part of its memory."""
    if GPUS == 1:
        return [[1, 2], [2, 4]]
    sizes = [1]
    while sizes[-1] * 2 <= GPUS:
        sizes.append(sizes[-1] * 2)
    return [[*sizes, 2 if GPUS > 2 else 1]]


def _text(numbers: random.Random, vocabulary: int, tokens: int) -> list[int]:
    return [numbers.randrange(3, vocabulary) for _ in range(tokens)]


def _fill(replica: Replica, sequences: int, tokens: int) -> None:
    """Writes sequences that stay."""
    numbers = random.Random(1)
    model = replica.known_model()
    for index in range(sequences):
        text = _text(numbers, model.vocabulary, tokens)
        for first in range(0, tokens, model.max_rows_per_step):
            piece = text[first:first + model.max_rows_per_step]
            replica.forward([Slice(f"s{index}", piece, first)])


class _Clients:
    """Some write, token by token, and some have long prompts read and want one token; until this is left."""

    def __init__(self, client: Fleet, writers: int, readers: int, prompt: int):
        self.failures: list[BaseException] = []
        self._read: list[float] = []  # when, by all readers
        self._written: list[list[float]] = [[] for _ in range(writers)]  # when, by writer
        self._stop = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._ask, args=(client, _SHORT_PROMPT, _WRITTEN, times))
              for times in self._written),
            *(threading.Thread(target=self._ask, args=(client, prompt, 1, self._read))
              for _ in range(readers))]

    def _ask(self, client: Fleet, prompt: int, tokens: int, times: list[float]) -> None:
        numbers = random.Random()
        try:
            with client.replica(0) as replica:
                vocabulary = replica.known_model().vocabulary
                while not self._stop.is_set():
                    for _ in replica.generate(_text(numbers, vocabulary, prompt), tokens):
                        times.append(time.monotonic())
                        if self._stop.is_set():
                            break
        except BaseException as error:  # whatever it is, it is a request that failed
            self.failures.append(error)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def tokens(self, begin: float, end: float) -> int:
        return sum(begin <= at <= end for times in self._written for at in times)

    def prompts_read(self, begin: float, end: float) -> int:
        return sum(begin <= at <= end for at in self._read)

    def longest_wait(self, begin: float, end: float) -> float:
        """Between two tokens of a client, in seconds; over all that touches the time."""
        return max((after - before for times in self._written
                    for before, after in zip(times, times[1:]) if before <= end and after >= begin),
                   default=0.0)


def _report(resize: ReplicaResize, clients: _Clients, begin: float, end: float) -> dict:
    rate = resize.kv_bytes_moved / (resize.copy_ms / 1e3) if resize.copy_ms else 0.0
    figures = {name: value for name, value in asdict(resize).items()
               if isinstance(value, (int, float))}
    return {"from_cp": resize.from_config.cp, "to_cp": resize.to_config.cp, **figures,
            "moved_bytes_per_second": rate, "tokens_meanwhile": clients.tokens(begin, end),
            "longest_wait_ms": round(1e3 * clients.longest_wait(begin, end), 2),
            "longest_wait_before_ms": round(
                1e3 * clients.longest_wait(begin - _AT_WORK_SECONDS / 2, begin), 2),
            "prompts_read_meanwhile": clients.prompts_read(begin, end),
            "failed_requests": len(clients.failures)}


def _resize(model: Path, sizes: list[int], options: argparse.Namespace) -> None:
    most = max(sizes)
    words = ("--standby", str(most - sizes[0]), "--resize-range", f"{min(sizes)}:{most}")
    shared_by = sharing(most) if options.device == "cuda" else None
    with fleet(model, 1, sizes[0], *words, device=options.device, load_format="dummy",
               shared_by=shared_by) as process:
        serving = process.await_event("serving", _LOADING_SECONDS)
        with Fleet(serving["coordinator"]) as client, client.replica(0) as replica:
            _fill(replica, options.sequences, options.tokens)
            clients = _Clients(client, options.writers, options.readers, options.prompt)
            changes = []
            with clients.at_work():
                time.sleep(_AT_WORK_SECONDS)
                for size in sizes[1:]:
                    begin = time.monotonic()
                    (resize,) = client.scale_context_parallel(size).replicas
                    changes.append((resize, begin, time.monotonic()))
                    time.sleep(_AT_WORK_SECONDS)
            for change in changes:
                print(json.dumps(_report(change[0], clients, *change[1:]), indent=1), flush=True)
            if clients.failures:
                raise clients.failures[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="default: an 8B Llama")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", help="of cp, one after the other (default: up to all GPUs, and back)")
    parser.add_argument("--sequences", type=int, default=_SEQUENCES, help="that are held")
    parser.add_argument("--tokens", type=int, default=_TOKENS, help="of each of them")
    parser.add_argument("--writers", type=int, default=4,
                        help="clients that decode (default: %(default)s)")
    parser.add_argument("--readers", type=int, default=1,
                        help="clients whose prompts are read (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=1024,
                        help="tokens of such a prompt (default: %(default)s)")
    options = parser.parse_args()
    sizes = ([[int(size) for size in options.sizes.split(",")]] if options.sizes
             else _default_sizes())
    with dummy_llama(options.model) as model:
        for one in sizes:
            _resize(model, one, options)


if __name__ == "__main__":
    main()
