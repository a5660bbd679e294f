"""The sequences and KV blocks of a replica, as far as its client can know them."""

from collections.abc import Sequence

from muster.scheduler.prefixes import Entry, Prefixes
from muster.scheduler.request import Job
from muster.values import Capacity


class Pool:
    """Counts blocks, and keeps the sequences that ended until their room is needed.

    The count is an estimate between two reports: the replica refuses what does not fit.
    """

    def __init__(self, block_tokens: int, sequences: int, keep_prefixes: bool):
        """
        Args:
          block_tokens: tokens per KV block.
          sequences: that may be held at once.
          keep_prefixes: whether a sequence may begin as a fork of another.
        """
        self.block_tokens = block_tokens
        self.total_blocks = 0
        self._sequences = sequences
        self._keep = keep_prefixes
        self._prefixes = Prefixes(block_tokens)
        self._entries: dict[Job, Entry] = {}
        self._freed: list[str] = []
        self._urgent = False
        # None: not known; then the replica is asked by trying.
        self._free_blocks: int | None = None

    @property
    def idle(self) -> int:
        """Sequences that are kept only to be forked."""
        return self._prefixes.idle

    # --- Blocks.

    def blocks(self, tokens: int) -> int:
        """KV blocks that so many tokens fill."""
        return -(-tokens // self.block_tokens)

    def growth(self, job: Job, rows: int) -> int:
        """KV blocks that a job takes with so many rows."""
        return self.blocks(job.held + rows) - self.blocks(job.held)

    def growth_of_fork(self, tokens: int) -> int:
        """KV blocks that a fork takes when it goes on behind so many tokens."""
        return self.blocks(tokens) - tokens // self.block_tokens

    def report(self, capacity: Capacity, on_their_way: int) -> bool:
        """What the replica says of its blocks; returns whether more are free than was known.

        Args:
          capacity: as of now.
          on_their_way: blocks of steps that may not be counted there yet.
        """
        free = max(0, capacity.free_blocks - on_their_way)
        more = self._free_blocks is None or free > self._free_blocks
        self._free_blocks, self.total_blocks = free, capacity.total_blocks
        return more

    def exhausted(self) -> None:
        """A step was refused: whatever was counted, no block is free."""
        self._free_blocks = 0

    def fits(self, blocks: int) -> bool:
        return self._free_blocks is None or blocks <= self._free_blocks

    def take(self, job: Job, blocks: int) -> None:
        job.blocks += blocks
        if self._free_blocks is not None:
            self._free_blocks = max(0, self._free_blocks - blocks)

    def untake(self, job: Job, blocks: int) -> None:
        """What was taken for a step that did not run."""
        job.blocks -= blocks
        if self._free_blocks is not None:
            self._free_blocks += blocks

    def make_room(self, blocks: int, keep: Entry | None = None) -> bool:
        """Whether so many blocks fit; kept sequences other than `keep` are freed for it."""
        while not self.fits(blocks):
            if not self.evict(keep):
                return False
        return True

    def make_place(self, running: int, keep: Entry | None = None) -> bool:
        """Whether one more sequence can be held; kept ones other than `keep` are freed for it."""
        while running + self._prefixes.idle >= self._sequences:
            if not self.evict(keep):
                return False
        return True

    def evict(self, keep: Entry | None = None) -> bool:
        """Frees the kept sequence that was of no use for longest; False if there is none."""
        entry = self._prefixes.evict(keep)
        if entry is None:
            return False
        self._urgent = True
        self._give_back(entry.sequence_id, entry.blocks)
        return True

    def take_freed(self) -> tuple[list[str], bool]:
        """Sequences to free, each named once, and whether their blocks are counted on."""
        freed, urgent = self._freed, self._urgent
        self._freed, self._urgent = [], False
        return freed, urgent

    # --- Sequences.

    def prepare(self, job: Job) -> None:
        """Of a job that has come: what looking for its beginnings needs."""
        if self._keep and not job.digests:
            job.digests = tuple(self._prefixes.digests(job.tokens))

    def longest(self, tokens: Sequence[int],
                digests: Sequence[int] | None = None) -> tuple[Entry | None, int]:
        """The sequence with most in common with `tokens`, and how many tokens; (None, 0): none.

        At least one token is left to run.
        """
        match = self._prefixes.longest(tokens, digests) if self._keep else None
        return (match[0], min(match[1], len(tokens) - 1)) if match else (None, 0)

    def track(self, job: Job) -> None:
        """Lets later jobs begin as this one."""
        if self._keep:
            entry = Entry(job.sequence_id, job.tokens, job.held, job.blocks)
            self._entries[job] = entry
            self._prefixes.add(entry, job.digests)

    def advance(self, job: Job) -> None:
        """The job holds more tokens than before."""
        if entry := self._entries.get(job):
            entry.held, entry.blocks = job.held, job.blocks

    def retire(self, job: Job, keep: bool) -> None:
        """The job has ended: its sequence is kept to be forked, or freed."""
        entry = self._entries.pop(job, None)
        if entry is None:
            self._give_back(job.sequence_id, job.blocks)
            return
        # What was sampled last has not run.
        entry.tokens = job.tokens[:job.held]
        entry.held, entry.blocks = job.held, job.blocks
        if keep and job.held >= self.block_tokens:
            self._prefixes.rest(entry)
        else:
            self._drop(entry)

    def forget(self, job: Job) -> None:
        """The job's sequence is of no use any more, though the job goes on."""
        entry = self._entries.pop(job, None)
        if entry is None:
            self._give_back(job.sequence_id, job.blocks)
        else:
            entry.blocks = job.blocks
            self._drop(entry)

    def pin(self, entry: Entry) -> None:
        """The entry is about to be forked, and must not be freed meanwhile."""
        entry.pins += 1
        self._prefixes.touch(entry)

    def unpin(self, entry: Entry, usable: bool) -> None:
        """A fork has come about (`usable`), or the entry has shown itself to be of no use."""
        entry.pins -= 1
        if (entry.doomed or (entry.idle and not usable)) and entry.pins == 0:
            entry.doomed = False
            self._drop(entry)

    def free_name(self, sequence_id: str) -> None:
        """Frees a sequence of which it is not known whether it exists."""
        self._freed.append(sequence_id)

    def _drop(self, entry: Entry) -> None:
        self._prefixes.remove(entry)
        if entry.pins:
            entry.doomed = True
        else:
            self._give_back(entry.sequence_id, entry.blocks)

    def _give_back(self, sequence_id: str, blocks: int) -> None:
        self._freed.append(sequence_id)
        if self._free_blocks is not None:
            self._free_blocks = min(self._free_blocks + blocks, self.total_blocks)
