"""Becomes a container: run in the namespaces of a pod, with a mount namespace of its own.

    enter_container.py SPECIFICATION

SPECIFICATION is a JSON file as `Container` of pods.py writes it. Imports nothing of the project,
since it is on its way out of the file system that holds it.
"""

import ctypes
import json
import os
import subprocess
import sys

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_LAST_CAPABILITY = 40
_DEVICES = ("null", "zero", "full", "random", "urandom")


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _bind(source: str, target: str, read_only: bool) -> None:
    _mount("--bind", source, target)
    if read_only:
        _mount("-o", "remount,bind,ro", target)


def _make_devices(root: str) -> None:
    _mount("-t", "tmpfs", "-o", "mode=755,size=64k", "tmpfs", f"{root}/dev")
    os.mkdir(f"{root}/dev/shm", 0o1777)
    for name in _DEVICES:
        with open(f"{root}/dev/{name}", "wb"):
            pass
        _bind(f"/dev/{name}", f"{root}/dev/{name}", read_only=False)


def _build_root(root: str, specification: dict) -> None:
    """Its file system. Where things are mounted must be there before it is read-only."""
    for mount in specification["mounts"]:
        target = root + mount["target"]
        if os.path.isdir(mount["source"]):
            if not mount["target"].startswith("/dev/"):
                os.makedirs(target, exist_ok=True)
        elif not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb"):
                pass
    _bind(root, root, read_only=specification["read_only"])
    _mount("-t", "proc", "proc", f"{root}/proc")
    _make_devices(root)
    for mount in specification["mounts"]:
        _bind(mount["source"], root + mount["target"], mount["read_only"])


def _prctl(option: int, argument: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {argument})")


def _become(specification: dict) -> None:
    os.setgroups(specification["groups"])
    if specification["drop_capabilities"]:
        for capability in range(_LAST_CAPABILITY + 1):
            _prctl(_PR_CAPBSET_DROP, capability)
    os.setgid(specification["group"])
    os.setuid(specification["user"])
    if specification["no_new_privileges"]:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        specification = json.load(file)
    root = specification["root"]
    _build_root(root, specification)
    os.chroot(root)
    os.chdir("/")
    _become(specification)
    command = specification["command"]
    os.execve(command[0], command, specification["environment"])


if __name__ == "__main__":
    main()
