"""Token ids to text as they come: whole characters only, and up to a text that ends it."""

from collections.abc import Callable, Sequence

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Turns the ids of one generation into pieces of text; joined they are the text of them all.

    A piece never ends inside a character: bytes wait until the token that completes them. Nor does
    it hold a part of a stop text: what may be the beginning of one waits until that is decided.

    Attributes:
      stopped: whether a stop text has come. It is not part of the pieces, nor is what follows it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()):
        """
        Args:
          decode: the text of a list of ids, with U+FFFD for what is no UTF-8.
          stop: texts at which the generation ends, however they are split into tokens.
        """
        self.stopped = False
        self._decode = decode
        self._stop = tuple(text for text in stop if text)
        # The tokens of the last piece, since a decoder may treat the first token of a text apart,
        # and those after it that wait.
        self._context: list[int] = []
        self._waiting: list[int] = []
        # Decoded, but perhaps the beginning of a stop text.
        self._held = ""

    def push(self, token: int) -> str:
        """The text that `token` completes; empty if it completes none."""
        if self.stopped:
            return ""
        self._waiting.append(token)
        piece = self._pending_text()
        if not piece or piece.endswith(_REPLACEMENT):
            return ""
        self._context, self._waiting = self._waiting, []
        return self._until_stop(piece, last=False)

    def finish(self) -> str:
        """What still waits when the generation ends, incomplete characters as U+FFFD."""
        if self.stopped:
            return ""
        piece = self._pending_text()
        self._context, self._waiting = [], []
        return self._until_stop(piece, last=True)

    def _pending_text(self) -> str:
        known = self._decode(self._context)
        return self._decode(self._context + self._waiting)[len(known):]

    def _until_stop(self, piece: str, last: bool) -> str:
        if not self._stop:
            return piece
        text = self._held + piece
        ends = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[:min(ends)]
        held = 0 if last else max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - held:]
        return text[:len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
