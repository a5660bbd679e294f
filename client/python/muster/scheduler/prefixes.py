"""Which sequences begin with which tokens, so that a new one can begin as a fork."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from muster.history import common_prefix


@dataclass(eq=False)
class Entry:
    """A sequence that the replica holds, or is about to.

    Attributes:
      tokens: its history; may be longer than what is held.
      held: how many tokens a fork can take.
      blocks: KV blocks that are given back when it is freed.
      idle: whether it is kept only to be forked.
      pins: forks of it that are on their way; it must not be freed meanwhile.
      doomed: whether it is to be freed with its last pin.
      indexed: digests under which it is found.
    """

    sequence_id: str
    tokens: list[int]
    held: int = 0
    blocks: int = 0
    idle: bool = False
    pins: int = 0
    doomed: bool = False
    indexed: list[int] = field(default_factory=list)


class Prefixes:
    """An index of histories by their beginnings, in whole KV blocks.

    A history has a digest for each of its whole blocks, of all tokens up to the block's end.
    """

    def __init__(self, block_tokens: int):
        self._block = block_tokens
        self._by_digest: dict[int, list[Entry]] = {}
        # Least recently used first.
        self._idle: OrderedDict[str, Entry] = OrderedDict()

    @property
    def idle(self) -> int:
        """How many entries are idle."""
        return len(self._idle)

    def digests(self, tokens: Sequence[int]) -> Iterator[int]:
        digest = 0
        for end in range(self._block, len(tokens) + 1, self._block):
            digest = hash((digest, *tokens[end - self._block:end]))
            yield digest

    def add(self, entry: Entry, digests: Iterable[int] | None = None) -> None:
        """Makes an entry known by its tokens, or by further ones when they have grown.

        Args:
          entry: to be found by `longest` from now on.
          digests: of its tokens, where they are known.
        """
        for place, digest in enumerate(digests or self.digests(entry.tokens)):
            if place >= len(entry.indexed):
                entry.indexed.append(digest)
                self._by_digest.setdefault(digest, []).append(entry)

    def remove(self, entry: Entry) -> None:
        for digest in entry.indexed:
            entries = self._by_digest[digest]
            entries.remove(entry)
            if not entries:
                del self._by_digest[digest]
        entry.indexed.clear()
        self._idle.pop(entry.sequence_id, None)

    def rest(self, entry: Entry) -> None:
        """The entry's sequence has ended, and is kept as long as there is room."""
        self.add(entry)
        entry.idle = True
        self._idle[entry.sequence_id] = entry

    def longest(self, tokens: Sequence[int],
                digests: Iterable[int] | None = None) -> tuple[Entry, int] | None:
        """The entry that has most in common with the beginning of `tokens`, and how many tokens.

        At least a block in common is worth a fork. Of equal ones it prefers what is held already.

        Args:
          tokens: of a history.
          digests: its digests, where they are known.
        """
        candidates: list[Entry] = []
        for digest in digests or self.digests(tokens):
            found = self._by_digest.get(digest)
            if not found:
                break
            candidates = found
        best: Entry | None = None
        most = (self._block - 1, 0)
        for entry in candidates:
            # Digests may collide: the tokens decide.
            common = common_prefix(entry.tokens, tokens)
            if (gain := (common, min(entry.held, common))) > most and common >= self._block:
                best, most = entry, gain
        return (best, most[0]) if best else None

    def touch(self, entry: Entry) -> None:
        """The entry is of use."""
        if entry.sequence_id in self._idle:
            self._idle.move_to_end(entry.sequence_id)

    def evict(self, keep: Entry | None = None) -> Entry | None:
        """Takes out the idle entry that was of no use for longest; None: there is none."""
        for entry in self._idle.values():
            if entry.pins == 0 and entry is not keep:
                self.remove(entry)
                return entry
        return None
