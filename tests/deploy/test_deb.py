"""The Debian package: what lies in it, what it asks for, and that its programs run from it."""

import gzip
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import deb_package

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Unpacked:
    """`root` holds its files, and `control` what dpkg reads."""

    package: Path
    root: Path
    control: dict[str, str]

    def names(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")
                if not path.is_dir() and "DEBIAN" not in path.parts}


def _output(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _build(folder: Path) -> Path:
    """At a time that is not now, since a checkout without git has no other."""
    sbom = folder / "sbom.json"
    sbom.write_text("{}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1769904000")
        return deb_package.build(_ROOT, sbom, folder, compression="gzip")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Unpacked:
    if missing := [tool for tool in deb_package.TOOLS if not shutil.which(tool)]:
        pytest.skip(f"{', '.join(missing)}: not here, so that no package can be made")
    if not all((_ROOT / "out/bin" / name).is_file() for name in deb_package.PROGRAMS):
        pytest.skip("the programs are not built: run ./muster build")
    folder = tmp_path_factory.mktemp("deb")
    package = _build(folder)
    _output("dpkg-deb", "--raw-extract", package, folder / "root")
    fields = re.findall(r"^([A-Za-z-]+): (.*)$", _output("dpkg-deb", "--field", package),
                        re.MULTILINE)
    return Unpacked(package, folder / "root", dict(fields))


def test_it_holds_programs_units_pages_and_completions(unpacked):
    assert unpacked.names() >= {
        "usr/bin/muster-coordinator", "usr/bin/muster-worker", "usr/bin/musterctl",
        "lib/systemd/system/muster-coordinator.service",
        "lib/systemd/system/muster-worker@.service", "usr/lib/sysusers.d/muster.conf",
        "usr/share/doc/muster/examples/muster-worker@.service.d/gpu.conf",
        "usr/share/man/man1/musterctl.1.gz", "usr/share/bash-completion/completions/musterctl",
        "usr/share/doc/muster/copyright", "usr/share/doc/muster/sbom.spdx.json.gz",
        "usr/share/doc/muster/operations.md", "usr/share/doc/muster/configuration.md"}


def test_settings_are_the_operators_to_change(unpacked):
    settings = {name for name in unpacked.names() if name.startswith("etc/")}
    assert settings == {"etc/muster/coordinator.env", "etc/muster/worker.env"}
    conffiles = (unpacked.root / "DEBIAN/conffiles").read_text().split()
    assert set(conffiles) == {"/" + name for name in settings}


def test_files_belong_to_root_and_only_programs_can_be_run(unpacked):
    for line in _output("dpkg-deb", "--contents", unpacked.package).splitlines():
        mode, owner, _, _, _, name = line.split(maxsplit=5)
        assert owner == "root/root", line
        program = mode.startswith("-") and name.startswith("./usr/bin/")
        assert mode == ("-rwxr-xr-x" if program else
                        "drwxr-xr-x" if mode.startswith("d") else "-rw-r--r--"), line


def test_it_depends_on_what_the_programs_load_and_on_who_makes_the_user(unpacked):
    wanted = {re.split(r"[ |]", it)[0] for it in unpacked.control["Depends"].split(", ")}
    assert wanted >= {"libc6", "libdnnl2", "libgomp1", "libstdc++6", "systemd"}
    assert not [name for name in wanted if name.endswith("-dev")]


def test_its_version_comes_before_its_release(unpacked):
    version = unpacked.control["Version"]
    release = version.partition("~")[0]
    for relation, other in (("lt", release), ("gt", f"{release}~git20000101.0000000000")):
        assert subprocess.run(["dpkg", "--compare-versions", version, relation, other],
                              check=False).returncode == 0, version


def test_musterctl_runs_from_it(unpacked):
    musterctl = unpacked.root / "usr/bin/musterctl"
    assert "Looks at a fleet of Muster" in _output(musterctl, "--help")
    page = gzip.decompress((unpacked.root / "usr/share/man/man1/musterctl.1.gz").read_bytes())
    assert page.decode() == _output(musterctl, "man")
    completion = unpacked.root / "usr/share/bash-completion/completions/musterctl"
    assert completion.read_text() == _output(musterctl, "completion", "bash")
    _output("bash", "-n", completion)


@pytest.mark.parametrize("daemon", ["coordinator", "worker"])
def test_the_settings_that_it_brings_are_flags_of_the_daemon(unpacked, daemon):
    help_text = _output(unpacked.root / f"usr/bin/muster-{daemon}", "--help")
    settings = (unpacked.root / f"etc/muster/{daemon}.env").read_text()
    names = re.findall(r"^#?(MUSTER_[A-Z_]+)=", settings, re.MULTILINE)
    assert names, settings
    assert [name for name in names if f"(Env:{name})" not in help_text] == []


@pytest.mark.parametrize("daemon", ["coordinator", "worker"])
def test_a_daemon_accepts_the_settings_as_they_are(unpacked, daemon):
    settings = (unpacked.root / f"etc/muster/{daemon}.env").read_text()
    environment = dict(re.findall(r"^(MUSTER_[A-Z_]+)=(.*)$", settings, re.MULTILINE))
    result = subprocess.run([unpacked.root / f"usr/bin/muster-{daemon}", "--print-config"],
                            env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "MUSTER_" in result.stdout


def test_scripts_of_the_package_are_shell(unpacked):
    for script in ("postinst", "prerm", "postrm"):
        _output("sh", "-n", unpacked.root / "DEBIAN" / script)


def test_the_user_can_be_made(unpacked, tmp_path):
    if not shutil.which("systemd-sysusers"):
        pytest.skip("systemd-sysusers is not here")
    (tmp_path / "etc").mkdir()
    _output("systemd-sysusers", f"--root={tmp_path}",
            str(unpacked.root / "usr/lib/sysusers.d/muster.conf"))
    entry = next(line for line in (tmp_path / "etc/passwd").read_text().splitlines()
                 if line.startswith("muster:"))
    assert entry.endswith(":/:/usr/sbin/nologin")


def test_lintian_finds_no_error(unpacked):
    if not shutil.which("lintian"):
        pytest.skip("lintian is not here")
    result = subprocess.run(["lintian", "--allow-root", "--fail-on", "error", unpacked.package],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_same_build_makes_the_same_bytes(unpacked, tmp_path):
    again = _build(tmp_path)
    assert again.name == unpacked.package.name
    assert again.read_bytes() == unpacked.package.read_bytes()


def test_without_programs_there_is_a_clear_error(tmp_path):
    with pytest.raises(deb_package.PackageError, match="is not built: run ./muster build"):
        deb_package.fill(deb_package.Tree(tmp_path / "tree", deb_package.Revision.of(tmp_path)),
                         tmp_path, tmp_path / "sbom.json")
