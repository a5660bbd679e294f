"""An 8B Llama of made-up bfloat16 weights on one GPU, by `musterctl bench`: prints JSON."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu_fleet import ROOT, fleet
from muster.client import Fleet
from muster.fleet_process import bin_directory

_LOADING_SECONDS = 150.0
_WORDS = ("bench", "--context", "1024", "--batches", "1,8,32", "--prompts", "2048",
          "--repetitions", "30")


def _benchmark(model: Path) -> dict:
    start = time.monotonic()
    with fleet(model, 1, 1, load_format="dummy") as process:
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
        print(json.dumps(_benchmark(Path(folder)), indent=1))


if __name__ == "__main__":
    main()
