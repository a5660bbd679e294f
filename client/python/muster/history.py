"""What a sequence is to its client, and how it grows, without a word about how calls are made.

`growth` is a generator that yields the steps to run and is sent their results. Blocking and asyncio
sequences drive the same one.
"""

import secrets
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from muster.errors import MusterError
from muster.values import Sampling, Slice, StepResult, Token

# How often in a row a replica may have lost a sequence before its client gives up.
_REBUILDS = 3


@dataclass
class History:
    """A sequence's name and the tokens that the replica holds of it.

    Attributes:
      sequence_id: changes when the sequence is built anew.
      tokens: held by the replica.
      epoch: in which the last step ran; None before there was one.
      prefilled: tokens that have been run so far, those of rebuilding included.
    """

    sequence_id: str = field(default_factory=lambda: new_sequence_id())
    tokens: list[int] = field(default_factory=list)
    epoch: int | None = None
    prefilled: int = 0


@dataclass(frozen=True)
class Step:
    """A step to run: one slice, and the epoch in which it must."""

    piece: Slice
    expected_epoch: int | None


Growth = Generator[Step, StepResult, Token | None]


def new_sequence_id() -> str:
    return f"sequence-{secrets.token_hex(8)}"


def growth(history: History, tokens: Sequence[int], rows: int, sampling: Sampling | None,
           top_n: int = 0) -> Growth:
    """Appends tokens in chunks; with `sampling` it returns the token chosen after the last one.

    A sequence whose epoch has changed goes on in the new one where it was kept, and is built anew
    from its tokens where it was not.

    Args:
      history: grows by `tokens`; where an error is raised, by those that were run.
      tokens: at least one.
      rows: tokens per step.
      sampling: None: do not sample.
      top_n: how many most likely tokens to return with the sampled one.
    """
    pending = list(tokens)
    rebuilds = 0
    while True:
        chunk = pending[:rows]
        last = len(pending) <= rows
        piece = Slice(
            history.sequence_id, chunk, len(history.tokens), sample=last and sampling is not None,
            top_n=top_n if last else 0, sampling=sampling or Sampling())
        try:
            result = yield Step(piece, history.epoch)
        except MusterError as error:
            newer = error.epoch not in (0, history.epoch)
            if error.reason == "STALE_EPOCH" and error.retriable and newer:
                history.epoch = error.epoch
            elif error.of_lost_sequence and history.tokens and rebuilds < _REBUILDS:
                rebuilds += 1
                pending = history.tokens + pending
                history.sequence_id, history.tokens = new_sequence_id(), []
            else:
                raise
            continue
        history.epoch = result.epoch
        history.tokens += chunk
        history.prefilled += len(chunk)
        pending = pending[rows:]
        if not pending:
            output = result.outputs[0]
            if output.error is not None:
                raise output.error
            return output.token


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    for position, (one, other) in enumerate(zip(left, right)):
        if one != other:
            return position
    return min(len(left), len(right))
