"""The system call filter of a unit, put on this process, which then becomes a program.

    seccomp.py FILTER PROGRAM [ARGUMENT ...]

FILTER is JSON: {"calls": [..], "families": [..], "deny_write_execute": bool}. As systemd does it,
by libseccomp: calls that are not allowed fail with EPERM.
"""

import ctypes
import errno
import json
import mmap
import os
import socket
import sys

_ALLOW = 0x7FFF0000
_FAIL = 0x00050000
_EQUAL, _MASKED_EQUAL = 4, 7
# Calls that take the protection of pages, and which of their arguments it is.
_PROTECTION = {"mmap": 2, "mprotect": 2, "pkey_mprotect": 2}


class _Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operation", ctypes.c_int),
                ("first", ctypes.c_uint64), ("second", ctypes.c_uint64)]


class _Filter:
    def __init__(self) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(_FAIL | errno.EPERM))

    def allow(self, call: str, *comparisons: _Comparison) -> None:
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return  # Another architecture's.
        rules = (_Comparison * len(comparisons))(*comparisons)
        result = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(_ALLOW), number, len(comparisons), rules)
        assert result == 0, f"no rule for {call}: {os.strerror(-result)}"

    def load(self) -> None:
        result = self._library.seccomp_load(self._context)
        assert result == 0, f"no filter: {os.strerror(-result)}"


def _restrict(calls: list[str], families: list[str], deny_write_execute: bool) -> None:
    calls_filter = _Filter()
    protected = _PROTECTION if deny_write_execute else {}
    for call in calls:
        if call in protected:
            _allow_without_write_execute(calls_filter, call, protected[call])
        elif call == "socket" and families:
            for family in families:
                calls_filter.allow(call, _Comparison(0, _EQUAL, getattr(socket, family), 0))
        else:
            calls_filter.allow(call)
    calls_filter.load()


def _allow_without_write_execute(calls: _Filter, call: str, argument: int) -> None:
    """New pages may be written or executed; pages that there are may not become executable."""
    both = mmap.PROT_WRITE | mmap.PROT_EXEC
    values = (0, mmap.PROT_WRITE, mmap.PROT_EXEC) if call == "mmap" else (0, mmap.PROT_WRITE)
    for value in values:
        calls.allow(call, _Comparison(argument, _MASKED_EQUAL, both, value))


def main() -> None:
    wanted = json.loads(sys.argv[1])
    _restrict(wanted["calls"], wanted["families"], wanted["deny_write_execute"])
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
