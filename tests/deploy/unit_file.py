"""Units of systemd, and what they set."""

import subprocess
from collections import defaultdict
from pathlib import Path


class UnitFile:
    """The settings of a unit; one that stands there more than once has all its values."""

    def __init__(self, text: str):
        self._values: dict[str, list[str]] = defaultdict(list)
        for line in text.splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and not name.startswith(("#", ";", "[")):
                self._values[name].append(value)

    @staticmethod
    def read(*paths: Path) -> "UnitFile":
        """A unit and the drop-ins that go over it."""
        return UnitFile("\n".join(path.read_text() for path in paths))

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def last(self, name: str) -> str:
        """The value that counts; "" where there is none."""
        return self._values[name][-1] if self._values.get(name) else ""

    def is_on(self, name: str) -> bool:
        return self.last(name) in ("yes", "true", "on", "1")

    def seconds(self, name: str) -> int:
        return int(self.last(name))

    def system_calls(self) -> frozenset[str]:
        """What SystemCallFilter= leaves; systemd adds @default to every list of what is allowed."""
        allowed = set(_members("@default"))
        for value in self.all("SystemCallFilter"):
            remove = value.startswith("~")
            for word in value.removeprefix("~").split():
                names = _members(word) if word.startswith("@") else {word}
                allowed = allowed - names if remove else allowed | names
        return frozenset(allowed)


def _members(group: str) -> set[str]:
    """Of a group of calls, the groups in it resolved."""
    output = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter", group],
                            capture_output=True, text=True, check=True).stdout
    words = [line.strip() for line in output.splitlines()[1:]]
    found = {word for word in words if word and not word.startswith(("#", "@"))}
    return found.union(*(_members(word) for word in words if word.startswith("@")))
