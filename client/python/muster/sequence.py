"""A sequence that a replica holds for this client, over blocking calls."""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Tokens
from types import TracebackType
from typing import TYPE_CHECKING

from muster.errors import MusterError
from muster.history import Growth, History, common_prefix, growth, new_sequence_id
from muster.values import Sampling, Token

if TYPE_CHECKING:
    from muster.replica import Replica


class Sequence:
    """A token history with its KV blocks. It frees them when it is left. Not thread-safe.

        with replica.sequence() as sequence:
            for token in sequence.generate(prompt, max_tokens=8):
                print(token.id)

    A sequence that the replica has lost, by a failure or an expired lease, is built anew from its
    tokens. Every failed call raises MusterError.
    """

    def __init__(self, replica: "Replica", history: History | None = None):
        self._replica = replica
        self._history = history or History()

    def __enter__(self) -> "Sequence":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._replica.abandon(self._history.sequence_id)

    @property
    def id(self) -> str:
        return self._history.sequence_id

    @property
    def epoch(self) -> int | None:
        """In which its last step ran; None before there was one."""
        return self._history.epoch

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens that the replica holds. A sampled one is not among them until it is appended."""
        return tuple(self._history.tokens)

    @property
    def prefilled(self) -> int:
        """How many tokens have been run for it so far; those of a fork's origin do not count."""
        return self._history.prefilled

    def __len__(self) -> int:
        return len(self._history.tokens)

    def append(self, tokens: Tokens[int], chunk: int | None = None) -> None:
        """Runs tokens, at least one, without sampling."""
        self._run(growth(self._history, tokens, self._rows(chunk), None))

    def decode(self, tokens: Tokens[int], sampling: Sampling = Sampling(), top_n: int = 0,
               chunk: int | None = None) -> Token:
        """Runs tokens, at least one, and returns the token sampled after the last one.

        Args:
          tokens: the last sampled one, or a prompt.
          sampling: how the token is chosen.
          top_n: how many most likely tokens to return with it.
          chunk: tokens per step; by default as many as a step can hold.
        """
        token = self._run(growth(self._history, tokens, self._rows(chunk), sampling, top_n))
        if token is None:
            raise MusterError("the replica sampled no token", "INTERNAL")
        return token

    def generate(self, prompt: Tokens[int], max_tokens: int, sampling: Sampling = Sampling(),
                 top_n: int = 0, chunk: int | None = None) -> Iterator[Token]:
        """Appends a prompt, then yields tokens up to the end token, which is included.

        The last token yielded is not part of the sequence yet.
        """
        ends = self._replica.known_model().eos_token_ids
        pending = prompt
        for _ in range(max_tokens):
            token = self.decode(pending, sampling, top_n, chunk)
            yield token
            if token.id in ends:
                return
            pending = [token.id]

    def fork(self, tokens: int | None = None) -> "Sequence":
        """A new sequence that begins with the first `tokens` of this one (None: all)."""
        name = new_sequence_id()
        try:
            fork = self._replica.fork(self.id, name, tokens)
        except MusterError:
            self._replica.abandon(name)
            raise
        return Sequence(self._replica, History(name, self._history.tokens[:fork.tokens], fork.epoch))

    def rewind(self, tokens: int) -> None:
        """Forgets all but the first `tokens`; what it keeps is not run again."""
        if tokens == len(self):
            return
        if tokens == 0:
            former, self._history = self._history, History(prefilled=self.prefilled)
        else:
            kept = self.fork(tokens)
            kept._history.prefilled = self.prefilled
            former, self._history = self._history, kept._history
        self._replica.abandon(former.sequence_id)

    def rewind_to_prefix_of(self, tokens: Iterable[int]) -> int:
        """Forgets what does not begin `tokens`, at least the last of them; returns its new length.

        What is left of `tokens` can then be appended or decoded.
        """
        wanted = list(tokens)
        self.rewind(min(common_prefix(self._history.tokens, wanted), max(0, len(wanted) - 1)))
        return len(self)

    def free(self) -> None:
        """Gives its KV blocks back; it is then empty and can be used again."""
        self._replica.free(self.id)
        self._history = History(prefilled=self.prefilled)

    def _rows(self, chunk: int | None) -> int:
        limit = self._replica.known_model().max_rows_per_step
        return min(chunk or limit, limit)

    def _run(self, steps: Growth) -> Token | None:
        """Drives the steps to their end with blocking calls."""
        try:
            step = next(steps)
            while True:
                try:
                    result = self._replica.forward([step.piece], step.expected_epoch)
                except MusterError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            token: Token | None = end.value
            return token
