"""The command line of the benchmark."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from muster.bench.workload import Lengths
from muster.command_line import (
    Parser, add_fleet_options, add_tls_option, asks_for_fleet, check_tls_option, fleet_options,
    integer)
from muster.fleet_process import FleetOptions

_DESCRIPTION = """\
Loads a fleet with clients that each send a request and wait for its end before the next one, and
prints how long they waited. With --model, --replicas, --tp or --cp it starts a fleet of its own;
otherwise it uses the one at --coordinator, in $MUSTER_COORDINATOR, or of the last `musterctl up`."""

_EPILOG = """\
A trace has lines of JSON, {"prompt_tokens": 512, "output_tokens": 64}, or of CSV with these names
in the first one.

Exit status: 0 when every request was answered, 1 when not, 2 when the command line is wrong."""


@dataclass(frozen=True)
class Arguments:
    """What the benchmark was asked for.

    Attributes:
      model: None for the demo's own, where a fleet is to be started.
      own_fleet: whether to start one.
      requests: None for as many as the trace has.
      rows: tokens of a step at most; None for as many as the replica allows.
      resizes: whether to listen for changes of shape, and to tell which tokens they touched.
    """

    model: Path | None
    own_fleet: bool
    coordinator: str | None
    tls: str | None
    clients: int
    requests: int | None
    prompts: Lengths
    outputs: Lengths
    trace: Path | None
    shared_prefix: int
    seed: int
    rows: int | None
    lanes: int | None
    keep_prefixes: bool
    plot: Path | None
    resizes: bool
    json: bool
    _options: argparse.Namespace

    def fleet(self, model: Path) -> FleetOptions:
        """The fleet to start for it."""
        return fleet_options(self._options, model)


def parse(words: list[str]) -> Arguments:
    """Exits with status 2 on a wrong command line."""
    parser = _parser()
    options = parser.parse_args(words)
    own_fleet = options.model is not None or asks_for_fleet(options)
    if own_fleet and options.coordinator:
        parser.error("--coordinator names a fleet that runs: it takes no --model, --tp, --cp, "
                     "--replicas, --threads or --dtype")
    check_tls_option(parser, options.tls, own_fleet)
    requests = options.requests or (None if options.trace else 64)
    return Arguments(
        options.model, own_fleet, options.coordinator, options.tls, options.clients, requests,
        options.prompt_lengths, options.output_lengths, options.trace, options.shared_prefix,
        options.seed, options.rows, options.lanes, not options.no_reuse, options.plot,
        options.resizes, options.json, options)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m muster.bench", _DESCRIPTION, _EPILOG)
    add = parser.add_argument
    add("--coordinator", metavar="HOST:PORT", help="a fleet that runs")
    add("--model", metavar="DIR", type=Path,
        help="a Hugging Face directory, for a fleet of its own (default: the demo's model)")
    add_tls_option(parser)
    add("--clients", metavar="N", type=integer(1, 65536), default=16,
        help="requests at once (default: 16)")
    add("--requests", metavar="N", type=integer(1, 1 << 24),
        help="requests in all (default: 64, or as many as the trace has)")
    add("--prompt-lengths", metavar="A-B", type=_lengths, default=Lengths(32, 256),
        help="tokens of a prompt, drawn from a range (default: 32-256)")
    add("--output-lengths", metavar="A-B", type=_lengths, default=Lengths(16, 64),
        help="tokens to generate, drawn from a range (default: 16-64)")
    add("--trace", metavar="FILE", type=Path, help="lengths from a file instead")
    add("--shared-prefix", metavar="N", type=integer(0, 1 << 20), default=0,
        help="tokens that all prompts begin with, before their own (default: 0)")
    add("--seed", metavar="S", type=integer(0, (1 << 64) - 1), default=0,
        help="of the lengths and the tokens (default: 0)")
    add("--rows", metavar="N", type=integer(1, 1 << 20),
        help="tokens of a step at most (default: as many as the replica allows)")
    add("--lanes", metavar="N", type=integer(1, 8),
        help="steps on their way to a replica at once (default: as measured)")
    add("--no-reuse", action="store_true", help="run every prompt from its beginning")
    add("--plot", metavar="FILE", type=Path, help="draw the figures, as .png, .svg or .pdf")
    add("--resizes", action="store_true",
        help="note changes of shape during the run (musterctl scale-cp), and what they cost")
    add("--json", action="store_true", help="print one JSON object; all else goes to stderr")
    add_fleet_options(parser)
    return parser


def _lengths(text: str) -> Lengths:
    try:
        return Lengths.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"wants a length like 64, or a range like 32-256, not {text!r}") from None
