"""Builds the image of deploy/images without a registry, and lays its root file system out."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rendered import REPOSITORY

_IMAGES = REPOSITORY / "deploy" / "images"
_WORK = REPOSITORY / "out" / "image"
# What collect.sh needs of its base.
_BASE_PACKAGES = "binutils,ca-certificates,libdnnl2,libgomp1,libhwy1,libprometheus-cpp-core1.0"
TOOLS = ("buildah", "mmdebstrap")


def missing_tools() -> list[str]:
    return [it for it in TOOLS if shutil.which(it) is None]


@dataclass(frozen=True)
class Image:
    """An image that was built.

    Attributes:
      root: its root file system.
      user: who its programs run as, "65532:65532".
    """

    root: Path
    user: str

    def unpacked_bytes(self) -> int:
        return sum(it.lstat().st_size for it in self.root.rglob("*") if not it.is_dir())


def build_image() -> Image:
    """The image of out/bin as it is now. Takes a minute or two the first time."""
    return _build("muster", "RUNTIME_BASE=scratch")


def build_image_on_a_base() -> Image:
    """The one that stands on a runtime base, as that for GPUs does; here on what builds it."""
    return _build("muster-on-base", "RUNTIME_BASE=" + _base_image())


def _buildah(*words: str) -> str:
    result = subprocess.run(
        ["buildah", "--root", str(_WORK / "store"), "--runroot", str(_WORK / "run"), *words],
        env=os.environ | {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"},
        capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"buildah {words[0]}: {result.stderr.strip()[-2000:]}")
    return result.stdout.strip()


def _base_image() -> str:
    """Debian with the packages, as an image of the local store."""
    _WORK.mkdir(parents=True, exist_ok=True)
    stamp = hashlib.sha256(_BASE_PACKAGES.encode()).hexdigest()[:12]
    name = f"localhost/muster-base-{stamp}"
    if f"{name}:latest" in _buildah("images", "--format", "{{.Name}}:{{.Tag}}").splitlines():
        return name
    archive = _WORK / "base.tar"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=essential",
                    f"--include={_BASE_PACKAGES}", "bookworm", str(archive)], check=True)
    container = _buildah("from", "scratch")
    _buildah("add", "--quiet", container, str(archive), "/")
    _buildah("commit", "--quiet", "--rm", container, name)
    archive.unlink()
    return name


def _build(tag: str, runtime_base: str) -> Image:
    arguments = ("BUILD_BASE=" + _base_image(), "BINARIES=prebuilt", runtime_base)
    words = [word for it in arguments for word in ("--build-arg", it)]
    _buildah("build", "--quiet", *words, "--ignorefile",
             str(_IMAGES / "Containerfile.dockerignore"), "--file",
             str(_IMAGES / "Containerfile"), "--tag", tag, str(REPOSITORY))
    return _unpack(tag)


def _unpack(tag: str) -> Image:
    place = _WORK / tag
    shutil.rmtree(place, ignore_errors=True)
    container = _buildah("from", f"localhost/{tag}")
    try:
        # Devices stay devices.
        subprocess.run(["cp", "-a", _buildah("mount", container), str(place)], check=True)
        user = _buildah("inspect", "--format", "{{.OCIv1.Config.User}}", container)
    finally:
        _buildah("rm", container)
    _buildah("rmi", f"localhost/{tag}")
    return Image(place, user)
