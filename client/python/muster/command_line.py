"""What the command lines of the programs have in common."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from muster.fleet_process import FleetOptions

# `--tls` without a folder: a fleet of one's own, with certificates of its own.
OWN_TLS = ""
# `--oversubscribe` without a number: as many as there are workers.
ALL_OF_THEM = 0


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


def fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.05 <= value <= 0.98:
        raise argparse.ArgumentTypeError(f"wants a number from 0.05 to 0.98, not {text!r}")
    return value


def device(text: str) -> str:
    """Which GPUs there are is for the workers to say."""
    kind, colon, which = text.partition(":")
    if text not in ("auto", "cpu", "cuda") and not (kind == "cuda" and colon and which):
        raise argparse.ArgumentTypeError(
            f"wants auto, cpu, cuda, cuda:N or cuda:UUID, not {text!r}")
    return text


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Where the workers of an own fleet compute; absent ones are None."""
    add = parser.add_argument
    add("--device", metavar="DEVICE", type=device,
        help="auto (GPUs where there are enough), cpu, cuda, cuda:N or cuda:UUID "
             "(default: auto)")
    add("--oversubscribe", metavar="N", type=integer(1, 64), nargs="?", const=ALL_OF_THEM,
        help="workers that share a GPU, best under MPS; all of them without N (default: 1)")
    add("--load-format", choices=("auto", "safetensors", "dummy"),
        help="dummy makes up weights, from config.json alone (default: auto)")
    add("--memory-fraction", metavar="X", type=fraction,
        help="of a GPU's memory that its workers may use (default: 0.9)")


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
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"),
        help="type of weights and KV (default: the model's)")
    add_device_options(parser)


def add_tls_option(parser: argparse.ArgumentParser) -> None:
    """For a fleet that runs, or one that a program starts itself: see check_tls_option."""
    parser.add_argument(
        "--tls", metavar="DIR", nargs="?", const=OWN_TLS,
        help="talk by TLS, with tls.crt, tls.key and ca.crt of a folder (default: $MUSTER_TLS); "
             "without DIR a fleet of its own makes certificates")


def check_tls_option(parser: argparse.ArgumentParser, tls: str | None, own_fleet: bool) -> None:
    """Exits with status 2 where --tls does not suit the fleet."""
    if own_fleet and tls:
        parser.error(f"argument --tls: a fleet of its own makes certificates itself: it takes no "
                     f"folder, not {tls!r}")
    if not own_fleet and tls == OWN_TLS:
        parser.error("argument --tls: name the folder with tls.crt, tls.key and ca.crt for the "
                     "fleet that runs")


def asks_for_fleet(arguments: argparse.Namespace) -> bool:
    """Whether any option of an own fleet was given."""
    given = (arguments.tp, arguments.cp, arguments.replicas, arguments.threads, arguments.dtype,
             arguments.device, arguments.oversubscribe, arguments.load_format,
             arguments.memory_fraction)
    return any(value is not None for value in given)


def fleet_options(arguments: argparse.Namespace, model: Path) -> FleetOptions:
    """The fleet that `add_fleet_options` describes."""
    tp, cp, replicas = arguments.tp or 1, arguments.cp or 2, arguments.replicas or 1
    sharing = arguments.oversubscribe
    return FleetOptions(
        model, tp, cp, replicas, arguments.threads, arguments.dtype or "auto",
        device=arguments.device,
        oversubscribe=tp * cp * replicas if sharing == ALL_OF_THEM else sharing,
        load_format=arguments.load_format, memory_fraction=arguments.memory_fraction,
        tls=arguments.tls == OWN_TLS)
