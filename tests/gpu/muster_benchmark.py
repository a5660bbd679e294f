"""An 8B Llama of made-up bfloat16 weights by `musterctl bench`, whole and split: prints JSON."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu_fleet import GPUS, ROOT, fleet
from muster.client import Fleet
from muster.fleet_process import bin_directory

_LOADING_SECONDS = 150.0
_WORDS = ("bench", "--context", "1024", "--batches", "1,8,32", "--prompts", "2048",
          "--repetitions", "30")


def _benchmark(model: Path, tp: int, cp: int) -> dict:
    start = time.monotonic()
    with fleet(model, tp, cp, load_format="dummy") as process:
        serving = process.await_event("serving", _LOADING_SECONDS)
        started = time.monotonic() - start
        address = serving["coordinator"]
        with Fleet(address) as client:
            phases = client.replicas()[0].phases_ms
        command = [str(bin_directory() / "musterctl"), "--coordinator", address, "--json", *_WORDS]
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200,
            check=False)
        if result.returncode:
            sys.exit(f"musterctl bench: {result.stderr}")
    return {"program": "muster", "started_s": round(started, 2), "phases_ms": phases,
            **json.loads(result.stdout)}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "tests" / "gpu" / "eight_billion.json", Path(folder, "config.json"))
        shapes = [(1, 1)] + [(tp, GPUS // tp) for tp in (GPUS, 1) if GPUS > 1]
        print(json.dumps([_benchmark(Path(folder), *shape) for shape in shapes], indent=1))


if __name__ == "__main__":
    main()
