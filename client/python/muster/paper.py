"""What programs write for people."""

import os
import shutil
from collections.abc import Sequence
from typing import TextIO

_MARGIN = "  "
_LABEL = 11


class Paper:
    """A stream for people: titles, facts, and text that arrives piece by piece."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        live = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._color = live and not os.environ.get("NO_COLOR")
        self._width = min(100, shutil.get_terminal_size((80, 24)).columns) - len(_MARGIN)
        # Of the line that flows: columns written, spaces held back, and the word that still grows.
        self._column = 0
        self._spaces = 0
        self._word = ""
        self._notes: list[str] = []

    def title(self, text: str) -> None:
        self.line(f"\033[1m{text}\033[0m" if self._color else text)

    def line(self, text: str = "") -> None:
        print(text, file=self.stream, flush=True)

    def fact(self, label: str, text: str) -> None:
        self.line(f"{_MARGIN}{label:<{_LABEL}}{text}")

    def note(self, label: str, items: Sequence[str]) -> None:
        """A fact of several items, in lines that fit; within a running text it stands apart.

        The line of the text that is being written ends first.
        """
        self._notes += _fill(label, items, self._width)
        if not self._column:
            self._put_notes()

    def flow(self, piece: str) -> None:
        """Adds to a running text, broken between words where the terminal ends."""
        for character in piece:
            if character == " ":
                self._put_word()
                self._spaces += 1
            elif character == "\n":
                self._put_word()
                self._break()
            else:
                self._word += character
        self.stream.flush()

    def end_flow(self) -> None:
        self._put_word()
        self._break()
        self.stream.flush()

    def _put_word(self) -> None:
        word, self._word = self._word, ""
        if not word:
            return
        if self._column and self._column + self._spaces + len(word) > self._width:
            self._break()
        lead = " " * self._spaces
        self.stream.write((lead if self._column else _MARGIN + lead) + word)
        self._column += len(lead) + len(word)
        self._spaces = 0

    def _break(self) -> None:
        self.stream.write("\n")
        self._column = self._spaces = 0
        self._put_notes()

    def _put_notes(self) -> None:
        notes, self._notes = self._notes, []
        if notes:
            self.stream.write("\n" + "".join(f"{_MARGIN}{line}\n" for line in notes) + "\n")


def _fill(label: str, items: Sequence[str], width: int) -> list[str]:
    """The items behind a label, joined by commas, in lines of at most `width` columns."""
    lines = [f"{label:<{_LABEL}}{items[0]}"]
    for item in items[1:]:
        if len(lines[-1]) + len(item) + 3 <= width:
            lines[-1] += f", {item}"
        else:
            lines[-1] += ","
            lines.append(" " * _LABEL + item)
    return lines
