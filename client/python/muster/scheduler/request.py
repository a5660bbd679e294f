"""What is asked of a scheduler, and how far it has come."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from muster.errors import MusterError
from muster.history import new_sequence_id
from muster.values import Sampling, Token

# Why a generation ended: an end token or text, `max_tokens`, the model's longest context, or the
# caller.
Finish = Literal["stop", "length", "context", "cancelled"]


@dataclass(frozen=True)
class Request:
    """A prompt to continue.

    Attributes:
      prompt: token ids, at least one.
      max_tokens: how many to generate at most, at least 1.
      sampling: how tokens are chosen.
      stop_ids: tokens that end it; None: the model's end tokens.
      top_n: how many most likely tokens to return with each.
    """

    prompt: tuple[int, ...]
    max_tokens: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: frozenset[int] | None = None
    top_n: int = 0


class Sink(Protocol):
    """Where the tokens of a request go."""

    def push(self, token: Token) -> None: ...
    def finish(self, reason: Finish) -> None: ...
    def fail(self, error: MusterError) -> None: ...


@dataclass(eq=False)
class Job:
    """A request on its way. It can be taken to another replica at any time: see `restart`.

    Attributes:
      tokens: the prompt and what has been generated.
      sequence_id: under which the replica holds it.
      held: how many of `tokens` the replica holds.
      reused: how many of them it takes from another sequence when it begins.
      blocks: KV blocks that are its own, not another's too.
      in_flight: whether a step with it is on its way.
      forking: whether it waits to begin as another sequence.
      alone: whether it shares its next step with no other, since a step of it was refused.
      finish: why it has ended; None as long as it has not, and where it failed.
      ended: whether it runs no further.
      rebuilds: how often in a row it had to begin anew.
      served: grows with every turn; what had its turn longest ago comes first.
      digests: of the whole blocks of its prompt; see Prefixes.
    """

    request: Request
    sink: Sink
    tokens: list[int] = field(init=False)
    sequence_id: str = field(default_factory=new_sequence_id)
    held: int = 0
    reused: int = 0
    blocks: int = 0
    in_flight: bool = False
    forking: bool = False
    alone: bool = False
    finish: Finish | None = None
    ended: bool = False
    rebuilds: int = 0
    served: int = 0
    digests: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)

    @property
    def remaining(self) -> int:
        """Tokens that must run before the next one can be sampled; 1 is a decode."""
        return len(self.tokens) - self.held

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def ready(self) -> bool:
        return not (self.in_flight or self.forking or self.ended)

    @property
    def cancelled(self) -> bool:
        return self.finish == "cancelled"

    def restart(self) -> None:
        """Begins as a new sequence; what was generated stays and is run as part of the prompt."""
        self.sequence_id = new_sequence_id()
        self.held = self.reused = self.blocks = 0
        self.in_flight = self.forking = self.alone = False
