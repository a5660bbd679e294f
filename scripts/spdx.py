"""Lists of packages in the format of SPDX 2.3, as JSON (https://spdx.github.io/spdx-spec/v2.3/)."""

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

NO_ASSERTION = "NOASSERTION"

# The licences of SPDX's list that some dependency has, and the exceptions to them.
LICENCES = frozenset((
    "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "GPL-2.0-or-later",
    "GPL-3.0-or-later", "ISC", "LGPL-2.1-or-later", "LGPL-3.0-or-later", "MIT", "MIT-CMU",
    "MPL-2.0", "PSF-2.0", "Zlib", "curl"))
EXCEPTIONS = frozenset(("GCC-exception-3.1", "fmt-exception"))

_NAMESPACE = uuid.UUID("6f1d3a52-5d0c-4c63-9d2e-0b8f7b1f5a10")


@dataclass(frozen=True)
class Package:
    """One entry of the list.

    Attributes:
      id: unique within the document; see spdx_id.
      declared: licence by its makers, an SPDX expression, or "" where none is known.
      concluded: licence as a person read it; "" where nobody had to.
      purls: package URLs (https://github.com/package-url/purl-spec).
      supplier: "Organization: ..", "Person: .." or NO_ASSERTION.
      comment: for people.
    """

    id: str
    name: str
    version: str = ""
    declared: str = ""
    concluded: str = ""
    purls: tuple[str, ...] = ()
    supplier: str = NO_ASSERTION
    homepage: str = ""
    source: str = ""
    comment: str = ""

    def licence(self) -> str:
        return self.concluded or self.declared or NO_ASSERTION

    def to_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "SPDXID": self.id, "name": self.name, "downloadLocation": NO_ASSERTION,
            "filesAnalyzed": False, "supplier": self.supplier, "copyrightText": NO_ASSERTION,
            "licenseDeclared": self.declared or NO_ASSERTION,
            "licenseConcluded": self.licence()}
        optional = {"versionInfo": self.version, "homepage": self.homepage,
                    "sourceInfo": self.source, "comment": self.comment}
        entry.update({key: value for key, value in optional.items() if value})
        if self.purls:
            entry["externalRefs"] = [
                {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                 "referenceLocator": purl} for purl in self.purls]
        return entry


@dataclass(frozen=True, order=True)
class Relationship:
    """`kind` as SPDX names it: "STATIC_LINK", "DYNAMIC_LINK", "CONTAINS", .."""

    element: str
    kind: str
    related: str
    comment: str = ""

    def to_json(self) -> dict[str, str]:
        entry = {"spdxElementId": self.element, "relationshipType": self.kind,
                 "relatedSpdxElement": self.related}
        return entry | ({"comment": self.comment} if self.comment else {})


@dataclass
class Document:
    """`root` is what the document describes; it is the first of `packages`."""

    name: str
    created: datetime
    packages: list[Package]
    relationships: list[Relationship] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        packages = [package.to_json() for package in self.packages]
        links = [link.to_json() for link in self._links()]
        # The same content has the same name, and other content another.
        unique = uuid.uuid5(_NAMESPACE, repr((self.name, self.created, packages, links)))
        return {
            "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
            "name": self.name,
            "documentNamespace": f"https://spdx.org/spdxdocs/{self.name}-{unique}",
            "creationInfo": {"created": f"{self.created:%Y-%m-%dT%H:%M:%SZ}",
                             "creators": ["Tool: muster-sbom"]},
            "packages": packages, "relationships": links,
            "hasExtractedLicensingInfos": [_extracted(name) for name in self._own_licences()]}

    def _links(self) -> list[Relationship]:
        described = Relationship("SPDXRef-DOCUMENT", "DESCRIBES", self.packages[0].id)
        return [described, *sorted(set(self.relationships))]

    def _own_licences(self) -> list[str]:
        expressions = " ".join(f"{it.declared} {it.concluded}" for it in self.packages)
        return sorted(set(re.findall(r"LicenseRef-[A-Za-z0-9.-]+", expressions)))


def spdx_id(*words: str) -> str:
    """From words that name a package: "libstdc++6" becomes "SPDXRef-libstdcpp6"."""
    plain = "-".join(words).replace("+", "p")
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", plain)


def is_expression(text: str) -> bool:
    """Whether `text` is a licence expression of SPDX made of licences that are known here."""
    words = text.replace("(", " ").replace(")", " ").split()
    return bool(words) and all(
        word in ("AND", "OR", "WITH") or word in LICENCES or word in EXCEPTIONS or
        word.startswith("LicenseRef-") for word in words)


def count_without_licence(packages: Iterable[Package]) -> int:
    return sum(package.licence() == NO_ASSERTION for package in packages)


def _extracted(name: str) -> dict[str, str]:
    return {"licenseId": name, "name": name.removeprefix("LicenseRef-"),
            "extractedText": "The text is in the package's own copyright file."}
