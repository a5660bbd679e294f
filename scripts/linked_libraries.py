"""What is really inside a program that Bazel linked, and what it loads when it starts.

The linker takes from an archive only what a program refers to, so that a name on its command line
proves nothing: an archive counts when one of its symbols stands in the program.
"""

import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BAZEL = ("bazel", "query", "--ui_event_filters=-info", "--noshow_progress", "--output=xml")
# Of initialised data, text, read-only data: what one archive alone defines.
_STRONG = frozenset("BDRT")


class LinkError(Exception):
    """It cannot be said what is linked; the text tells a person why."""


@dataclass(frozen=True)
class Dependency:
    """A library of third_party/ that a program depends on.

    Attributes:
      repository: Bazel's name for it, "grpc".
      archives: static archives that its rule names, whether or not they are used.
    """

    repository: str
    archives: tuple[Path, ...]


def dependencies_of(label: str, workspace: Path) -> list[Dependency]:
    rules = _query(f'kind(cc_library, filter("^@", deps({label})))', workspace)
    found = []
    for rule in rules:
        repository = rule.get("name", "").removeprefix("@").partition("//")[0]
        if repository == "bazel_tools":
            continue
        options = _strings(rule, "linkopts")
        files = [Path(_archive_name(it)) for it in _statically(options)]
        files += [_external(workspace) / repository / it.partition(":")[2]
                  for it in _strings(rule, "srcs") if it.endswith(".a")]
        found.append(Dependency(repository, tuple(file for file in files if file.is_absolute())))
    return found


def header_packages(workspace: Path) -> dict[str, list[str]]:
    """The Debian packages of the repositories of which nothing but headers is used."""
    rules = _query("kind(pkg_config_repository, //external:*)", workspace)
    found = {}
    for rule in rules:
        header_only = rule.find("./boolean[@name='header_only'][@value='true']")
        package = rule.find("./string[@name='debian_package']")
        if header_only is not None and package is not None:
            name = rule.get("name", "").removeprefix("//external:")
            found[name] = package.get("value", "").split()
    return found


def archives_within(program: Path, archives: Iterable[Path]) -> set[Path]:
    symbols = _symbols(program)
    if not symbols:
        raise LinkError(f"{program} has no symbols: it must be as the build left it, not stripped")
    return {archive for archive in set(archives) if not symbols.isdisjoint(_symbols(archive))}


def loaded_libraries(program: Path) -> set[Path]:
    """Shared libraries, of those that it names and of those that these name."""
    output = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    found = set()
    for line in output.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if "not found" in path:
            raise LinkError(f"{program} wants {name}, which is not here")
        if arrow:
            found.add(Path(path.split(" ")[0]))
    return found


@cache
def _symbols(file: Path) -> frozenset[str]:
    output = subprocess.run(["nm", "--defined-only", "--extern-only", "--format=posix", file],
                            capture_output=True, text=True, check=False).stdout
    words = (line.split(" ") for line in output.splitlines())
    return frozenset(word[0] for word in words if len(word) > 1 and word[1] in _STRONG)


def _query(expression: str, workspace: Path) -> list[ElementTree.Element]:
    answer = subprocess.run([*_BAZEL, expression], cwd=workspace, capture_output=True, text=True,
                            check=False)
    if answer.returncode != 0:
        raise LinkError(f"bazel query failed: {answer.stderr.strip()}")
    # Bazel writes XML 1.1, of which it uses nothing, and which the parser does not read.
    text = answer.stdout.replace('version="1.1"', 'version="1.0"', 1)
    return list(ElementTree.fromstring(text).iter("rule"))


def _external(workspace: Path) -> Path:
    """Bazel's repositories: beside the folder in which it runs its commands."""
    return (workspace / "out/bazel-out").resolve().parents[2] / "external"


def _strings(rule: ElementTree.Element, attribute: str) -> list[str]:
    values = rule.find(f"./list[@name='{attribute}']")
    return [] if values is None else [value.get("value", "") for value in values]


def _statically(options: list[str]) -> list[str]:
    """The -l options between -Bstatic and -Bdynamic."""
    names = []
    static = False
    for option in options:
        if option.startswith("-Wl,-B"):
            static = option == "-Wl,-Bstatic"
        elif static and option.startswith("-l"):
            names.append(option.removeprefix("-l"))
    return names


@cache
def _archive_name(library: str) -> str:
    return subprocess.run(["g++", f"-print-file-name=lib{library}.a"], capture_output=True,
                          text=True, check=True).stdout.strip()
