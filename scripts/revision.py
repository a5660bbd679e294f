"""Which Muster a checkout is: its release, its commit and when that was made."""

import os
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path


@dataclass(frozen=True)
class Revision:
    """`release` is the one that this leads to, "0.1.0"; `changed` is whether the checkout has
    changes that are in no commit."""

    release: str
    commit: str
    time: datetime
    changed: bool

    @staticmethod
    def of(repository: Path) -> "Revision":
        """SOURCE_DATE_EPOCH decides the time, as it does for all reproducible builds. Outside a git
        checkout the commit is "unknown", and its time is now."""
        commit = _git(repository, "rev-parse", "--short=10", "HEAD")
        seconds = os.environ.get("SOURCE_DATE_EPOCH") or _git(repository, "log", "-1",
                                                              "--format=%ct")
        time = datetime.fromtimestamp(int(seconds), timezone.utc) if seconds else \
            datetime.now(timezone.utc).replace(microsecond=0)
        return Revision(_release(repository), commit or "unknown", time,
                        bool(commit and _git(repository, "status", "--porcelain")))

    def version(self) -> str:
        """As Debian orders versions: before the release, by time, "0.1.0~git20260131123059.0123456789"."""
        changed = ".changed" if self.changed else ""
        return f"{self.release}~git{self.time:%Y%m%d%H%M%S}.{self.commit}{changed}"


def _release(repository: Path) -> str:
    header = repository / "base/version.h"
    found = re.search(r'kVersion\[\] = "([^"]+)"', header.read_text()) if header.exists() else None
    return found[1] if found else "0"


def _git(repository: Path, *words: str) -> str:
    try:
        answer = subprocess.run(["git", *words], cwd=repository, capture_output=True, text=True,
                                check=False)
    except FileNotFoundError:
        return ""
    return answer.stdout.strip()
