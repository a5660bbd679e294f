"""Where the coordinator is, when nobody says it."""

import os
import stat
from pathlib import Path

from muster.errors import MusterError


def find_coordinator(named: str | None = None) -> str:
    """"host:port": as named, as in $MUSTER_COORDINATOR, or of this user's last `musterctl up`.

    Raises:
      MusterError: none is known.
    """
    address = named or os.environ.get("MUSTER_COORDINATOR") or _recorded(_record())
    if not address:
        raise MusterError(
            "no fleet is known here: start one with `musterctl up --model DIR`, or name its "
            "coordinator with --coordinator HOST:PORT", "NOT_FOUND")
    return address


def _record() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # After `su` the variable may still be another user's.
    try:
        ours = bool(runtime) and os.stat(str(runtime)).st_uid == os.getuid() and os.access(
            str(runtime), os.W_OK)
    except OSError:
        ours = False
    directory = f"{runtime}/muster" if ours else f"/tmp/muster-{os.getuid()}"
    return Path(directory, "coordinator")


def _recorded(record: Path) -> str:
    """What a record says; empty where there is none that only this user may write."""
    try:
        facts = record.parent.lstat()
        # Anybody may create names in /tmp: another user's directory could send calls anywhere.
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
            return ""
        return record.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""
