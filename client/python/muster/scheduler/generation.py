"""A request's answer, as it comes."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from muster.detokenizer import Detokenizer
from muster.errors import MusterError
from muster.scheduler.request import Finish, Job, Request
from muster.values import Token


@dataclass(frozen=True)
class Piece:
    """A token, and the text that it completes; the last piece may have no token."""

    token: Token | None
    text: str


class Generation:
    """Tokens, and text where there is a detokenizer, of one request. Belongs to one event loop.

        async for piece in generation:
            print(piece.text, end="")

    Attributes:
      tokens: what has come so far.
      arrivals: when each of them came, in seconds of time.perf_counter.
      finish: why it ended; None as long as it has not.
      submitted, first_token, ended: seconds of time.perf_counter; 0 as long as it was not.
    """

    def __init__(self, request: Request, detokenizer: Detokenizer | None = None):
        self.job = Job(request, self)
        self.tokens: list[Token] = []
        self.arrivals: list[float] = []
        self.finish_reason: Finish | None = None
        self.submitted = time.perf_counter()
        self.first_token = 0.0
        self.ended = 0.0
        self._detokenizer = detokenizer
        self._pieces: deque[Piece] = deque()
        self._error: MusterError | None = None
        self._arrived = asyncio.Event()
        self._done = asyncio.Event()
        # How the scheduler is told; set by it.
        self._cancel: Callable[[Job], None] | None = None

    @property
    def reused(self) -> int:
        """Tokens of the prompt that did not run, since another sequence held them."""
        return self.job.reused

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Pieces as they come; raises MusterError where the request failed. For one reader."""
        try:
            while True:
                while self._pieces:
                    yield self._pieces.popleft()
                if self.ended:
                    break
                self._arrived.clear()
                await self._arrived.wait()
            if self._error is not None:
                raise self._error
        finally:
            self.cancel()

    async def wait(self) -> list[Token]:
        """All tokens, once it has ended; raises MusterError where it failed."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self.tokens

    def cancel(self) -> None:
        """Ends it, if it has not ended, and gives its KV blocks back."""
        if not self.ended:
            self._end("cancelled")
            self._stop()

    # --- What the scheduler calls.

    def bind(self, cancel: Callable[[Job], None]) -> None:
        """Sets how the scheduler that has the job now is told of a cancellation."""
        self._cancel = cancel

    def push(self, token: Token) -> None:
        """A token has come."""
        if self.ended:
            return
        self.arrivals.append(time.perf_counter())
        self.first_token = self.first_token or self.arrivals[0]
        self.tokens.append(token)
        text = self._detokenizer.push(token.id) if self._detokenizer else ""
        self._pieces.append(Piece(token, text))
        self._arrived.set()
        if self._detokenizer and self._detokenizer.stopped:
            self._end("stop")
            self._stop()

    def finish(self, reason: Finish) -> None:
        """No further token comes."""
        if self.ended:
            return
        if self._detokenizer and (rest := self._detokenizer.finish()):
            self._pieces.append(Piece(None, rest))
        self._end(reason)

    def fail(self, error: MusterError) -> None:
        """It cannot go on."""
        if not self.ended:
            self._error = error
            self._end(None)

    def _end(self, reason: Finish | None) -> None:
        self.finish_reason = reason
        self.ended = time.perf_counter()
        self._arrived.set()
        self._done.set()

    def _stop(self) -> None:
        if self._cancel is not None:
            self._cancel(self.job)
