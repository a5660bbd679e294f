"""What the command lines of the programs have in common."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from muster.fleet_process import FleetOptions


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and exits with status 2."""

    def __init__(self, prog: str, description: str, epilog: str):
        super().__init__(
            prog=prog, description=description, epilog=epilog, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"muster: {message} ({self.prog} --help tells more)\n")


def integer(low: int, high: int) -> Callable[[str], int]:
    """Converts a word to a number within bounds."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"wants a number from {low} to {high}, not {text!r}")
        return value

    return convert


def temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 100.0:
        raise argparse.ArgumentTypeError(f"wants a number from 0 to 100, not {text!r}")
    return value


def add_fleet_options(parser: argparse.ArgumentParser) -> None:
    """Options of a fleet that a program starts itself; absent ones are None."""
    add = parser.add_argument
    add("--tp", metavar="T", type=integer(1, 1024),
        help="tensor parallel: attention heads are split over it (default: 1)")
    add("--cp", metavar="C", type=integer(1, 1024),
        help="context parallel: the KV cache is split over it (default: 2)")
    add("--replicas", metavar="R", type=integer(1, 1024),
        help="independent copies of the model (default: 1)")
    add("--threads", metavar="N", type=integer(1, 1024),
        help="threads per worker (default: cores / workers)")
    add("--dtype", choices=("auto", "float32", "bfloat16"),
        help="type of weights and KV (default: the model's)")


def asks_for_fleet(arguments: argparse.Namespace) -> bool:
    """Whether any option of an own fleet was given."""
    given = (arguments.tp, arguments.cp, arguments.replicas, arguments.threads, arguments.dtype)
    return any(value is not None for value in given)


def fleet_options(arguments: argparse.Namespace, model: Path) -> FleetOptions:
    """The fleet that `add_fleet_options` describes."""
    return FleetOptions(
        model, arguments.tp or 1, arguments.cp or 2, arguments.replicas or 1, arguments.threads,
        arguments.dtype or "auto")
