"""Spreads requests over the replicas of a fleet, and follows them as they come and go."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from muster.aio import Fleet, Replica
from muster.detokenizer import Detokenizer
from muster.errors import MusterError
from muster.retry import LONGEST_PAUSE, may_retry
from muster.scheduler.generation import Generation
from muster.scheduler.request import Request
from muster.scheduler.scheduler import Options, Scheduler
from muster.values import ReplicaStatus

# What a sequence that is being generated weighs against a prompt token that has yet to run, when
# replicas are compared.
_SEQUENCE_WEIGHT = 64


class Router:
    """One scheduler for each replica that serves. Belongs to one event loop.

    A request goes to the replica with least ahead of it, counting what it need not run there. When
    a replica stops serving, its requests go on elsewhere from the tokens they have; when none
    serves, they wait until one does. A replica that changes its shape keeps its requests and what
    can be forked of them, as long as the same process leads it; one that was formed again does not.
    """

    def __init__(self, fleet: Fleet, options: Options = Options(), patience: float = 30.0):
        """
        Args:
          fleet: whose replicas are used; closing it is the caller's.
          options: of every scheduler.
          patience: seconds that requests wait for a replica to serve before they fail.
        """
        self.schedulers: dict[int, Scheduler] = {}
        self.retired: list[Scheduler] = []
        self._fleet = fleet
        self._options = options
        self._patience = patience
        self._statuses: dict[int, ReplicaStatus] = {}
        # Of each replica with a scheduler: the process that leads it and holds its sequences.
        self._leaders: dict[int, int] = {}
        self._backlog: list[Generation] = []
        self._starting: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._giving_up: asyncio.TimerHandle | None = None
        self._serves = asyncio.Event()
        self._failure: MusterError | None = None

    async def __aenter__(self) -> "Router":
        self._spawn(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends what runs, and gives all sequences back."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._giving_up is not None:
            self._giving_up.cancel()
        self._give_up(MusterError("the router was closed", "CANCELLED"))
        for scheduler in self.schedulers.values():
            await self._end(scheduler)
        self.schedulers.clear()

    async def ready(self, replicas: int = 1) -> None:
        """Returns when so many replicas serve; raises MusterError when patience has ended."""
        try:
            async with asyncio.timeout(self._patience):
                while len(self.schedulers) < replicas:
                    self._serves.clear()
                    await self._serves.wait()
        except TimeoutError:
            raise self._failure or MusterError(
                f"{len(self.schedulers)} of {replicas} replicas serve", "UNAVAILABLE",
                retriable=True) from None

    def submit(self, request: Request, detokenizer: Detokenizer | None = None) -> Generation:
        """Takes a request; what is wrong with it comes as the generation's error.

        Args:
          request: what to continue.
          detokenizer: makes text of the tokens, and ends the generation at a stop text.
        """
        generation = Generation(request, detokenizer)
        self._place([generation])
        return generation

    # --- Placement.

    def _place(self, generations: Iterable[Generation]) -> None:
        for generation in generations:
            if generation.ended:
                continue
            scheduler = self._best(generation)
            if scheduler is not None:
                scheduler.take(generation)
                continue
            self._backlog.append(generation)
            if self._giving_up is None:
                self._giving_up = asyncio.get_running_loop().call_later(
                    self._patience, self._give_up, None)

    def _best(self, generation: Generation) -> Scheduler | None:
        """The scheduler with least ahead; None if there is none."""

        def ahead(scheduler: Scheduler) -> int:
            batcher, job = scheduler.batcher, generation.job
            return (
                _SEQUENCE_WEIGHT * (batcher.running + batcher.waiting)
                + batcher.prompt_tokens_ahead() - batcher.reusable(job.tokens))

        return min(self.schedulers.values(), key=ahead, default=None)

    def _give_up(self, why: MusterError | None) -> None:
        self._giving_up = None
        backlog, self._backlog = self._backlog, []
        error = why or self._failure or MusterError("no replica serves", "UNAVAILABLE",
                                                    retriable=True)
        for generation in backlog:
            generation.fail(error)

    # --- Replicas.

    async def _follow(self) -> None:
        while True:
            try:
                async for statuses in self._fleet.watch():
                    self._failure = None
                    self._statuses = {status.replica: status for status in statuses}
                    self._reconcile()
            except MusterError as error:
                # The replicas serve without a coordinator, too.
                self._failure = error
                if not may_retry(error):
                    self._give_up(error)
            await asyncio.sleep(LONGEST_PAUSE)

    def _reconcile(self) -> None:
        """Has a scheduler for each replica that serves, and for no other."""
        for index, scheduler in list(self.schedulers.items()):
            if not self._serves_under(index, self._leaders[index]):
                self._retire(index, scheduler)
        for index, status in self._statuses.items():
            known = index in self.schedulers or index in self._starting
            if status.state == "SERVING" and not known:
                self._starting.add(index)
                self._spawn(self._start(index))
        failures = [status.failure for status in self._statuses.values() if status.failure]
        if failures:
            self._failure = MusterError(failures[0], "UNAVAILABLE", retriable=True)

    def _serves_under(self, index: int, incarnation: int) -> bool:
        """Whether a replica serves, led by this process; its epoch may be another one."""
        status = self._statuses.get(index)
        return status is not None and status.state == "SERVING" and (
            status.leader_incarnation == incarnation)

    async def _start(self, index: int) -> None:
        begun = self._statuses[index]
        incarnation = begun.leader_incarnation
        replica = Replica(begun.leader, tls=self._fleet.tls,
                          find_leader=lambda: self._fleet.leader(index))
        try:
            model = await replica.model()
        except MusterError as error:
            self._failure = error
            await replica.close()
            self._spawn(self._look_again())
            return
        finally:
            self._starting.discard(index)
        if not self._serves_under(index, incarnation):
            await replica.close()
            self._reconcile()
            return
        scheduler = Scheduler(
            replica, model, self._options, on_lost=lambda it, error: self._lose(index, it, error))
        scheduler.start()
        self.schedulers[index] = scheduler
        self._leaders[index] = incarnation
        self._serves.set()
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        backlog, self._backlog = self._backlog, []
        self._place(backlog)

    def _lose(self, index: int, scheduler: Scheduler, error: MusterError) -> None:
        """A replica cannot be reached from here, whatever the coordinator says of it."""
        self._failure = error
        self._retire(index, scheduler)
        self._spawn(self._look_again())

    def _retire(self, index: int, scheduler: Scheduler) -> None:
        if self.schedulers.get(index) is scheduler:
            del self.schedulers[index]
        self.retired.append(scheduler)
        generations = scheduler.evacuate()
        self._spawn(self._end(scheduler))
        self._place(generations)

    async def _look_again(self) -> None:
        await asyncio.sleep(LONGEST_PAUSE)
        self._reconcile()

    async def _end(self, scheduler: Scheduler) -> None:
        await scheduler.close()
        await scheduler.replica.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
