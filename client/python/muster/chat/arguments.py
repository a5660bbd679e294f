"""The command line of the chat."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from muster.command_line import (
    Parser, add_fleet_options, add_tls_option, check_tls_option, fleet_options, integer, temperature)
from muster.fleet_process import FleetOptions

_DESCRIPTION = """\
Talks to a model. It starts a fleet on this machine, or talks to one that runs (--coordinator).
Without --model it is SmolLM2-135M-Instruct, fetched once into the user's cache."""

_EPILOG = """\
/new begins a new conversation, /quit, Ctrl-D or Ctrl-C ends it; Ctrl-C in an answer stops that.
Lines can come from a pipe.

Exit status: 0 when all went well, 1 when it did not, 2 when the command line is wrong."""


@dataclass(frozen=True)
class Arguments:
    """What the chat was asked for; `model` is None for the demo's, `coordinator` for an own fleet."""

    model: Path | None
    coordinator: str | None
    tls: str | None
    replica: int | None  # the first that serves
    system: str | None
    max_tokens: int
    temperature: float
    seed: int
    verbose: bool
    _options: argparse.Namespace

    def fleet(self, model: Path) -> FleetOptions:
        """The fleet to start for it."""
        return fleet_options(self._options, model)


def parse(words: list[str]) -> Arguments:
    """Exits with status 2 on a wrong command line."""
    parser = _parser()
    options = parser.parse_args(words)
    coordinator = options.coordinator or os.environ.get("MUSTER_COORDINATOR") or None
    check_tls_option(parser, options.tls, own_fleet=coordinator is None)
    return Arguments(
        options.model, coordinator, options.tls, options.replica, options.system, options.max_tokens, options.temperature, options.seed,
        options.verbose, options)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m muster.chat", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add("--model", metavar="DIR", type=Path,
        help="a Hugging Face directory; of a fleet that runs, to read its tokenizer from")
    add("--coordinator", metavar="HOST:PORT",
        help="a fleet that runs (default: $MUSTER_COORDINATOR, or one of its own)")
    add_tls_option(parser)
    add("--replica", metavar="I", type=integer(0, 1023),
        help="which replica to talk to (default: the first that serves)")
    add("--system", metavar="TEXT", help="what the model is told before (default: its own)")
    add("--max-tokens", metavar="N", type=integer(1, 1 << 20), default=1024,
        help="tokens of an answer at most (default: 1024)")
    add("--temperature", metavar="X", type=temperature, default=0.0,
        help="0 is greedy (default: 0)")
    add("--seed", metavar="S", type=integer(0, (1 << 64) - 1), default=0,
        help="of the random numbers (default: 0)")
    add("--verbose", action="store_true", help="say how much was computed, and how fast")
    add_fleet_options(parser)
    return parser
