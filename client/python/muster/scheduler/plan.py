"""What a step and a fork are to the scheduler, within which limits, and how many there were."""

from dataclasses import dataclass, field

from muster.scheduler.prefixes import Entry
from muster.scheduler.request import Job
from muster.values import Model, Slice


@dataclass(frozen=True)
class Limits:
    """Of a step and of a replica.

    Attributes:
      rows: new tokens of one step.
      slices: sequences of one step.
      sequences: that may be held at once.
      context: tokens of the longest sequence.
      vocabulary: token ids lie below it.
      block_tokens: tokens per KV block.
      keep_prefixes: whether sequences that ended are kept to be forked, as long as there is room.
    """

    rows: int
    slices: int
    sequences: int
    context: int
    vocabulary: int
    block_tokens: int
    keep_prefixes: bool = True

    @staticmethod
    def of(model: Model, rows: int | None = None, keep_prefixes: bool = True) -> "Limits":
        """Those of a model; `rows` may lower the tokens of a step."""
        most = model.max_rows_per_step
        return Limits(
            min(rows or most, most), model.max_sequences_per_step, model.max_sequences or 256,
            model.max_positions, model.vocabulary, model.block_tokens or 16, keep_prefixes)


@dataclass
class Batch:
    """A step to run: a slice per job, and the KV blocks that each takes."""

    jobs: list[Job] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    rows: int = 0


@dataclass
class Counters:
    """What has happened so far.

    Attributes:
      prefilled: rows of prompts, those that ran again included.
      sampled: tokens generated.
      reused: tokens of prompts that did not run, since a fork held them.
    """

    prefilled: int = 0
    sampled: int = 0
    reused: int = 0
    forks: int = 0
    refusals: int = 0
    preemptions: int = 0
    rebuilds: int = 0


@dataclass(frozen=True)
class ForkPlan:
    """A fork to make: the first `tokens` of `source` become the sequence of `job`."""

    job: Job
    sequence_id: str
    source: Entry
    tokens: int
