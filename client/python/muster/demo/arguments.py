"""The command line of the demo."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from muster.command_line import Parser, integer, temperature

_DESCRIPTION = """\
Starts a coordinator and workers on this machine, has them answer a prompt, and ends them.
Without --model it fetches SmolLM2-135M-Instruct, once, into the user's cache."""

_EPILOG = """\
Exit status: 0 when all went well, 1 when it did not, 2 when the command line is wrong."""

DEFAULT_PROMPT = "What is the capital of France?"


@dataclass(frozen=True)
class Arguments:
    """What the demo was asked for; `model` is None for the demo's own."""

    model: Path | None
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


def parse(words: list[str]) -> Arguments:
    """Exits with status 2 on a wrong command line."""
    return Arguments(**vars(_parser().parse_args(words)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser("./muster demo", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add("--model", metavar="DIR", type=Path, help="a Hugging Face directory of another model")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", type=_prompt, default=DEFAULT_PROMPT,
                        help=f"what to ask (default: {DEFAULT_PROMPT!r})")
    prompt.add_argument("--prompt-tokens", metavar="1,2,3", type=_tokens,
                        help="token ids instead of a text; no tokenizer is needed then")
    add("--max-tokens", metavar="N", type=integer(1, 1 << 20), default=256,
        help="tokens to generate at most (default: 256)")
    add("--tp", metavar="T", type=integer(1, 1024), default=1,
        help="tensor parallel: attention heads are split over it (default: 1)")
    add("--cp", metavar="C", type=integer(1, 1024), default=2,
        help="context parallel: the KV cache is split over it (default: 2)")
    add("--replicas", metavar="R", type=integer(1, 1024), default=1,
        help="independent copies of the model (default: 1)")
    add("--threads", metavar="N", type=integer(1, 1024),
        help="threads per worker (default: cores / workers)")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto",
        help="type of weights and KV (default: the model's)")
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
