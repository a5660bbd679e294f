"""Fleets on the GPUs of this machine, and what they leave behind."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from muster.fleet_process import FleetOptions, FleetProcess

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "testdata" / "goldens"
# GPUs that this run may use.
GPUS = int(os.environ.get("MUSTER_TEST_GPUS", "1"))
# Far above what anything here takes.
PATIENCE = 90.0
# What the product promises of an error after a death.
PROMISE = 2.0

# In the environment of all that is started here.
_MARK = f"MUSTER_TEST_MARK={secrets.token_hex(8)}"
os.environ.update([_MARK.split("=")])


def golden(name: str) -> dict:
    """The prompt of a golden model and its tokens, which end as the demo's do: at the end token."""
    facts = json.loads((MODELS / name / "golden.json").read_text())
    end = json.loads((MODELS / name / "config.json").read_text())["eos_token_id"]
    if end in facts["tokens"]:
        facts["tokens"] = facts["tokens"][:facts["tokens"].index(end) + 1]
    return facts


def sharing(workers: int) -> int:
    """Workers that each GPU gets, so that all have one."""
    return -(-workers // GPUS)


def on_gpus(workers: int) -> list[str]:
    """Words of the demo that put so many workers on the GPUs."""
    return ["--device", "cuda", "--oversubscribe", str(sharing(workers))]


def demo(*words: str) -> dict:
    """What `muster demo --json` reports; AssertionError tells why there is no report."""
    command = [sys.executable, "-m", "muster.demo", "--json", *words]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
        check=False)
    assert result.returncode == 0, f"demo {' '.join(words)}: {result.stderr[-600:]}"
    return json.loads(result.stdout)


def fleet(model: Path, tp: int, cp: int, *words: str, device: str = "cuda",
          shared_by: int | None = None, load_format: str | None = None,
          dtype: str = "auto") -> FleetProcess:
    """A fleet of this machine's GPUs; leaving it ends it."""
    return FleetProcess(FleetOptions(
        model, tp, cp, dtype=dtype, extra=words, device=device, load_format=load_format,
        oversubscribe=sharing(tp * cp) if shared_by is None else shared_by))


@contextmanager
def dummy_llama(model: Path | None = None) -> Iterator[Path]:
    """A folder with what made-up weights are made from: of an 8B Llama, or as `model` has it."""
    source = model / "config.json" if model else ROOT / "tests" / "gpu" / "eight_billion.json"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(source, Path(folder, "config.json"))
        yield Path(folder)


def gpu_megabytes() -> int:
    """Memory in use on the GPUs of this run, in MiB."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits",
             "-i", os.environ["CUDA_VISIBLE_DEVICES"]]
    result = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    return sum(map(int, result.stdout.split()))


def running() -> dict[int, str]:
    """Names of the processes that were started here and still live."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            marked = _MARK.encode() in Path("/proc", entry, "environ").read_bytes().split(b"\0")
            status = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        name, state = status[status.index("(") + 1:].rsplit(") ", 1)
        if marked and state[0] != "Z" and name.startswith("muster"):
            found[int(entry)] = name
    return found


def await_that(condition: Callable[[], object], what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
