"""An 8B Llama that holds 8 GiB of KV changes its size while it serves: prints one JSON object.

    resize_benchmark.py [--model DIR] [--sequences N] [--tokens N]
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from gpu_fleet import GPUS, ROOT, fleet, sharing
from muster.client import Fleet, Replica
from muster.values import ReplicaResize, Slice

_LOADING_SECONDS = 150.0
# 128 KiB of KV for each token of this model.
_SEQUENCES, _TOKENS = 32, 2048


def _fill(replica: Replica, sequences: int, tokens: int) -> float:
    """Writes sequences that stay; returns the seconds that it took."""
    numbers = random.Random(1)
    model = replica.known_model()
    begin = time.perf_counter()
    for index in range(sequences):
        text = [numbers.randrange(3, model.vocabulary) for _ in range(tokens)]
        for first in range(0, tokens, model.max_rows_per_step):
            piece = text[first:first + model.max_rows_per_step]
            replica.forward([Slice(f"s{index}", piece, first)])
    return time.perf_counter() - begin


def _report(resize: ReplicaResize, filled: float) -> dict:
    rate = resize.kv_bytes_moved / (resize.copy_ms / 1e3) if resize.copy_ms else 0.0
    figures = {name: value for name, value in asdict(resize).items()
               if isinstance(value, (int, float))}
    return {"from_cp": resize.from_config.cp, "to_cp": resize.to_config.cp, **figures,
            "moved_bytes_per_second": rate, "filled_s": round(filled, 2)}


def _resize(model: Path, sizes: tuple[int, int], sequences: int, tokens: int) -> dict:
    begin, end = sizes
    words = ("--standby", str(end - begin), "--resize-range", f"{begin}:{end}")
    with fleet(model, 1, begin, *words, load_format="dummy", shared_by=sharing(end)) as process:
        serving = process.await_event("serving", _LOADING_SECONDS)
        with Fleet(serving["coordinator"]) as client, client.replica(0) as replica:
            filled = _fill(replica, sequences, tokens)
            (resize,) = client.scale_context_parallel(end).replicas
            return _report(resize, filled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="default: an 8B Llama")
    parser.add_argument("--sequences", type=int, default=_SEQUENCES)
    parser.add_argument("--tokens", type=int, default=_TOKENS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(options.model / "config.json" if options.model else
                    ROOT / "tests" / "gpu" / "eight_billion.json", Path(folder, "config.json"))
        changes = [(1, 2)] if GPUS == 2 else [(1, 2), (2, 4)]
        print(json.dumps([_resize(Path(folder), sizes, options.sequences, options.tokens)
                          for sizes in changes], indent=1))


if __name__ == "__main__":
    main()
