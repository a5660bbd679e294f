"""A multi-process service of our own, so that several ranks share a GPU at once."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDERS = ("/usr/local/nvidia/bin", "/usr/bin", "/usr/local/cuda/bin")


def control_program() -> str | None:
    """nvidia-cuda-mps-control; None where there is none."""
    path = os.pathsep.join((os.environ.get("PATH", ""), *_FOLDERS))
    return shutil.which("nvidia-cuda-mps-control", path=path)


@contextmanager
def multi_process_service(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of its clients. It ends when this is left, however that happens.

    It serves the GPUs that the environment makes visible, and counts them from 0 for its clients.
    Where it cannot be started, that is said, and the environment is as it was: ranks take turns.
    """
    control = control_program()
    if control is None:
        print("MPS: there is no nvidia-cuda-mps-control; ranks take turns", file=sys.stderr)
        yield environment
        return
    with tempfile.TemporaryDirectory(prefix="muster-mps-") as folder:
        served = environment | {
            "CUDA_MPS_PIPE_DIRECTORY": str(Path(folder, "pipe")),
            "CUDA_MPS_LOG_DIRECTORY": str(Path(folder, "log"))}
        for name in ("pipe", "log"):
            Path(folder, name).mkdir()
        started = _tell([control, "-d"], served)
        if started:
            print(f"MPS: did not start: {started}; ranks take turns", file=sys.stderr)
            yield environment
            return
        try:
            yield served | _counted_from_0(environment)
        finally:
            if failure := _tell([control], served, "quit\n"):
                print(f"MPS: did not end: {failure}", file=sys.stderr)


def _counted_from_0(environment: dict[str, str]) -> dict[str, str]:
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if not visible:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(visible.split(",")))))}


def _tell(command: list[str], environment: dict[str, str], words: str = "") -> str:
    """Why it failed; empty if it did not."""
    # A file, not a pipe: the service that stays would keep a pipe open.
    with tempfile.TemporaryFile("w+") as said:
        try:
            result = subprocess.run(
                command, input=words, env=environment, stdout=said, stderr=said, text=True,
                timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        said.seek(0)
        return "" if result.returncode == 0 else said.read().strip() or "no reason given"
