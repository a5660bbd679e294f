"""One event loop for all tests: gRPC's poller outlives the loop that it began with."""

import asyncio
from collections.abc import Coroutine

_RUNNER = asyncio.Runner()


def run(work: Coroutine):
    """Runs a coroutine to its end, and returns what it returns."""
    return _RUNNER.run(work)
