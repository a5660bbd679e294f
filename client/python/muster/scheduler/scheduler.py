"""Continuous batching over one replica."""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from muster.aio import Replica
from muster.detokenizer import Detokenizer
from muster.errors import MusterError
from muster.retry import LONGEST_PAUSE, Retries
from muster.scheduler.batcher import Batcher
from muster.scheduler.generation import Generation
from muster.scheduler.plan import Batch, Counters, ForkPlan, Limits
from muster.scheduler.request import Job, Request
from muster.stream import Answer, ForwardStream
from muster.values import Model, StepResult, Token

# More batches at once than this only make each of them smaller.
_MOST_LANES = 4
# Weight of a new measurement in a running mean.
_FRESH = 0.1


@dataclass(frozen=True)
class Options:
    """How a scheduler works.

    Attributes:
      rows: tokens of a step at most; None: as many as the replica allows.
      keep_prefixes: whether sequences are kept after their end, to begin others with.
      lanes: batches on their way at once; None: several only where the way to the replica and back
        takes longer than a step.
    """

    rows: int | None = None
    keep_prefixes: bool = True
    lanes: int | None = None


@dataclass
class Statistics:
    """What a scheduler has done.

    Attributes:
      busy_s: seconds in which it had unfinished requests.
      device_s: seconds of them in which the device ran a step.
      queue_s, relay_s: seconds that its steps waited for the engine, and that stamping took.
    """

    steps: int = 0
    busy_s: float = 0.0
    device_s: float = 0.0
    queue_s: float = 0.0
    relay_s: float = 0.0

    @property
    def device_share(self) -> float:
        """Share of the busy time in which the device ran: 1 is all that it allows."""
        return self.device_s / self.busy_s if self.busy_s else 0.0


class Scheduler:
    """Runs requests on a replica, as many at once as fit. Belongs to one event loop.

        async with Scheduler(replica, await replica.model()) as scheduler:
            tokens = await scheduler.submit(Request(prompt=(1, 2, 3))).wait()

    A token goes to its reader only after the next step is on its way, so that a device never waits
    for a reader.
    """

    def __init__(self, replica: Replica, model: Model, options: Options = Options(),
                 on_lost: "Callable[[Scheduler, MusterError], None] | None" = None):
        """
        Args:
          replica: of this scheduler alone; closing it is the caller's.
          model: of the replica.
          options: how it works.
          on_lost: told when the replica cannot be reached any more, once; it may `evacuate`.
            Without it all requests fail then.
        """
        self.replica = replica
        self.model = model
        self.statistics = Statistics()
        self._options = options
        self._on_lost = on_lost
        self._batcher = Batcher(Limits.of(model, options.rows, options.keep_prefixes))
        self._batcher.lanes = options.lanes or 1
        self._stream = ForwardStream(replica)
        self._batches: dict[str, Batch] = {}
        # Sampled, but not passed on: the next step is sent first.
        self._tokens: list[tuple[Job, Token]] = []
        self._retries: Retries | None = None
        self._epoch = model.epoch
        self._pumping = asyncio.Lock()
        self._work = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost: MusterError | None = None
        # Of the time between two answers, smoothed: the device's part, and the rest. Milliseconds.
        self._device_ms = self._gap_ms = 0.0
        self._answered = 0.0
        self._busy_since = 0.0

    async def __aenter__(self) -> "Scheduler":
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def counters(self) -> Counters:
        return self._batcher.counters

    @property
    def batcher(self) -> Batcher:
        return self._batcher

    def start(self) -> None:
        """Begins to run what is submitted."""
        self.replica.keep_lease(self.model)
        for work in (self._read_answers, self._pump_when_woken, self._watch_capacity):
            self._spawn(work())

    async def close(self) -> None:
        """Ends what runs, and gives all sequences back."""
        for generation in self.evacuate():
            generation.fail(MusterError("the scheduler was closed", "CANCELLED"))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stream.forget()
        if self._lost is None:
            try:
                await self.replica.free_all()
            except MusterError:
                pass  # Its lease gives them back.

    def submit(self, request: Request, detokenizer: Detokenizer | None = None) -> Generation:
        """Takes a request; what is wrong with it comes as the generation's error.

        Args:
          request: what to continue.
          detokenizer: makes text of the tokens, and ends the generation at a stop text.
        """
        generation = Generation(request, detokenizer)
        self.take(generation)
        return generation

    def take(self, generation: Generation) -> None:
        """Takes a request, or one that another scheduler has begun."""
        job = generation.job
        if job.request.stop_ids is None:
            job.request = replace(job.request, stop_ids=self.model.eos_token_ids)
        generation.bind(self._cancel)
        error = self._lost or self._batcher.add(job)
        if error is not None:
            generation.fail(error)
            return
        if not self._busy_since:
            self._busy_since = self._answered = time.perf_counter()
        self._work.set()

    def evacuate(self) -> list[Generation]:
        """Takes all requests out, to run elsewhere. What they generated so far they keep."""
        self._deliver()
        self._stream.forget()
        self._batches.clear()
        jobs = self._batcher.evacuate()
        self._note_idle()
        return [job.sink for job in jobs if isinstance(job.sink, Generation)]

    # --- Tasks.

    async def _read_answers(self) -> None:
        try:
            async for answer in self._stream.answers():
                await self._take_answer(answer)
        except MusterError as error:
            self._lose(error)

    async def _pump_when_woken(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            await self._pump()

    async def _watch_capacity(self) -> None:
        while True:
            try:
                async for capacity in self.replica.watch_capacity():
                    self._batcher.report(capacity)
                    if self._batcher.waiting or not self._batcher.in_flight:
                        self._work.set()
            except MusterError:
                pass
            # Without its reports, what does not fit is found by trying.
            await asyncio.sleep(LONGEST_PAUSE)

    async def _take_answer(self, answer: Answer) -> None:
        batch = self._batches.pop(answer.request_id, None)
        if batch is None:
            return
        if isinstance(answer.result, MusterError):
            await self._take_refusal(batch, answer.result)
            return
        self._retries = None
        self._measure(answer.result)
        self._note_epoch(answer.result.epoch)
        self._tokens += self._batcher.complete(batch, answer.result)
        await self._pump()
        self._deliver()
        self._note_idle()

    async def _take_refusal(self, batch: Batch, error: MusterError) -> None:
        self._batcher.refuse(batch, error)
        await self._free()
        if error.reason == "STALE_EPOCH":
            # Steps here name no epoch: the same one runs in that which came.
            self._note_epoch(error.epoch)
        if error.retriable and error.reason != "KV_CAPACITY":
            self._retries = self._retries or Retries(self.replica.patience)
            try:
                await self.replica.recover(error, self._retries.pause_after(error))
            except MusterError:
                self._lose(error)
                return
        self._note_idle()
        # Where the refusal left nothing that could run, this asks again after a while.
        asyncio.get_running_loop().call_later(LONGEST_PAUSE, self._relieve)
        await self._pump()

    def _deliver(self) -> None:
        """Passes on what has been sampled."""
        tokens, self._tokens = self._tokens, []
        for job, token in tokens:
            job.sink.push(token)
            if job.ended and job.finish and job.finish != "cancelled":
                job.sink.finish(job.finish)

    # --- Steps.

    async def _pump(self) -> None:
        """Sends what can run now."""
        async with self._pumping:
            for plan in self._batcher.next_forks():
                self._spawn(self._fork(plan))
            while batch := self._batcher.next_batch():
                freed, urgent = self._batcher.take_freed()
                if urgent:
                    await self._free_names(freed)
                elif freed:
                    self._spawn(self._free_names(freed))
                request_id = secrets.token_hex(8)
                self._batches[request_id] = batch
                await self._stream.send(batch.slices, request_id)
            await self._free(wait=False)

    async def _fork(self, plan: ForkPlan) -> None:
        try:
            fork = await self.replica.fork(plan.source.sequence_id, plan.sequence_id, plan.tokens)
        except MusterError:
            self._batcher.unforked(plan)
        else:
            self._batcher.forked(plan, fork)
        await self._pump()

    def _note_epoch(self, epoch: int) -> None:
        if epoch not in (0, self._epoch):
            self._epoch = epoch
            self._spawn(self._learn_limits())

    async def _learn_limits(self) -> None:
        """After a change of shape a step may hold more, or less."""
        try:
            self.model = await self.replica.model()
        except MusterError:
            return
        self._batcher.limits = Limits.of(
            self.model, self._options.rows, self._options.keep_prefixes)

    async def _free(self, wait: bool = True) -> None:
        freed, _ = self._batcher.take_freed()
        if freed and wait:
            await self._free_names(freed)
        elif freed:
            self._spawn(self._free_names(freed))

    async def _free_names(self, names: list[str]) -> None:
        try:
            await self.replica.free(*names)
        except MusterError:
            pass  # Whoever does not answer has lost them, or will by the lease.

    def _relieve(self) -> None:
        self._batcher.relieve()
        self._work.set()

    def _cancel(self, job: Job) -> None:
        self._batcher.cancel(job)
        self._note_idle()
        self._work.set()

    def _lose(self, error: MusterError) -> None:
        """The replica does not answer any more."""
        if self._lost is not None:
            return
        self._lost = error
        if self._on_lost is not None:
            self._on_lost(self, error)
        else:
            for generation in self.evacuate():
                generation.fail(error)

    # --- Figures.

    def _measure(self, result: StepResult) -> None:
        now = time.perf_counter()
        gap_ms = max(0.0, (now - self._answered) * 1e3 - result.device_ms)
        self._answered = now
        self.statistics.steps += 1
        self.statistics.device_s += result.device_ms / 1e3
        self.statistics.queue_s += result.queue_ms / 1e3
        self.statistics.relay_s += result.relay_ms / 1e3
        self._device_ms += _FRESH * (result.device_ms - self._device_ms)
        self._gap_ms += _FRESH * (gap_ms - self._gap_ms)
        if self._options.lanes is None and self._batcher.lanes == 1:
            # Two half batches take nearly as long as two whole ones: it pays only where the device
            # waits longer than it works.
            lanes = int(1 + self._gap_ms / max(self._device_ms, 1e-3))
            self._batcher.lanes = min(lanes, _MOST_LANES) if self.statistics.steps > 20 else 1

    def _note_idle(self) -> None:
        if self._busy_since and self._batcher.idle:
            self.statistics.busy_s += time.perf_counter() - self._busy_since
            self._busy_since = 0.0

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
