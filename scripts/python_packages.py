"""The Python packages of client/python/requirements.txt and all that these need, as installed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spdx import is_expression

# Below this line of requirements.txt stands what only tests need.
_TESTS = "# Tests"

_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
# What packages write into the field that has no rules, beside expressions of SPDX.
_FREE_TEXT = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
}
# Metadata that say no more than "BSD" or print the whole text, as a person read the file LICENSE.
_READ_BY_HAND = {
    "contourpy": "BSD-3-Clause",
    "cycler": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "matplotlib": "PSF-2.0",
    "numpy": "BSD-3-Clause",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
}


@dataclass(frozen=True)
class PythonPackage:
    """`expression` is the licence by SPDX, or "" where the metadata do not tell."""

    name: str
    version: str
    expression: str
    read_by_hand: bool
    homepage: str
    for_tests: bool


def installed_packages(requirements: Path) -> list[PythonPackage]:
    """All that `requirements` leads to. What client and tests both need is the client's."""
    found: dict[str, PythonPackage] = {}
    for name, for_tests in sorted(_roots(requirements.read_text()), key=lambda root: root[1]):
        for package in _with_needs(name, for_tests, found):
            found[canonicalize_name(package.name)] = package
    return sorted(found.values(), key=lambda package: package.name.lower())


def _roots(text: str) -> Iterator[tuple[str, bool]]:
    for_tests = False
    for line in text.splitlines():
        for_tests = for_tests or line.startswith(_TESTS)
        if line and not line.startswith("#"):
            yield Requirement(line).name, for_tests


def _with_needs(root: str, for_tests: bool,
                known: dict[str, PythonPackage]) -> Iterator[PythonPackage]:
    waiting, seen = [root], set(known)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # Its marker is true, and yet pip did without: an extra of an extra.
        yield _described(found, for_tests)
        needs = map(Requirement, found.requires or ())
        waiting += [need.name for need in needs
                    if need.marker is None or need.marker.evaluate({"extra": ""})]


def _described(found: Distribution, for_tests: bool) -> PythonPackage:
    name = found.metadata["Name"]
    expression, read_by_hand = _licence(found)
    urls = dict(url.split(", ", 1) for url in found.metadata.get_all("Project-URL") or ())
    homepage = _value(found, "Home-page") or next(
        (urls[key] for key in urls if key.lower() in ("homepage", "home", "source")), "")
    return PythonPackage(name, found.version, expression, read_by_hand, homepage, for_tests)


def _licence(found: Distribution) -> tuple[str, bool]:
    if expression := _value(found, "License-Expression"):
        return expression, False
    if by_hand := _READ_BY_HAND.get(canonicalize_name(found.metadata["Name"])):
        return by_hand, True
    text = _value(found, "License").strip()
    if is_expression(text):
        return text, False
    if words := _FREE_TEXT.get(text.lower()):
        return words, False
    for classifier in found.metadata.get_all("Classifier") or ():
        last = re.split(r"\s*::\s*", classifier)[-1]
        if classifier.startswith("License ::") and last in _CLASSIFIERS:
            return _CLASSIFIERS[last], False
    return "", False


def _value(found: Distribution, key: str) -> str:
    return found.metadata[key] if key in found.metadata else ""
