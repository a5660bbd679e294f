"""What dpkg knows of an installed package: its versions, its source, its licence."""

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spdx import LICENCES

_DOCUMENTS = Path("/usr/share/doc")
_FIELDS = ("Package", "Version", "Architecture", "source:Package", "source:Version",
           "source:Upstream-Version", "Homepage")

# Debian's short names that are not SPDX's.
_SPDX_NAMES = {
    "Expat": "MIT",
    "BSD-2-clause": "BSD-2-Clause",
    "BSD-3-clause": "BSD-3-Clause",
    # "google" names the holder in the third clause.
    "BSD-3-google": "BSD-3-Clause",
    "BSD-3-Clause-Google": "BSD-3-Clause",
    "BSD-3-Clause~Google": "BSD-3-Clause",
    "Apache-2": "Apache-2.0",
    "ISC/Expat": "ISC",
    "GPL-2+": "GPL-2.0-or-later",
    "GPL-3+": "GPL-3.0-or-later",
    "LGPL-2.1+": "LGPL-2.1-or-later",
    "LGPL-3+": "LGPL-3.0-or-later",
}
# Sources whose copyright file is prose, or has words of its own for a licence, as a person read it.
_READ_BY_HAND = {
    "c-ares": "MIT",
    "fmtlib": "MIT WITH fmt-exception",
    "gcc-12": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "glibc": "LGPL-2.1-or-later",
    # What Debian calls X11 is the text that SPDX calls MIT, word for word.
    "yaml-cpp": "MIT",
}


class PackageError(Exception):
    """dpkg does not know what it is asked; the text tells a person why."""


@dataclass(frozen=True)
class Licence:
    """Of the main files of a package.

    Attributes:
      expression: by SPDX, or "" where the copyright file is prose that nobody has read.
      read_by_hand: whether the expression comes from a person, not from the file.
      others: short names of the licences of further files of the source, most of them not linked.
    """

    expression: str
    read_by_hand: bool
    others: tuple[str, ...]


@dataclass(frozen=True)
class DebianPackage:
    name: str
    version: str
    architecture: str
    source: str
    source_version: str
    upstream_version: str
    homepage: str
    licence: Licence

    @staticmethod
    @cache
    def installed(name: str) -> "DebianPackage":
        wanted = "\\t".join("${%s}" % field for field in _FIELDS) + "\\n"
        answer = subprocess.run(["dpkg-query", "-W", "-f", wanted, name], capture_output=True,
                                text=True, check=False)
        if answer.returncode != 0:
            raise PackageError(f"the Debian package {name} is not installed")
        values = answer.stdout.splitlines()[0].split("\t")
        package, version, architecture, source, source_version, upstream, homepage = values
        return DebianPackage(package, version, architecture, source, source_version, upstream,
                             homepage, licence_of(package, source))


@cache
def owner_of(path: Path) -> str | None:
    """The package that a file came with. /lib is a link to /usr/lib: either name may be the one."""
    plain = os.path.realpath(path.parent) + "/" + path.name
    for name in (plain, plain.removeprefix("/usr")):
        answer = subprocess.run(["dpkg-query", "-S", name], capture_output=True, text=True,
                                check=False)
        if answer.returncode == 0:
            return answer.stdout.split(":")[0]
    return None


def licence_of(package: str, source: str) -> Licence:
    path = _DOCUMENTS / package / "copyright"
    text = path.read_text(errors="replace") if path.exists() else ""
    main, others = machine_readable(text)
    if source in _READ_BY_HAND:
        return Licence(_READ_BY_HAND[source], True, others)
    return Licence(spdx_expression(main), False, others)


def machine_readable(text: str) -> tuple[str, tuple[str, ...]]:
    """The licence of `Files: *` in a file of the format "DEP-5", and those of the other files."""
    if not text.startswith("Format:"):
        return "", ()
    found: list[tuple[str, str]] = []
    for paragraph in re.split(r"\n\s*\n", text):
        files = re.search(r"^Files:\s*(.*)$", paragraph, re.MULTILINE)
        licence = re.search(r"^License:\s*(\S.*)$", paragraph, re.MULTILINE)
        if files and licence:
            found.append((files[1].strip(), licence[1].strip()))
    main = next((licence for files, licence in found if files == "*"), "")
    others = {licence for files, licence in found
              if licence != main and not files.startswith("debian/")}
    return main, tuple(sorted(others))


def spdx_expression(short_names: str) -> str:
    """Debian's "A or B" and "A and B" as SPDX has them; a name that SPDX lacks as a LicenseRef."""
    words = re.split(r"\s+(or|and)\s+|,\s*", short_names.strip())
    return " ".join(word.upper() if word in ("or", "and") else _spdx_name(word)
                    for word in words if word)


def _spdx_name(name: str) -> str:
    name = _SPDX_NAMES.get(name, name)
    if name in LICENCES:
        return name
    return "LicenseRef-Debian-" + re.sub(r"[^A-Za-z0-9.-]+", "-", name)
