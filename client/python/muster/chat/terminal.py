"""Where a person types, and reads the answers."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from muster.paper import Paper

_PROMPT = "> "


class Terminal:
    """Standard input and output: a terminal, or pipes."""

    def __init__(self) -> None:
        self.paper = Paper(sys.stdout)
        self._interactive = sys.stdin.isatty()
        self._answering = False
        # Whether Ctrl-C was pressed during this answer.
        self.interrupted = False
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._on_interrupt)

    def questions(self) -> Iterator[str]:
        """What the person says, line by line; ends with the input."""
        if self._interactive:
            import readline  # noqa: F401  Gives input() its history and its editing.
        while True:
            line = self._read_line()
            if line is None:
                return
            if line.strip():
                yield line.strip()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Within it Ctrl-C sets `interrupted`; pressed again, it is a KeyboardInterrupt."""
        self._answering, self.interrupted = True, False
        try:
            yield
        finally:
            self._answering = False

    def _read_line(self) -> str | None:
        if self._interactive:
            try:
                return input(_PROMPT)
            except EOFError:
                self.paper.line()
                return None
        line = sys.stdin.readline()
        if not line:
            return None
        self.paper.line(_PROMPT + line.rstrip("\n"))
        return line

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._answering or self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
