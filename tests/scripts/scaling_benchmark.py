"""What it costs to change the size of a fleet that holds sequences, beside a restart; and whether
anything is left of many changes. Prints tables; not a test.

    PYTHONPATH=client/python:out/python .venv/bin/python tests/scripts/scaling_benchmark.py held
    PYTHONPATH=client/python:out/python .venv/bin/python tests/scripts/scaling_benchmark.py soak 200
"""

import argparse
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muster.client import Fleet
from muster.demo_model import demo_model
from muster.fleet_process import FleetOptions, FleetProcess
from muster.replica import Replica
from muster.values import ParallelConfig, Slice

sys.path.append(str(Path(__file__).resolve().parents[1] / "integration"))
from process_held import Held  # noqa: E402

MEBI = 1 << 20
CHUNK = 512  # tokens of a step


@contextmanager
def fleet_of(model: Path, cp: int) -> Iterator[tuple[FleetProcess, Fleet]]:
    """A fleet with standbys up to cp=4."""
    extra = ("--standby", str(4 - cp), "--resize-range", "1:4")
    with FleetProcess(FleetOptions(model, cp=cp, extra=extra)) as process:
        serving = process.await_event("serving", 120)
        with Fleet(serving["coordinator"]) as fleet:
            yield process, fleet


def prompts(count: int, tokens: int) -> list[list[int]]:
    numbers = random.Random(1)
    return [[numbers.randrange(1, 40_000) for _ in range(tokens)] for _ in range(count)]


def prefill(replica: Replica, texts: list[list[int]]) -> float:
    """Seconds that it took."""
    begun = time.perf_counter()
    for index, text in enumerate(texts):
        for first in range(0, len(text), CHUNK):
            replica.forward([Slice(f"s{index}", text[first:first + CHUNK], first)])
    return time.perf_counter() - begun


def held(model: Path, sizes: list[int], count: int, tokens: int) -> None:
    """Sequences that nobody writes to go through sizes; and through a restart for each."""
    texts = prompts(count, tokens)
    print(f"{count} sequences of {tokens} tokens, then cp 2 to {', '.join(map(str, sizes))}\n")
    print("| cp | prepare | predicted pause | pause | KV moved | of it in the pause | kept "
          "| copied at | of a plain copy |")
    print("| --- " * 9 + "|")
    with fleet_of(model, 2) as (_, fleet), fleet.replica(wait=10) as replica:
        prefill(replica, texts)
        for cp in sizes:
            time.sleep(1)
            plan = fleet.plan(ParallelConfig(tp=1, cp=cp))
            done = fleet.scale_context_parallel(cp).replicas[0]
            rate = done.kv_bytes_moved / (done.copy_ms / 1e3) if done.copy_ms else 0.0
            share = rate / done.copy_bytes_per_second if done.copy_bytes_per_second else 0.0
            print(f"| {done.from_config.cp} to {cp} | {done.prepare_ms / 1e3:.2f} s "
                  f"| {plan.changes[0].predicted_pause_ms:.2f} ms | {done.pause_ms:.2f} ms "
                  f"| {done.kv_blocks_moved} blocks, {done.kv_bytes_moved / MEBI:.0f} MiB "
                  f"| {done.kv_bytes_in_pause / MEBI:.1f} MiB | {done.kv_blocks_kept} blocks "
                  f"| {rate / (1 << 30):.1f} GiB/s | {share:.0%} |", flush=True)
    cp = sizes[0]
    with fleet_of(model, 2) as (process, fleet):
        with fleet.replica(wait=10) as replica:
            prefill(replica, texts)
        begun = time.perf_counter()
        process.stop()
        with fleet_of(model, cp) as (_, again), again.replica(wait=10) as replica:
            up = time.perf_counter() - begun
            filled = prefill(replica, texts)
    print(f"\nrestarted with cp={cp}: {up:.2f} s until it serves, {filled:.2f} s to compute the "
          f"sequences again: {(up + filled) * 1e3:.0f} ms in which they wait")


def daemons_of(process: FleetProcess) -> list[int]:
    """The process ids of a fleet's daemons."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children]


def soak(model: Path, changes: int) -> None:
    """Random sizes under load."""
    numbers = random.Random(2)
    stop = threading.Event()
    failures: list[BaseException] = []
    written = [0]

    def write(fleet: Fleet, seed: int) -> None:
        mine = random.Random(seed)
        try:
            with fleet.replica(wait=10) as replica:
                while not stop.is_set():
                    text = [mine.randrange(1, 40_000) for _ in range(mine.randint(8, 200))]
                    for _ in replica.generate(text, mine.randint(4, 40)):
                        written[0] += 1
        except BaseException as error:  # whatever it is, it is a failure
            failures.append(error)

    with fleet_of(model, 2) as (process, fleet):
        for cp in (4, 1, 2):  # what is made on first use
            fleet.scale_context_parallel(cp)
        time.sleep(1)
        before = [Held.by(pid) for pid in daemons_of(process)]
        writers = [threading.Thread(target=write, args=(fleet, seed)) for seed in range(8)]
        for writer in writers:
            writer.start()
        cp, pauses, prepares = 2, [], []
        for change in range(changes):
            cp = numbers.choice([size for size in (1, 2, 3, 4) if size != cp])
            done = fleet.scale_context_parallel(cp).replicas[0]
            pauses.append(done.pause_ms)
            prepares.append(done.prepare_ms)
            if failures:
                break
        stop.set()
        for writer in writers:
            writer.join()
        fleet.scale_context_parallel(2)
        time.sleep(1)
        after = [Held.by(pid) for pid in daemons_of(process)]
    pauses.sort()
    prepares.sort()
    print(f"{change + 1} changes under load, {written[0]} tokens, {len(failures)} failed requests; "
          f"pause {pauses[len(pauses) // 2]:.1f} ms (median), {pauses[-1]:.1f} ms (longest); "
          f"prepare {prepares[len(prepares) // 2] / 1e3:.1f} s, {prepares[-1] / 1e3:.1f} s\n")
    for failure in failures:
        print(repr(failure))
    print("| process | resident | files | threads | segments |\n| --- | --- | --- | --- | --- |")
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        print(f"| {index} | {old.resident >> 10} to {new.resident >> 10} MiB "
              f"| {old.files} to {new.files} | {old.threads} to {new.threads} "
              f"| {old.segments} to {new.segments} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["held", "soak"])
    parser.add_argument("changes", type=int, nargs="?", default=20, help="of a soak")
    parser.add_argument("--model", type=Path, help="default: the demo's")
    parser.add_argument("--sizes", default="4,3,1,2", help="default: %(default)s")
    parser.add_argument("--sequences", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=500)
    arguments = parser.parse_args()
    model = arguments.model or demo_model(print)
    if arguments.what == "soak":
        return soak(model, arguments.changes)
    sizes = [int(size) for size in arguments.sizes.split(",")]
    return held(model, sizes, arguments.sequences, arguments.tokens)


if __name__ == "__main__":
    main()
