"""`musterctl top` in a terminal: what it draws, and how it leaves the terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
from fleets import PATIENCE, PROMISE, assert_one_line, await_that

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
ESCAPE = re.compile(rb"\x1b\[[?0-9;]*[a-zA-Z]")


@pytest.fixture
def fleet(programs):
    return programs.up("llama-mha12", cp=2)


class Terminal:
    """A terminal with `musterctl top` in it."""

    def __init__(self, programs, columns: int = 80, rows: int = 24, **variables: str):
        self._master, self.slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(self.slave)
        self.output = b""
        self._child = subprocess.Popen(
            [str(programs.bin / "musterctl"), "top", "--interval", "0.2"], stdin=self.slave,
            stdout=self.slave, stderr=self.slave, start_new_session=True,
            env={**os.environ, "TERM": "xterm", **variables})
        self.pid = self._child.pid

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def read(self) -> bytes:
        """What came until now; kept in `output` as well."""
        came = b""
        while select.select([self._master], [], [], 0.01)[0]:
            came += os.read(self._master, 65536)
        self.output += came
        return came

    def await_text(self, text: bytes) -> None:
        await_that(lambda: self.read() and text in self.output, f"{text!r} is drawn")

    def frame(self) -> list[str]:
        """The lines of the last frame that is complete."""
        frames = self.output.split(b"\x1b[H")
        return [ESCAPE.sub(b"", line).decode().strip("\r")
                for line in frames[-2].split(b"\n")]

    def end(self, timeout: float = PROMISE) -> int:
        """Waits for the end; the exit status."""
        deadline = time.monotonic() + timeout
        while self._child.poll() is None:
            assert time.monotonic() < deadline, "it goes on"
            self.read()
        self.read()
        return self._child.returncode

    def assert_restored(self) -> None:
        assert termios.tcgetattr(self.slave) == self.before
        assert self.output.count(ENTER) == self.output.count(LEAVE) > 0
        tail = self.output[self.output.rindex(LEAVE) - 30:]
        assert b"\x1b[?25h" in tail and b"\x1b[?7h" in tail
        assert self.output.rindex(LEAVE) > self.output.rindex(ENTER)

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        os.close(self.slave)
        os.close(self._master)


@pytest.fixture
def open_terminal(programs, fleet):
    fleet.await_event("serving")
    terminals = []

    def start(*size: int, **variables: str) -> Terminal:
        terminals.append(Terminal(programs, *size, **variables))
        terminals[-1].await_text(b"REPLICA 0")
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


@pytest.mark.parametrize("columns, rows", [(80, 24), (200, 50)])
def test_it_fills_the_terminal_and_no_more(open_terminal, columns, rows):
    terminal = open_terminal(columns, rows)
    terminal.await_text(b"q quits")
    await_that(lambda: terminal.read() and "SERVING" in "".join(terminal.frame()),
               "a heartbeat tells of the state")
    lines = terminal.frame()
    assert len(lines) == rows and max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert all(part in text for part in ("w0", "w1", "SERVING", "steps/s", "tokens/s", "queue"))
    assert ("TOKENS/S" in text) == (columns == 200)


def test_it_follows_the_size_of_the_terminal(open_terminal):
    terminal = open_terminal(80, 24)
    terminal.resize(120, 30)
    terminal.await_text(b"TOKENS/S")
    await_that(lambda: terminal.read() and len(terminal.frame()) == 30, "it is drawn anew")


@pytest.mark.parametrize("keys", [b"q", b"\x03"])
def test_a_key_ends_it_and_the_terminal_is_as_it_was(open_terminal, keys):
    terminal = open_terminal()
    assert termios.tcgetattr(terminal.slave) != terminal.before
    terminal.type(keys)
    assert terminal.end() == 0
    terminal.assert_restored()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_it_was(open_terminal, number):
    terminal = open_terminal()
    os.kill(terminal.pid, number)
    assert terminal.end() == 0
    terminal.assert_restored()


def test_suspended_it_gives_the_terminal_back_and_takes_it_again(open_terminal):
    terminal = open_terminal()
    terminal.type(b"\x1a")
    terminal.await_text(LEAVE)
    assert termios.tcgetattr(terminal.slave) == terminal.before
    os.kill(terminal.pid, signal.SIGCONT)
    await_that(lambda: terminal.read() and terminal.output.count(ENTER) == 2, "it is back")
    terminal.type(b"q")
    assert terminal.end() == 0
    terminal.assert_restored()


def test_a_coordinator_that_is_lost_is_shown_beside_what_was_known(open_terminal, fleet):
    terminal = open_terminal()
    fleet.stop()
    terminal.await_text(b"no coordinator answers")
    assert any("w0" in line for line in terminal.frame())
    terminal.type(b"q")
    assert terminal.end() == 0
    terminal.assert_restored()


def test_no_color_is_honoured(open_terminal):
    terminal = open_terminal(NO_COLOR="1")
    assert not re.search(rb"\x1b\[[1-9][0-9]*m", terminal.output)


def test_without_a_fleet_the_terminal_is_not_taken(programs):
    terminal = Terminal(programs)
    try:
        assert terminal.end(PATIENCE) == 1
        assert ENTER not in terminal.output and b"musterctl: no fleet is known" in terminal.output
    finally:
        terminal.close()


def test_elsewhere_it_prints_reports(programs, fleet):
    fleet.await_event("serving")
    once = programs.musterctl("top", "--once", "--interval", "0.5")
    assert once.returncode == 0 and "\x1b" not in once.stdout
    assert once.stdout.count("REPLICA 0") == 1 and "q quits" not in once.stdout
    report = json.loads(programs.musterctl("top", "--once", "--json").stdout)
    assert report["replicas"][0]["steps_per_second"] is not None
    assert [worker["rank"] for worker in report["workers"]] == [0, 1]


def test_an_interval_of_nothing_is_refused(programs):
    assert_one_line(programs.musterctl("top", "--interval", "0"), "--interval", status=2)
