"""Other context-parallel sizes while the demo's text streams."""

import argparse
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from muster.client import Fleet
from muster.errors import MusterError
from muster.replica import Replica
from muster.values import ReplicaResize, Slice, StepResult

_MOST_CP = 1024
_MOST_TOKENS = 1 << 20
# Tokens that come at most while the last change is prepared.
_MEANWHILE = 24


@dataclass(frozen=True)
class Point:
    """Once so many tokens have come, cp becomes another."""

    at_token: int
    cp: int


class CountedReplica(Replica):
    """A replica that is asked in whatever epoch it serves.

    A request that named its epoch would be refused once by every change, though nothing is lost.

    Attributes:
      failed: requests that failed or were refused so far, those that were made again included.
    """

    failed: int = 0

    def forward(self, slices: Iterable[Slice], expected_epoch: int | None = None,
                request_id: str | None = None) -> StepResult:
        try:
            return super().forward(slices, None, request_id)
        except MusterError:
            self.failed += 1
            raise


@dataclass(frozen=True)
class Scaled:
    """A change that took effect.

    Attributes:
      failed_requests: since the change before it was told; all that the text asked for counts.
    """

    point: Point
    resize: ReplicaResize
    failed_requests: int = 0

    def items(self) -> list[str]:
        """What there is to say of it, the change first."""
        resize = self.resize
        return [
            f"cp {resize.from_config.cp} → {resize.to_config.cp} at token {self.point.at_token}: "
            f"prepare {_time(resize.prepare_ms)}", f"pause {_time(resize.pause_ms)}",
            f"{resize.kv_blocks_moved:,} KV block{'s' * (resize.kv_blocks_moved != 1)} moved",
            f"{resize.kv_blocks_kept:,} kept",
            f"{self.failed_requests:,} failed"]

    def report(self) -> dict[str, Any]:
        resize = self.resize
        return {
            "at_token": self.point.at_token, "from_cp": resize.from_config.cp,
            "to_cp": resize.to_config.cp, "epoch": resize.to_epoch,
            "prepare_ms": round(resize.prepare_ms, 3), "pause_ms": round(resize.pause_ms, 3),
            "kv_bytes_moved": resize.kv_bytes_moved, "kv_blocks_kept": resize.kv_blocks_kept,
            "failed_requests": self.failed_requests}


def parse_points(text: str) -> tuple[Point, ...]:
    """From "12:4,40:1"; none from "" and "none". Raises argparse.ArgumentTypeError."""
    if text in ("", "none"):
        return ()
    points: list[Point] = []
    for pair in text.split(","):
        token, colon, cp = pair.partition(":")
        if not (colon and token.isascii() and token.isdigit() and cp.isascii() and cp.isdigit()):
            raise argparse.ArgumentTypeError(
                f"wants TOKEN:CP pairs like 12:4,40:1, not {pair!r}")
        point = Point(int(token), int(cp))
        if not 1 <= point.at_token <= _MOST_TOKENS:
            raise argparse.ArgumentTypeError(
                f"{pair}: a token is numbered from 1 to {_MOST_TOKENS:,}")
        if not 1 <= point.cp <= _MOST_CP:
            raise argparse.ArgumentTypeError(f"{pair}: cp can be 1 to {_MOST_CP:,}")
        if points and point.at_token <= points[-1].at_token:
            raise argparse.ArgumentTypeError(
                f"{pair} comes after token {points[-1].at_token}: tokens must ascend")
        points.append(point)
    return tuple(points)


class Scaler:
    """Scales a fleet from a thread of its own, one change after the other, while tokens come.

    So that there is text before and after each change, the text waits where the next one is due and
    the one before has not ended, and _MEANWHILE tokens after the last one began.
    """

    def __init__(self, fleet: Fleet, points: tuple[Point, ...], most_tokens: int,
                 replica: CountedReplica):
        """
        Args:
          fleet: of one replica; closing it breaks off the watch of a change that is under way.
          points: in the order of their tokens.
          most_tokens: that the text can have; it waits for its last one, too.
          replica: which writes the text, in the thread that calls `token` and `finish`.
        """
        self._fleet = fleet
        self._points = points
        self._most_tokens = most_tokens
        self._replica = replica
        self._failures_told = 0
        self._changed = threading.Condition()
        self._tokens = 0
        self._ended = False
        self._finished = 0  # points
        self._untold: list[Scaled] = []
        self._told: list[Scaled] = []
        self._failure: MusterError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Scaler":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def scaled(self) -> list[Scaled]:
        """All changes that were told."""
        with self._changed:
            return list(self._told)

    @property
    def missed(self) -> tuple[Point, ...]:
        """Those whose token has not come."""
        with self._changed:
            return tuple(it for it in self._points if it.at_token > self._tokens)

    @property
    def under_way(self) -> Point | None:
        """The change that has not ended although its token has come."""
        with self._changed:
            return self._due()

    def token(self, count: int) -> list[Scaled]:
        """The `count`-th token has come; returns when the next may, with what ended meanwhile.

        Raises:
          MusterError: a change did not take effect.
        """
        with self._changed:
            self._tokens = count
            self._changed.notify_all()
            return self._wait_while(lambda: count >= self._limit())

    def finish(self) -> list[Scaled]:
        """No further token comes: waits for the changes that are due, and returns the rest.

        Raises:
          MusterError: a change did not take effect.
        """
        with self._changed:
            return self._wait_while(lambda: self._due() is not None)

    def _due(self) -> Point | None:
        """The first of those that have not ended, if its token has come."""
        left = self._points[self._finished:]
        return left[0] if left and left[0].at_token <= self._tokens else None

    def _limit(self) -> int:
        """The token behind which the text waits now."""
        point = self._due()
        if point is None:
            return self._most_tokens + 1
        later = self._points[self._finished + 1:]
        limit = later[0].at_token if later else point.at_token + _MEANWHILE
        return min(limit, self._most_tokens - 1)

    def _wait_while(self, condition: Callable[[], bool]) -> list[Scaled]:
        # In slices: the main thread is to notice an interrupt at once.
        while self._failure is None and condition():
            self._changed.wait(0.1)
        if self._failure is not None:
            raise self._failure
        taken = list(map(self._with_failures, self._untold))
        self._untold.clear()
        self._told += taken
        return taken

    def _with_failures(self, change: Scaled) -> Scaled:
        failed, self._failures_told = (
            self._replica.failed - self._failures_told, self._replica.failed)
        return replace(change, failed_requests=failed)

    # --- In its thread.

    def _run(self) -> None:
        for point in self._points:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._tokens >= point.at_token)
                if self._ended:
                    return
            failure: MusterError | None = None
            resizes: tuple[ReplicaResize, ...] = ()
            try:
                resizes = self._fleet.scale_context_parallel(point.cp).replicas
            except MusterError as error:
                failure = error
            except ValueError as error:  # The channel is closed.
                failure = MusterError(str(error), "CANCELLED")
            with self._changed:
                self._failure = failure
                self._untold += [Scaled(point, resize) for resize in resizes]
                self._finished += 1
                self._changed.notify_all()
            if failure is not None:
                return


def _time(milliseconds: float) -> str:
    if 0.05 <= milliseconds < 0.95:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 99.5:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1e3:.1f} s"
