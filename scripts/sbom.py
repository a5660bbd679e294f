#!/usr/bin/env python3
"""Lists what Muster is made of, as SPDX 2.3.

    sbom.py [--output FILE] [--table]

For each program of out/bin: the libraries whose code is in it (archives of which it took something,
and headers), and those that it loads; for the Python client, the packages that it needs. Each with
its version, its licence and a package URL. --table prints Markdown rows for docs/dependencies.md.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parent))

import linked_libraries
from debian_packages import DebianPackage, PackageError, owner_of
from linked_libraries import LinkError
from python_packages import PythonPackage, installed_packages
from revision import Revision
from spdx import Document, Package, Relationship, count_without_licence, spdx_id

PROGRAMS = {"muster-coordinator": "//coordinator:muster-coordinator",
            "muster-worker": "//worker:muster-worker", "musterctl": "//client/ctl:musterctl"}
REQUIREMENTS = "client/python/requirements.txt"

_CUDA_RUNTIME = "libcudart_static.a"
_CUDA_LICENCE = "LicenseRef-NVIDIA-CUDA-EULA"
# Opened by name on a host with GPUs, in whatever version that host has.
_OPENED_ON_GPUS = (
    ("libcublasLt", "NVIDIA cuBLASLt", _CUDA_LICENCE, "matrix products on GPUs"),
    ("libnccl", "NVIDIA NCCL", "BSD-3-Clause", "collectives between GPUs without peer access"))


@dataclass
class Inventory:
    """Everything found, by the id of its package."""

    packages: dict[str, Package] = field(default_factory=dict)
    links: list[Relationship] = field(default_factory=list)
    debian: dict[str, DebianPackage] = field(default_factory=dict)
    python: list[PythonPackage] = field(default_factory=list)

    def add_debian(self, program: str, kind: str, name: str, comment: str = "") -> None:
        found = DebianPackage.installed(name)
        self.debian[found.name] = found
        self.add(program, kind, _of_debian(found), comment)

    def add(self, program: str, kind: str, package: Package, comment: str = "") -> None:
        self.packages[package.id] = package
        self.links.append(Relationship(program, kind, package.id, comment))


def take_inventory(workspace: Path) -> Inventory:
    inventory = Inventory()
    headers = linked_libraries.header_packages(workspace)
    for name, label in PROGRAMS.items():
        _add_program(inventory, workspace, name, label, headers)
    inventory.python = installed_packages(workspace / REQUIREMENTS)
    for found in inventory.python:
        package = _of_python(found)
        inventory.packages[package.id] = package
        inventory.links.append(
            Relationship(package.id, "TEST_DEPENDENCY_OF", spdx_id("muster")) if found.for_tests
            else Relationship(spdx_id("muster-python"), "DEPENDS_ON", package.id))
    return inventory


def _add_program(inventory: Inventory, workspace: Path, name: str, label: str,
                 headers: dict[str, list[str]]) -> None:
    program = workspace / "out/bin" / name
    if not program.is_file():
        raise LinkError(f"{program} is not built: run ./muster build")
    dependencies = linked_libraries.dependencies_of(label, workspace)
    archives = [archive for it in dependencies for archive in it.archives]
    for archive in sorted(linked_libraries.archives_within(program, archives)):
        if archive.name == _CUDA_RUNTIME:
            _add_cuda(inventory, spdx_id(name), archive)
        else:
            inventory.add_debian(spdx_id(name), "STATIC_LINK", _owner(archive))
    for package in (it for found in dependencies for it in headers.get(found.repository, ())):
        inventory.add_debian(spdx_id(name), "STATIC_LINK", package, "as headers")
    for library in sorted(linked_libraries.loaded_libraries(program)):
        inventory.add_debian(spdx_id(name), "DYNAMIC_LINK", _owner(library))


def _add_cuda(inventory: Inventory, program: str, archive: Path) -> None:
    header = archive.resolve().parents[1] / "include/cuda_runtime_api.h"
    number = re.search(r"#define CUDART_VERSION\s+(\d+)", header.read_text()) \
        if header.exists() else None
    version = f"{int(number[1]) // 1000}.{int(number[1]) % 1000 // 10}" if number else ""
    runtime = Package(spdx_id("cuda-runtime"), "NVIDIA CUDA runtime", version, _CUDA_LICENCE,
                      supplier="Organization: NVIDIA", comment="libcudart_static.a")
    inventory.add(program, "STATIC_LINK", runtime)
    for soname, name, licence, purpose in _OPENED_ON_GPUS:
        opened = Package(spdx_id(soname), name, declared=licence, supplier="Organization: NVIDIA",
                         comment=f"opened at run time where there is a GPU, for {purpose}")
        inventory.packages[opened.id] = opened
        inventory.links.append(Relationship(opened.id, "OPTIONAL_DEPENDENCY_OF", program))


def _owner(file: Path) -> str:
    if (package := owner_of(file)) is None:
        raise PackageError(f"no Debian package owns {file}: its version and licence are unknown")
    return package


def _of_debian(found: DebianPackage) -> Package:
    def purl(name: str, version: str, architecture: str) -> str:
        return (f"pkg:deb/debian/{quote(name, safe='')}@{quote(version, safe='')}"
                f"?arch={architecture}")

    licence = found.licence
    others = f"licences of other files of the source: {', '.join(licence.others)}"
    return Package(
        spdx_id("deb", found.name), found.name, found.version,
        declared="" if licence.read_by_hand else licence.expression,
        concluded=licence.expression if licence.read_by_hand else "",
        purls=(purl(found.name, found.version, found.architecture),
               purl(found.source, found.source_version, "source")),
        supplier="Organization: Debian", homepage=found.homepage,
        source=f"built from {found.source} {found.source_version}, "
               f"upstream version {found.upstream_version}",
        comment=others if licence.others else "")


def _of_python(found: PythonPackage) -> Package:
    name = re.sub(r"[-_.]+", "-", found.name).lower()
    return Package(
        spdx_id("pypi", name), found.name, found.version,
        declared="" if found.read_by_hand else found.expression,
        concluded=found.expression if found.read_by_hand else "",
        purls=(f"pkg:pypi/{name}@{quote(found.version, safe='')}",), homepage=found.homepage)


def document_of(inventory: Inventory, revision: Revision) -> Document:
    def part(name: str, comment: str) -> Package:
        return Package(spdx_id(name), name, revision.version(), "Apache-2.0", comment=comment)

    root = part("muster", "all of it")
    parts = [part(name, "a program") for name in PROGRAMS]
    parts.append(part("muster-python", "the Python client"))
    contains = [Relationship(root.id, "CONTAINS", it.id) for it in parts]
    others = [inventory.packages[id] for id in sorted(inventory.packages)]
    return Document(f"muster-{revision.commit}", revision.time, [root, *parts, *others],
                    contains + inventory.links)


def table_of(inventory: Inventory, requirements: str) -> list[tuple[str, str, str]]:
    """Name, version (its first two numbers) and licence: by source for Debian's packages, and for
    those Python packages that requirements.txt names."""
    rows = {(it.source, _two_numbers(it.upstream_version), it.licence.expression)
            for it in inventory.debian.values()}
    named = set(re.findall(r"^([A-Za-z0-9-]+)==", requirements, re.MULTILINE))
    rows |= {(f"{it.name} (Python)", _two_numbers(it.version), it.expression)
             for it in inventory.python if it.name.lower() in named}
    return sorted(rows, key=lambda row: row[0].lower())


def _two_numbers(version: str) -> str:
    found = re.match(r"\d+(\.\d+)?", version)
    return found[0] if found else version


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("out/sbom.spdx.json"))
    parser.add_argument("--table", action="store_true", help="print rows of docs/dependencies.md")
    options = parser.parse_args()
    workspace = Path(__file__).resolve().parents[1]
    try:
        inventory = take_inventory(workspace)
    except (LinkError, PackageError) as error:
        print(f"muster: {error}", file=sys.stderr)
        return 1
    if options.table:
        for row in table_of(inventory, (workspace / REQUIREMENTS).read_text()):
            print("| " + " | ".join(row) + " |")
        return 0
    document = document_of(inventory, Revision.of(workspace))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document.to_json(), indent=1) + "\n")
    print(f"{options.output}: {len(inventory.debian)} Debian packages, {len(inventory.python)} "
          f"Python packages, {count_without_licence(document.packages)} without a known licence")
    return 0


if __name__ == "__main__":
    sys.exit(main())
