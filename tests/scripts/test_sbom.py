"""The list of what Muster is made of: true of the programs, valid by SPDX, and as the docs say."""

import re
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import linked_libraries
import sbom
from debian_packages import machine_readable, spdx_expression
from revision import Revision
from spdx import NO_ASSERTION, Document, Package, count_without_licence, is_expression

_ROOT = Path(__file__).resolve().parents[2]
_ID = re.compile(r"SPDXRef-[A-Za-z0-9.-]+")
_PURL = re.compile(r"pkg:(deb/debian|pypi)/[a-z0-9.%A-F-]+@[A-Za-z0-9.%~-]+(\?arch=[a-z0-9]+)?")
_REVISION = Revision("0.1.0", "0123456789", datetime(2026, 1, 31, tzinfo=timezone.utc), False)


@pytest.fixture(scope="module")
def inventory() -> sbom.Inventory:
    for word in ("bazel", "dpkg-query", "nm", "ldd"):
        if not shutil.which(word):
            pytest.skip(f"{word} is not here: what is linked cannot be found out")
    if not all((_ROOT / "out/bin" / name).is_file() for name in sbom.PROGRAMS):
        pytest.skip("the programs are not built: run ./muster build")
    return sbom.take_inventory(_ROOT)


@pytest.fixture(scope="module")
def document(inventory: sbom.Inventory) -> dict[str, Any]:
    return sbom.document_of(inventory, _REVISION).to_json()


def _linked(document: dict[str, Any], program: str, kind: str) -> set[str]:
    return {link["relatedSpdxElement"].removeprefix("SPDXRef-deb-")
            for link in document["relationships"]
            if (link["spdxElementId"], link["relationshipType"]) == (f"SPDXRef-{program}", kind)}


def test_what_is_in_every_program_is_listed(document):
    for program in sbom.PROGRAMS:
        assert _linked(document, program, "STATIC_LINK") >= {
            "libgrpcpp-dev", "libgrpc-dev", "libprotobuf-dev", "libabsl-dev", "libssl-dev",
            "zlib1g-dev", "libcli11-dev", "libyaml-cpp-dev"}, program
        assert _linked(document, program, "DYNAMIC_LINK") >= {"libc6", "libstdcpp6"}, program


def test_only_the_worker_computes(document):
    assert _linked(document, "muster-worker", "DYNAMIC_LINK") >= {"libdnnl2", "libgomp1", "libhwy1"}
    assert "libspdlog-dev" in _linked(document, "muster-worker", "STATIC_LINK")
    assert "libdnnl2" not in _linked(document, "muster-coordinator", "DYNAMIC_LINK")


def test_the_python_client_is_listed_apart_from_its_tests(document):
    links = {(link["spdxElementId"], link["relationshipType"], link["relatedSpdxElement"])
             for link in document["relationships"]}
    assert ("SPDXRef-muster-python", "DEPENDS_ON", "SPDXRef-pypi-grpcio") in links
    assert ("SPDXRef-pypi-pytest", "TEST_DEPENDENCY_OF", "SPDXRef-muster") in links
    assert ("SPDXRef-muster-python", "DEPENDS_ON", "SPDXRef-pypi-pytest") not in links


def test_the_document_has_what_spdx_demands(document):
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["dataLicense"] == "CC0-1.0"
    assert document["SPDXID"] == "SPDXRef-DOCUMENT"
    assert re.fullmatch(r"https://[^#\s]+", document["documentNamespace"])
    assert document["creationInfo"] == {"created": "2026-01-31T00:00:00Z",
                                        "creators": ["Tool: muster-sbom"]}
    for package in document["packages"]:
        assert package["name"] and package["downloadLocation"], package
        assert package["filesAnalyzed"] is False, "or a verification code is due"
        assert package["supplier"] == NO_ASSERTION or re.match(
            r"(Organization|Person): \S", package["supplier"]), package
        for key in ("licenseDeclared", "licenseConcluded"):
            assert package[key] == NO_ASSERTION or is_expression(package[key]), package


def test_every_name_in_the_document_is_declared_once(document):
    ids = [package["SPDXID"] for package in document["packages"]]
    assert len(ids) == len(set(ids))
    assert all(_ID.fullmatch(it) for it in ids)
    known = {*ids, "SPDXRef-DOCUMENT"}
    for link in document["relationships"]:
        assert {link["spdxElementId"], link["relatedSpdxElement"]} <= known, link
    reached = {end for link in document["relationships"]
               for end in (link["spdxElementId"], link["relatedSpdxElement"])}
    assert reached == known, "a package that nothing refers to"
    used = set(re.findall(r"LicenseRef-[A-Za-z0-9.-]+",
                          " ".join(it["licenseConcluded"] for it in document["packages"])))
    assert used == {it["licenseId"] for it in document["hasExtractedLicensingInfos"]}


def test_every_dependency_has_a_version_and_a_package_url(document):
    for package in document["packages"]:
        if package["SPDXID"].startswith(("SPDXRef-deb-", "SPDXRef-pypi-")):
            assert package["versionInfo"], package
            for reference in package["externalRefs"]:
                assert reference["referenceCategory"] == "PACKAGE-MANAGER"
                assert _PURL.fullmatch(reference["referenceLocator"]), reference


def test_every_package_has_a_licence_or_is_counted(inventory):
    packages = inventory.packages.values()
    unknown = [package.name for package in packages if package.licence() == NO_ASSERTION]
    print(f"{len(packages)} packages, {len(unknown)} without a known licence: {unknown}")
    assert count_without_licence(packages) == len(unknown)
    assert inventory.debian.keys().isdisjoint(unknown), \
        "read the copyright file, then add the package to _READ_BY_HAND of debian_packages.py"


def test_the_table_of_the_docs_is_what_was_found(inventory):
    text = (_ROOT / "docs/dependencies.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| .+ \|$", text, re.MULTILINE)
    documented = {row for row in rows if row[0] not in ("name", "---")}
    found = set(sbom.table_of(inventory, (_ROOT / sbom.REQUIREMENTS).read_text()))
    assert documented == found, "scripts/sbom.py --table prints the rows, less what each is for"


def test_an_archive_of_which_nothing_was_taken_is_not_linked(inventory):
    program = _ROOT / "out/bin/musterctl"
    archives = {archive for it in linked_libraries.dependencies_of(
        sbom.PROGRAMS["musterctl"], _ROOT) for archive in it.archives}
    inside = linked_libraries.archives_within(program, archives)
    assert {"libgrpc++.a", "libssl.a"} <= {archive.name for archive in inside} < {
        archive.name for archive in archives}


def test_a_stripped_program_is_refused(tmp_path):
    (tmp_path / "stripped").write_bytes(b"")
    with pytest.raises(linked_libraries.LinkError, match="not stripped"):
        linked_libraries.archives_within(tmp_path / "stripped", [])


def test_licences_are_read_from_machine_readable_copyright_files():
    text = ("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
            "Files: *\nCopyright: A\nLicense: Expat or GPL-2+\n\n"
            "Files: third_party/*\nLicense: BSD-3-clause\n text of it\n\n"
            "Files: debian/*\nLicense: GPL-3\n")
    assert machine_readable(text) == ("Expat or GPL-2+", ("BSD-3-clause",))
    assert machine_readable("This package was debianized by hand.\nLicense: MIT") == ("", ())
    assert spdx_expression("Expat or GPL-2+") == "MIT OR GPL-2.0-or-later"
    assert spdx_expression("House rules") == "LicenseRef-Debian-House-rules"
    assert spdx_expression("") == ""


def test_the_same_content_has_the_same_name_and_other_content_another():
    def name(version: str) -> str:
        package = Package("SPDXRef-a", "a", version)
        return Document("a", _REVISION.time, [package]).to_json()["documentNamespace"]

    assert name("1") == name("1") != name("2")
