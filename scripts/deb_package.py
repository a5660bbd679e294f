#!/usr/bin/env python3
"""Makes a Debian package of the programs in out/bin: `./muster deb`.

    deb_package.py [--output DIR] [--sbom FILE]

The package holds the daemons and musterctl, systemd units, the manual page, completions, documents
and the list of dependencies. It depends on the shared libraries that the programs load, with the
versions that dpkg-shlibdeps finds. The same commit and build make the same bytes.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from revision import Revision

NAME = "muster"
PROGRAMS = ("muster-coordinator", "muster-worker", "musterctl")
TOOLS = ("dpkg-deb", "dpkg-shlibdeps", "strip")
_SCRIPTS = ("postinst", "prerm", "postrm")
# Where a shell looks for what `musterctl completion SHELL` prints.
_COMPLETIONS = {"bash": "usr/share/bash-completion/completions/musterctl",
                "zsh": "usr/share/zsh/vendor-completions/_musterctl",
                "fish": "usr/share/fish/vendor_completions.d/musterctl.fish"}
_DOCUMENTS = "usr/share/doc/muster"
# As dch(1) takes them from the environment.
_MAINTAINER = (f"{os.environ.get('DEBFULLNAME', 'The authors of Muster')} "
               f"<{os.environ.get('DEBEMAIL', 'muster@example.invalid')}>")

_CONTROL = """\
Package: {name}
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {size}
Depends: {depends}
Section: net
Priority: optional
Description: distributed inference workers, mustered by gRPC
 A coordinator assigns ranks and a parallel topology (tensor, context, data)
 to one worker per device; the workers run large language models together and
 serve layer-forward steps to a scheduler by gRPC. This package has the
 coordinator, the worker and musterctl, with systemd units.
"""


class PackageError(Exception):
    """There can be no package; the text tells a person why."""


class Tree:
    """The files of the package, as they will lie under /."""

    def __init__(self, root: Path, revision: Revision):
        self.root = root
        self._revision = revision

    def put(self, name: str, content: bytes, mode: int = 0o644) -> None:
        path = self.root / name
        for folder in reversed(path.relative_to(self.root).parents):
            (self.root / folder).mkdir(exist_ok=True)
            (self.root / folder).chmod(0o755)  # whatever the umask is
        path.write_bytes(content)
        path.chmod(mode)

    def put_compressed(self, name: str, content: bytes) -> None:
        self.put(name + ".gz", gzip.compress(content, 9, mtime=0))

    def put_program(self, source: Path) -> None:
        """Without its symbols, which are most of it."""
        self.put(f"usr/bin/{source.name}", b"", 0o755)
        _run(["strip", "-o", str(self.root / "usr/bin" / source.name), str(source)])
        (self.root / "usr/bin" / source.name).chmod(0o755)

    def kibibytes(self) -> int:
        return sum(-(-path.stat().st_size // 1024) or 1 for path in self.root.rglob("*")
                   if "DEBIAN" not in path.parts)

    def pack(self, folder: Path, architecture: str, compression: str) -> Path:
        package = folder / f"{NAME}_{self._revision.version()}_{architecture}.deb"
        time = str(int(self._revision.time.timestamp()))
        _run(["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", str(self.root),
              str(package)], environment={"SOURCE_DATE_EPOCH": time})
        return package


def _run(words: Sequence[str], folder: Path | None = None,
         environment: dict[str, str] | None = None) -> bytes:
    result = subprocess.run(words, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL,
                            env=os.environ | (environment or {}), check=False)
    if result.returncode != 0:
        raise PackageError(f"{words[0]} failed: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout


def fill(tree: Tree, repository: Path, sbom: Path) -> None:
    programs = repository / "out/bin"
    for name in PROGRAMS:
        if not (programs / name).is_file():
            raise PackageError(f"{programs / name} is not built: run ./muster build")
        tree.put_program(programs / name)
    musterctl = str(programs / "musterctl")
    tree.put_compressed("usr/share/man/man1/musterctl.1", _run([musterctl, "man"]))
    for shell, name in _COMPLETIONS.items():
        tree.put(name, _run([musterctl, "completion", shell]))
    _fill_units(tree, repository / "deploy/systemd")
    _fill_documents(tree, repository, sbom)


def _fill_units(tree: Tree, units: Path) -> None:
    for unit in sorted(units.glob("*.service")):
        tree.put(f"lib/systemd/system/{unit.name}", unit.read_bytes())
    for example in sorted(units.glob("*.service.d/*.conf")):
        name = f"{_DOCUMENTS}/examples/{example.parent.name}/{example.name}"
        tree.put(name, example.read_bytes())
    tree.put("usr/lib/sysusers.d/muster.conf", (units / "sysusers.conf").read_bytes())
    settings = sorted((units / "etc").glob("*.env"))
    for setting in settings:
        tree.put(f"etc/muster/{setting.name}", setting.read_bytes())
    tree.put("DEBIAN/conffiles",
             "".join(f"/etc/muster/{setting.name}\n" for setting in settings).encode())


def _fill_documents(tree: Tree, repository: Path, sbom: Path) -> None:
    for document in sorted((repository / "docs").glob("*.md")):
        tree.put(f"{_DOCUMENTS}/{document.name}", document.read_bytes())
    if not sbom.is_file():
        raise PackageError(f"{sbom} is not there: scripts/sbom.py makes it")
    tree.put_compressed(f"{_DOCUMENTS}/sbom.spdx.json", sbom.read_bytes())
    packaging = repository / "deploy/debian"
    tree.put(f"{_DOCUMENTS}/copyright", (packaging / "copyright").read_bytes())
    tree.put(f"usr/share/lintian/overrides/{NAME}", (packaging / "lintian-overrides").read_bytes())


def describe(tree: Tree, repository: Path, revision: Revision, architecture: str) -> None:
    entry = (f"{NAME} ({revision.version()}) unstable; urgency=medium\n\n"
             f"  * Built from commit {revision.commit}.\n\n"
             f" -- {_MAINTAINER}  {revision.time:%a, %d %b %Y %H:%M:%S +0000}\n")
    tree.put_compressed(f"{_DOCUMENTS}/changelog", entry.encode())
    for script in _SCRIPTS:
        tree.put(f"DEBIAN/{script}", (repository / "deploy/debian" / script).read_bytes(), 0o755)
    tree.put("DEBIAN/control", _CONTROL.format(
        name=NAME, version=revision.version(), architecture=architecture, maintainer=_MAINTAINER,
        size=tree.kibibytes(), depends=dependencies(tree.root)).encode())


def dependencies(root: Path) -> str:
    """What dpkg-shlibdeps finds, and who makes the user."""
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder, "debian/control")
        control.parent.mkdir()
        control.write_text(f"Source: {NAME}\n\nPackage: {NAME}\nArchitecture: any\n")
        programs = [f"-e{root / 'usr/bin' / name}" for name in PROGRAMS]
        found = _run(["dpkg-shlibdeps", "-O", *programs], Path(folder)).decode()
    libraries = found.strip().removeprefix("shlibs:Depends=")
    return f"{libraries}, systemd | systemd-standalone-sysusers | systemd-sysusers"


def build(repository: Path, sbom: Path, output: Path, compression: str = "xz") -> Path:
    """Returns the path of the package. `compression` as dpkg-deb's -Z."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise PackageError(f"{', '.join(missing)}: not here; "
                           "install the Debian packages dpkg-dev and binutils")
    revision = Revision.of(repository)
    architecture = _run(["dpkg", "--print-architecture"]).decode().strip()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder, NAME), revision)
        fill(tree, repository, sbom)
        describe(tree, repository, revision, architecture)
        return tree.pack(output, architecture, compression)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("out/deb"), help="folder")
    parser.add_argument("--sbom", type=Path, default=Path("out/sbom.spdx.json"))
    options = parser.parse_args()
    try:
        package = build(Path(__file__).resolve().parents[1], options.sbom, options.output)
    except PackageError as error:
        print(f"muster: {error}", file=sys.stderr)
        return 1
    print(f"{package}: {package.stat().st_size / (1 << 20):.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
