"""A client of Muster.

    with Fleet("127.0.0.1:41207") as fleet, fleet.replica(0) as replica:
        with replica.sequence() as sequence:
            for token in sequence.generate([1, 2, 3], max_tokens=8):
                print(token.id)

`Fleet`, `Replica` and `Sequence` block; muster.aio has the same for asyncio. muster.scheduler runs
many requests at once over all replicas, and is meant as an example to copy. Failed calls raise
`MusterError`. It needs the generated stubs (`./muster build` puts them into out/python) on the path.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster.client import Fleet as Fleet
    from muster.errors import MusterError as MusterError
    from muster.replica import Replica as Replica
    from muster.sequence import Sequence as Sequence

_HOMES = {
    "Fleet": "muster.client", "Replica": "muster.replica", "Sequence": "muster.sequence",
    "MusterError": "muster.errors"}


def __getattr__(name: str) -> object:
    # Loaded when they are asked for: a program can answer an interrupt before gRPC is there.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
