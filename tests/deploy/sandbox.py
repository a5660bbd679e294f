"""Starts a program under the settings of a unit, where systemd is not the first process.

What is put into effect: User= (as a number that nobody has), CapabilityBoundingSet=,
NoNewPrivileges=, UMask=, ProtectSystem=strict, ProtectHome=, ProtectProc=, ProcSubset=, PrivateIPC=,
PrivateTmp= (of /var/tmp), PrivateUsers=, SystemCallFilter=, RestrictAddressFamilies=,
MemoryDenyWriteExecute=. Needs root.
"""

import json
import shlex
import sys
from pathlib import Path

from unit_file import UnitFile

_HERE = Path(__file__).resolve().parent
TOOLS = ("systemd-analyze", "unshare", "setpriv", "mount")


def command(unit: UnitFile, user: int, program: list[str]) -> list[str]:
    """The command that starts `program`."""
    calls = json.dumps({
        "calls": sorted(unit.system_calls()),
        "families": unit.last("RestrictAddressFamilies").split(),
        "deny_write_execute": unit.is_on("MemoryDenyWriteExecute")})
    inside = [*_as_user(unit, user), sys.executable, str(_HERE / "seccomp.py"), calls, *program]
    script = "\n".join(["set -e", *_mounts(unit), f"umask {unit.last('UMask') or '0022'}",
                        "exec " + shlex.join(inside)])
    namespaces = ["--mount", "--propagation", "private"]
    namespaces += ["--ipc"] if unit.is_on("PrivateIPC") else []
    return ["unshare", *namespaces, "sh", "-c", script]


def _as_user(unit: UnitFile, user: int) -> list[str]:
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
    words += ["--bounding-set=-all"] if unit.all("CapabilityBoundingSet") == [""] else []
    words += ["--no-new-privs"] if unit.is_on("NoNewPrivileges") else []
    # A user namespace in which only this user is mapped, to itself.
    alone = ["unshare", "--user", f"--map-user={user}", f"--map-group={user}"]
    return words + (alone if unit.is_on("PrivateUsers") else [])


def _mounts(unit: UnitFile) -> list[str]:
    lines = []
    options = [f"hidepid={unit.last('ProtectProc')}"] if unit.last("ProtectProc") else []
    options += ["subset=pid"] if unit.last("ProcSubset") == "pid" else []
    if options:
        lines.append(f"mount -t proc -o {','.join(options)} proc /proc")
    if unit.is_on("ProtectHome"):
        lines += ["mount -t tmpfs -o mode=0755,ro tmpfs /home"]
    if unit.is_on("PrivateTmp"):
        lines.append("mount -t tmpfs -o mode=1777 tmpfs /var/tmp")
    if unit.last("ProtectSystem") == "strict":
        lines.append("mount -o remount,bind,ro /")
    return lines
