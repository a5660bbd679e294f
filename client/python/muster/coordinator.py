"""Where the coordinator is, when nobody says it."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from muster.errors import MusterError
from muster.tls import TlsFolder, find_tls


@dataclass(frozen=True)
class FleetAddress:
    """Where a fleet is, and how it is reached.

    Attributes:
      coordinator: "host:port".
      tls: a folder as muster.client.Fleet takes it; "" for plaintext.
    """

    coordinator: str
    tls: str = ""


def find_fleet(named: str | None = None, tls: TlsFolder = None) -> FleetAddress:
    """As named, as in $MUSTER_COORDINATOR, or of this user's last `musterctl up`.

    Args:
      named: "host:port".
      tls: a folder; else that in $MUSTER_TLS, or the one of what the last `musterctl up` started.

    Raises:
      MusterError: none is known.
    """
    folder = find_tls(tls)
    address = named or os.environ.get("MUSTER_COORDINATOR")
    if address:
        return FleetAddress(address, folder)
    address, recorded_folder = _recorded(_record())
    if not address:
        raise MusterError(
            "no fleet is known here: start one with `musterctl up --model DIR`, or name its "
            "coordinator with --coordinator HOST:PORT", "NOT_FOUND")
    return FleetAddress(address, folder or recorded_folder)


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


def _recorded(record: Path) -> tuple[str, str]:
    """Address and folder of a record; empty where there is none that only this user may write."""
    try:
        facts = record.parent.lstat()
        # Anybody may create names in /tmp: another user's directory could send calls anywhere.
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
            return "", ""
        address, _, rest = record.read_text(encoding="utf-8").partition("\n")
        return address.strip(), rest.partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return "", ""
