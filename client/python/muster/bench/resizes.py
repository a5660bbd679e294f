"""Changes of shape that happen while a benchmark runs, and the tokens that they touch."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from muster.aio import Fleet
from muster.errors import MusterError
from muster.retry import LONGEST_PAUSE
from muster.values import Event, Operation, ReplicaResize

# Seconds by which the news of a change may come later than the change.
_NEWS = 0.05

When = Literal["outside", "prepare", "pause"]


@dataclass(frozen=True)
class Resize:
    """A replica's change of shape. Seconds since the run began.

    Attributes:
      begun: when it was heard to be prepared.
      in_force: when it was heard that the new epoch serves; None where it was rolled back.
      ended: of either, when it was heard.
      facts: what the coordinator says of it; None where it no longer knew.
    """

    begun: float
    in_force: float | None
    ended: float
    facts: ReplicaResize | None

    @property
    def pause_ms(self) -> float:
        return self.facts.pause_ms if self.facts else 0.0

    def touches(self, begin: float, end: float) -> When:
        """What of it the time between two tokens overlaps."""
        if self.in_force is not None:
            held = self.in_force - self.pause_ms / 1e3 - _NEWS
            if begin <= self.in_force and end >= held:
                return "pause"
        return "prepare" if begin <= self.ended and end >= self.begun else "outside"

    def report(self) -> dict[str, Any]:
        facts = self.facts
        report: dict[str, Any] = {
            "begun_s": round(self.begun, 3), "ended_s": round(self.ended, 3),
            "rolled_back": self.in_force is None}
        if facts is not None:
            report |= {
                "replica": facts.replica, "from_cp": facts.from_config.cp,
                "to_cp": facts.to_config.cp, "epoch": facts.to_epoch,
                "prepare_ms": round(facts.prepare_ms, 3), "pause_ms": round(facts.pause_ms, 3),
                "kv_bytes_moved": facts.kv_bytes_moved, "kv_blocks_moved": facts.kv_blocks_moved,
                "kv_blocks_kept": facts.kv_blocks_kept, "sequences": facts.sequences}
        return report


@dataclass
class _Heard:
    """An event about a change, and when it came, in seconds of time.perf_counter."""

    event: Event
    at: float


@dataclass
class Watcher:
    """Listens to a fleet's events as long as it is entered.

        async with Watcher(fleet) as watcher:
            ...
        resizes = await watcher.resizes(start)
    """

    fleet: Fleet
    _heard: list[_Heard] = field(default_factory=list)
    _operations: dict[str, Operation] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Watcher":
        past = [event.sequence async for event in self.fleet.events()]
        self._task = asyncio.ensure_future(self._listen(past[-1] + 1 if past else 1))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def resizes(self, start: float) -> list[Resize]:
        """What was heard so far, times counted from `start` of time.perf_counter."""
        heard = list(self._heard)  # what is heard while it asks came too late for the answer
        if heard:
            await self._ask()
        return resizes_of([(it.event, it.at - start) for it in heard], self._operations.values())

    async def _ask(self) -> None:
        """The coordinator forgets operations; what it knows now is kept here."""
        with suppress(MusterError):  # The times are known all the same.
            self._operations |= {it.id: it for it in await self.fleet.operations()}

    async def _listen(self, sequence: int) -> None:
        while True:
            try:
                async for event in self.fleet.events(sequence, follow=True):
                    sequence = event.sequence + 1
                    if event.operation_id:
                        self._heard.append(_Heard(event, time.perf_counter()))
                    if event.kind == "OPERATION_ENDED":
                        await self._ask()
            except MusterError:
                pass
            await asyncio.sleep(LONGEST_PAUSE)


def resizes_of(heard: Iterable[tuple[Event, float]],
               operations: Iterable[Operation]) -> list[Resize]:
    """Changes that ended, from the events about them and when these came.

    A replica's turn begins with its operation, or with the end of the replica's before it.
    """
    facts = {(operation.id, resize.replica): resize
             for operation in operations for resize in operation.replicas}
    turns: dict[str, float] = {}
    resizes: list[Resize] = []
    for event, at in heard:
        begun = turns.setdefault(event.operation_id, at)
        if event.kind not in ("RESIZED", "ROLLED_BACK"):
            continue
        resizes.append(Resize(
            begun, at if event.kind == "RESIZED" else None, at,
            facts.get((event.operation_id, event.replica or 0))))
        turns[event.operation_id] = at
    return resizes


def split_times(arrivals: Iterable[Sequence[float]],
                resizes: Sequence[Resize]) -> dict[When, list[float]]:
    """Milliseconds between tokens, sorted, by what of the changes they overlap.

    Args:
      arrivals: of each request, when its tokens came; seconds since the run began.
      resizes: during the run.
    """
    times: dict[When, list[float]] = {"outside": [], "prepare": [], "pause": []}
    for tokens in arrivals:
        for begin, end in zip(tokens, tokens[1:]):
            touched: set[When] = {resize.touches(begin, end) for resize in resizes}
            when: When = "pause" if "pause" in touched else (
                "prepare" if "prepare" in touched else "outside")
            times[when].append((end - begin) * 1e3)
    for values in times.values():
        values.sort()
    return times
