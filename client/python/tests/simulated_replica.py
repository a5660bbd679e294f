"""A replica as the batcher knows it, without calls: it runs batches, and runs out of blocks."""

from dataclasses import dataclass, field

from muster.errors import MusterError
from muster.scheduler.batcher import Batcher
from muster.scheduler.plan import Batch, ForkPlan
from muster.values import Capacity, Fork, Output, StepResult, Token


def next_token(tokens: list[int]) -> int:
    """What the model says after these tokens."""
    return sum(tokens) % 7


def answer_to(prompt: tuple[int, ...], count: int) -> list[int]:
    """What the model generates after a prompt."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt):]


@dataclass
class SimulatedReplica:
    """Holds sequences in blocks; checks that nothing is asked of it that a replica would refuse.

    Attributes:
      blocks: KV blocks in all; may change.
      sequences: tokens by sequence id.
      shared: how many blocks of a sequence belong to its origin.
      rows_run: new tokens of all steps.
    """

    block_tokens: int
    blocks: int
    sequences: dict[str, list[int]] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)
    rows_run: int = 0
    steps: int = 0

    def used(self) -> int:
        return sum(-(-len(tokens) // self.block_tokens) - self.shared.get(name, 0)
                   for name, tokens in self.sequences.items())

    def capacity(self) -> Capacity:
        free = max(0, self.blocks - self.used())
        return Capacity(1, self.blocks, free, self.block_tokens, len(self.sequences),
                        free * self.block_tokens)

    def run(self, batch: Batch) -> StepResult | MusterError:
        """Runs all of a batch, or nothing."""
        need = 0
        names = [piece.sequence_id for piece in batch.slices]
        assert len(set(names)) == len(names), "two slices of one sequence"
        for piece in batch.slices:
            length = len(self.sequences.get(piece.sequence_id, ()))
            if piece.first_position != length:
                return MusterError(
                    "lost", "FAILED_PRECONDITION", "POSITION_MISMATCH", retriable=False)
            need += -(-(length + len(piece.token_ids)) // self.block_tokens)
            need -= -(-length // self.block_tokens)
        if self.used() + need > self.blocks:
            return MusterError("full", "RESOURCE_EXHAUSTED", "KV_CAPACITY", retriable=True)
        self.steps += 1
        outputs = []
        for piece in batch.slices:
            tokens = self.sequences.setdefault(piece.sequence_id, [])
            tokens.extend(piece.token_ids)
            self.rows_run += len(piece.token_ids)
            outputs.append(Output(Token(next_token(tokens), 0.0) if piece.sample else None))
        return StepResult(tuple(outputs), 1, self.steps, batch.rows, 0.0, 0.0, 1.0)

    def fork(self, plan: ForkPlan) -> Fork | None:
        source = self.sequences.get(plan.source.sequence_id)
        if source is None or plan.tokens > len(source):
            return None
        self.sequences[plan.sequence_id] = source[:plan.tokens]
        self.shared[plan.sequence_id] = plan.tokens // self.block_tokens
        return Fork(1, plan.tokens, self.shared[plan.sequence_id])

    def free(self, batcher: Batcher) -> None:
        for name in batcher.take_freed()[0]:
            self.sequences.pop(name, None)
            self.shared.pop(name, None)
