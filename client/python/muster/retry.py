"""Which failed calls are tried again, and when."""

import time
from collections.abc import Callable

from muster.errors import MusterError

# Seconds: what is waited before the first retry, and at most before a later one.
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0


class Retries:
    """The retries of one call: with growing pauses, as long as its patience lasts.

    Args:
      patience: seconds from now after which no retry begins.
      clock: seconds that only grow.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._end = clock() + patience
        self._pause = FIRST_PAUSE

    def pause_after(self, error: MusterError) -> float:
        """How long to wait before the same call is made again, in seconds.

        Raises:
          MusterError: `error` itself, where it must not be retried or patience has ended.
        """
        left = self._end - self._clock()
        if not may_retry(error) or left <= 0:
            raise error
        pause = min(self._pause, left)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return pause


def may_retry(error: MusterError) -> bool:
    """Whether the same call may be made again, unchanged."""
    if not error.retriable or error.kv_written:
        return False
    # Then the caller's time is over.
    return error.code not in ("DEADLINE_EXCEEDED", "CANCELLED")
