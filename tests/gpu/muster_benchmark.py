"""Llamas of made-up bfloat16 weights by `musterctl bench`, whole and split: prints a JSON object for each measurement.

    muster_benchmark.py [--models 8b,70b] [--splits 1x1,2x2] [--contexts 1024,32768] [--device DEVICE]
    muster_benchmark.py --models 70b --all

A split is TPxCP. What does not fit into the GPUs is left out, with the reason.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_fleet import GPUS, ROOT, fleet
from muster.client import Fleet
from muster.fleet_process import FleetError, bin_directory

_LOADING_SECONDS = 150.0
_BENCH_SECONDS = 300.0
_WORDS = ("bench", "--prompts", "2048", "--repetitions", "30")
# What differs from tests/gpu/eight_billion.json.
_MODELS = {
    "8b": {},
    "70b": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
            "num_attention_heads": 64}}
# Sequences that decode at once, by their context: those that are long take long to prefill.
_BATCHES = {1024: "1,8,32", 32768: "1,8", 131072: "1"}
_NO_ROOM = re.compile("(?i)memory|no room|does not fit")

Split = tuple[int, int]


def _all_splits() -> list[Split]:
    """Of .., 4, 2, 1 GPUs."""
    sizes = [1 << power for power in reversed(range(GPUS.bit_length()))]
    return [(tp, size // tp) for size in sizes for tp in sizes if tp <= size]


def _some_splits() -> list[Split]:
    """One GPU, and all of them as tp and as cp."""
    return [(1, 1)] + [(tp, GPUS // tp) for tp in (GPUS, 1) if GPUS > 1]


def _config(name: str, positions: int) -> str:
    base = json.loads((ROOT / "tests" / "gpu" / "eight_billion.json").read_text())
    positions = max(positions, base["max_position_embeddings"])
    return json.dumps(base | _MODELS[name] | {"max_position_embeddings": positions})


def _bench(coordinator: str, context: int, batches: str) -> dict:
    command = [str(bin_directory() / "musterctl"), "--coordinator", coordinator, "--json", *_WORDS,
               "--context", str(context), "--batches", batches]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_BENCH_SECONDS,
        check=False)
    if result.returncode:
        sys.exit(f"musterctl bench: {result.stderr}")
    return json.loads(result.stdout)


def _measure(model: Path, split: Split, options: argparse.Namespace) -> Iterator[dict]:
    tp, cp = split
    start = time.monotonic()
    with fleet(model, tp, cp, device=options.device, load_format="dummy") as process:
        try:
            serving = process.await_event("serving", _LOADING_SECONDS)
        except FleetError as error:
            if not _NO_ROOM.search(str(error)):
                raise
            yield {"left_out": str(error)}
            return
        started = time.monotonic() - start
        address = serving["coordinator"]
        with Fleet(address) as client:
            phases = client.replicas()[0].phases_ms
        for context in options.contexts:
            yield {"started_s": round(started, 2), "phases_ms": phases, "context": context,
                   **_bench(address, context, options.batches or _BATCHES[context])}


def _splits(text: str) -> list[Split]:
    found = [re.fullmatch(r"(\d+)x(\d+)", word) for word in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not TPxCP,..")
    return [(int(it[1]), int(it[2])) for it in found if it]


def _some_of(known: list, kind: type):
    def parse(text: str) -> list:
        chosen = [kind(word) for word in text.split(",")]
        if wrong := [it for it in chosen if it not in known]:
            raise argparse.ArgumentTypeError(f"{wrong[0]} is none of {', '.join(map(str, known))}")
        return chosen
    return parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--models", type=_some_of(list(_MODELS), str), default=["8b"],
        help=f"some of {','.join(_MODELS)} (default: 8b)")
    add("--splits", type=_splits, default=_some_splits(),
        help="TPxCP,.. (default: one GPU, and all of them as tp and as cp)")
    add("--contexts", type=_some_of(list(_BATCHES), int), default=[1024],
        help=f"some of {','.join(map(str, _BATCHES))} (default: 1024)")
    add("--all", action="store_true", help="all contexts, and all splits of 1, 2, 4, .. GPUs")
    add("--batches", help="sequences that decode at once, e.g. 1,8 (default: fewer the longer)")
    add("--device", default="cuda")
    options = parser.parse_args()
    if options.all:
        options.contexts, options.splits = list(_BATCHES), _all_splits()
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(_config(name, max(options.contexts) + 4096))
            for split in options.splits:
                for figures in _measure(Path(folder), split, options):
                    print(json.dumps({"llama": name, "tp": split[0], "cp": split[1], **figures}),
                          flush=True)


if __name__ == "__main__":
    main()
