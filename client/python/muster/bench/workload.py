"""What the clients ask for: prompts of random tokens, with given or drawn lengths."""

import csv
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from muster.scheduler import Request
from muster.values import Sampling

_LONGEST = 1 << 20


class WorkloadError(Exception):
    """There is no such workload; the text tells a person why."""


@dataclass(frozen=True)
class Shape:
    """Lengths of a request in tokens, a shared prefix not included."""

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Lengths:
    """A range from which a length is drawn evenly, both ends included."""

    low: int
    high: int

    @staticmethod
    def parse(text: str) -> "Lengths":
        """From "64" or "32-256"; raises ValueError."""
        low, dash, high = text.partition("-")
        lengths = Lengths(int(low), int(high) if dash else int(low))
        if not 1 <= lengths.low <= lengths.high <= _LONGEST:
            raise ValueError(text)
        return lengths

    def __str__(self) -> str:
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,}-{self.high:,}"


def drawn_shapes(requests: int, prompts: Lengths, outputs: Lengths, seed: int) -> list[Shape]:
    dice = random.Random(seed)
    return [Shape(dice.randint(prompts.low, prompts.high), dice.randint(outputs.low, outputs.high))
            for _ in range(requests)]


def traced_shapes(trace: Path, requests: int | None) -> list[Shape]:
    """Lengths from a file, repeated or cut to so many requests (None: as they are).

    Args:
      trace: lines of JSON or CSV with the fields prompt_tokens and output_tokens.
      requests: how many are wanted.

    Raises:
      WorkloadError: the file cannot be used.
    """
    try:
        lines = [line for line in trace.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise WorkloadError(f"cannot read the trace {trace}: {why}") from None
    json_lines = bool(lines) and lines[0].lstrip().startswith("{")
    rows = _json_rows(lines) if json_lines else csv.DictReader(lines)
    shapes = []
    try:
        for row in rows:
            shape = Shape(int(row["prompt_tokens"]), int(row["output_tokens"]))
            if not (1 <= shape.prompt_tokens <= _LONGEST and 1 <= shape.output_tokens <= _LONGEST):
                raise ValueError
            shapes.append(shape)
    except (KeyError, TypeError, ValueError):
        raise WorkloadError(
            f"the trace {trace} has no usable prompt_tokens and output_tokens in its row "
            f"{len(shapes) + 1}") from None
    if not shapes:
        raise WorkloadError(f"the trace {trace} is empty")
    wanted = requests or len(shapes)
    return [shapes[index % len(shapes)] for index in range(wanted)]


def requests_of(shapes: Iterable[Shape], vocabulary: int, shared_prefix: int,
                seed: int) -> list[Request]:
    """A request for each shape, that generates exactly as many tokens as it says.

    Args:
      shapes: lengths.
      vocabulary: token ids are drawn below it.
      shared_prefix: tokens that all prompts begin with, before their own.
      seed: of the tokens.
    """
    dice = random.Random(seed)
    prefix = tuple(dice.randrange(vocabulary) for _ in range(shared_prefix))
    return [
        Request(
            prefix + tuple(dice.randrange(vocabulary) for _ in range(shape.prompt_tokens)),
            shape.output_tokens, Sampling(), stop_ids=frozenset())
        for shape in shapes]


def _json_rows(lines: list[str]) -> Iterable[dict[str, str]]:
    for line in lines:
        row = json.loads(line)
        yield row if isinstance(row, dict) else {}
