"""deploy/images: what is in the image, and that its programs run on nothing else."""

import os
import re
import shutil
import stat
import subprocess

import pytest
from image import Image, build_image, build_image_on_a_base, missing_tools
from rendered import REPOSITORY

_PROGRAMS = ("muster-coordinator", "muster-worker", "musterctl")
_COLLECT = REPOSITORY / "deploy" / "images" / "collect.sh"


@pytest.fixture(scope="module")
def image() -> Image:
    _skip_without_tools()
    return build_image()


def _skip_without_tools() -> None:
    if missing_tools():
        pytest.skip(f"images need these commands: {' '.join(missing_tools())}")
    if os.geteuid() != 0:
        pytest.skip("images are built as root, in a changed root")


def _run_in(image: Image, *words: str) -> str:
    user, group = image.user.split(":")
    result = subprocess.run(
        [shutil.which("chroot") or "/usr/sbin/chroot", f"--userspec={user}:{group}",
         str(image.root), *words], env={}, capture_output=True, text=True, check=True)
    return result.stdout


def test_the_image_is_at_most_120_mb_unpacked(image):
    assert image.unpacked_bytes() <= 120e6


@pytest.mark.parametrize("program", _PROGRAMS)
def test_every_program_starts_in_the_image_as_its_user(image, program):
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.user)
    assert "Usage" in _run_in(image, f"/usr/bin/{program}", "--help")


def test_only_programs_and_the_libraries_that_they_load_are_there(image):
    [loader] = (image.root / "usr").rglob("ld-linux*")
    loaded = {loader.name}
    for program in _PROGRAMS:
        text = _run_in(image, f"/{loader.relative_to(image.root)}", "--list", f"/usr/bin/{program}")
        assert "not found" not in text
        loaded |= {it.rpartition("/")[2] for it in re.findall(r"(/\S+) \(", text)}
    files = {it.name for it in (image.root / "usr").rglob("*") if not it.is_dir()}
    assert files == loaded | set(_PROGRAMS)


def test_nobody_in_the_image_can_become_root_or_change_it(image):
    for it in image.root.rglob("*"):
        mode = it.lstat().st_mode
        assert not mode & (stat.S_ISUID | stat.S_ISGID), it
        assert stat.S_ISLNK(mode) or it.name == "tmp" or not mode & stat.S_IWOTH, it
    assert "BEGIN CERTIFICATE" in (image.root / "etc/ssl/certs/ca-certificates.crt").read_text()


def test_the_programs_run_on_a_base_that_brings_its_own_c_library():
    _skip_without_tools()
    image = build_image_on_a_base()
    assert (image.root / "etc" / "debian_version").exists()
    for program in _PROGRAMS:
        assert "Usage" in _run_in(image, f"/usr/bin/{program}", "--help")


@pytest.mark.parametrize("binaries, complaint", [
    ("prebuilt", "out/bin has no muster-coordinator. Run ./muster build before"),
    ("all", "BINARIES is 'all'; it can be build or prebuilt"),
])
def test_what_cannot_be_collected_is_refused_in_one_line(tmp_path, binaries, complaint):
    result = subprocess.run(
        ["sh", str(_COLLECT), binaries, "scratch", str(tmp_path / "root")], cwd=tmp_path,
        capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stdout == ""
    [line] = result.stderr.splitlines()
    assert complaint in line
    assert not (tmp_path / "root").exists()
