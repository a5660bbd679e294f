"""The command line of the demo."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from muster.command_line import (
    ALL_OF_THEM, Parser, add_device_options, integer, temperature)
from muster.demo.scale import Point, parse_points

_DESCRIPTION = """\
Starts a coordinator and workers on this machine, has them answer a prompt, and ends them.
Without --model it fetches SmolLM2-135M-Instruct, once, into the user's cache."""

_EPILOG = """\
Exit status: 0 when all went well, 1 when it did not, 2 when the command line is wrong."""

# Of a replica, for all that its model may divide.
MOST_RANKS = 16

# Asked one after the other where no other prompt is given; the second has the longer answer.
FIRST_PROMPT = "What is the capital of France?"
DEFAULT_PROMPT = "Why is the sky blue?"

# Where neither a model, a prompt nor sizes are given.
DEFAULT_SCALE = "12:4,40:1"


@dataclass(frozen=True)
class Arguments:
    """What the demo was asked for.

    Attributes:
      model: None for the demo's own.
      first_prompt: of a turn before that of `prompt`; None: there is none.
      scale: in the order of their tokens.
      oversubscribe: workers that share a GPU; None: each has its own.
    """

    model: Path | None
    first_prompt: str | None
    prompt: str
    prompt_tokens: list[int] | None
    max_tokens: int
    tp: int
    cp: int
    replicas: int
    threads: int | None
    dtype: str
    top: int
    temperature: float
    seed: int
    json: bool
    no_fusion: bool
    no_graphs: bool
    scale: tuple[Point, ...]
    device: str | None
    oversubscribe: int | None
    load_format: str | None
    memory_fraction: float | None
    tls: bool

    @property
    def standbys(self) -> int:
        """Workers beyond the ranks that the largest cp wants."""
        return _standbys(self.tp, self.cp, self.scale)


def _standbys(tp: int, cp: int, scale: tuple[Point, ...]) -> int:
    return tp * max(0, max((it.cp for it in scale), default=0) - cp)


def parse(words: list[str]) -> Arguments:
    """Exits with status 2 on a wrong command line."""
    parser = _parser()
    options = parser.parse_args(words)
    asked = options.prompt is not None or options.prompt_tokens is not None
    options.first_prompt = None if asked else FIRST_PROMPT
    options.prompt = options.prompt or DEFAULT_PROMPT
    shown_as_is = not asked and options.model is None and options.tp is options.cp is None
    options.tp, options.cp = options.tp or 1, options.cp or 2
    if options.scale is None:
        shown_as_is = shown_as_is and options.replicas == 1
        options.scale = tuple(point for point in parse_points(DEFAULT_SCALE)
                              if shown_as_is and point.at_token < options.max_tokens)
    if options.scale and options.replicas > 1:
        parser.error("--scale is shown on one replica: it takes no --replicas")
    before = options.cp
    for point in options.scale:
        # Each would be a process of this machine before a coordinator could refuse them.
        if (ranks := options.tp * point.cp) > MOST_RANKS:
            parser.error(
                f"argument --scale: {point.at_token}:{point.cp}: that is {ranks:,} workers with "
                f"--tp {options.tp}; a replica can have {MOST_RANKS}")
        if point.cp == before:
            parser.error(f"argument --scale: {point.at_token}:{point.cp}: cp is {before} already")
        before = point.cp
    if options.oversubscribe == ALL_OF_THEM:
        options.oversubscribe = options.tp * options.cp * options.replicas + _standbys(
            options.tp, options.cp, options.scale)
    return Arguments(**vars(options))


def _parser() -> argparse.ArgumentParser:
    parser = Parser("./muster demo", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add("--model", metavar="DIR", type=Path, help="a Hugging Face directory of another model")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", type=_prompt,
                        help=f"what to ask (default: {FIRST_PROMPT!r}, then {DEFAULT_PROMPT!r})")
    prompt.add_argument("--prompt-tokens", metavar="1,2,3", type=_tokens,
                        help="token ids instead of a text; no tokenizer is needed then")
    add("--max-tokens", metavar="N", type=integer(1, 1 << 20), default=256,
        help="tokens to generate at most (default: 256)")
    add("--tp", metavar="T", type=integer(1, 1024),
        help="tensor parallel: attention heads are split over it (default: 1)")
    add("--cp", metavar="C", type=integer(1, 1024),
        help="context parallel: the KV cache is split over it (default: 2)")
    add("--replicas", metavar="R", type=integer(1, 1024), default=1,
        help="independent copies of the model (default: 1)")
    add("--scale", metavar="TOKEN:CP,..", type=parse_points,
        help=f"other cp once so many tokens have come, or none (default: {DEFAULT_SCALE}, none "
             "where a model, a prompt or sizes are given)")
    add("--threads", metavar="N", type=integer(1, 1024),
        help="threads per worker (default: cores / workers)")
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
        help="type of weights and KV (default: the model's)")
    add_device_options(parser)
    add("--top", metavar="N", type=integer(0, 64), default=0,
        help="most likely tokens to report per step (default: 0)")
    add("--temperature", metavar="X", type=temperature, default=0.0,
        help="0 is greedy (default: 0)")
    add("--seed", metavar="S", type=integer(0, (1 << 64) - 1), default=0,
        help="of the random numbers (default: 0)")
    add("--json", action="store_true", help="print one JSON object; all else goes to stderr")
    add("--no-fusion", action="store_true",
        help="separate all-reduce, residual and norm, to compare")
    add("--no-graphs", action="store_true", help="run every step eagerly, to compare")
    add("--tls", action="store_true",
        help="talk by TLS, with certificates that the fleet makes for itself")
    return parser


def _prompt(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the prompt is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("the prompt is not UTF-8") from None
    return text


def _tokens(text: str) -> list[int]:
    try:
        tokens = [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"wants token ids like 1,2,3, not {text!r}") from None
    if wrong := [token for token in tokens if not 0 <= token < 1 << 32]:
        raise argparse.ArgumentTypeError(f"{wrong[0]} is no token id")
    return tokens
