"""What runs in the next step: the policy of the scheduler, without a call or a clock."""

from collections import deque
from collections.abc import Iterable

from muster.errors import MusterError
from muster.scheduler.plan import Batch, Counters, ForkPlan, Limits
from muster.scheduler.pool import Pool
from muster.scheduler.prefixes import Entry
from muster.scheduler.request import Job
from muster.values import Capacity, Fork, Output, Slice, StepResult, Token

# How often in a row a job's sequence may be lost before the job fails.
_REBUILDS = 3


class Batcher:
    """Decides what the next step holds, and keeps account of what became of the former ones.

    Decodes come first, each with one row, longest unserved first; prefill chunks fill the rows that
    are left, oldest request first. A request is admitted when its prompt fits the free KV blocks,
    and begins as a fork of the sequence with which it has most in common. Where blocks run out,
    sequences kept for that go first; then the youngest request gives its blocks back and begins
    anew later.

    Whoever drives it runs `next_batch` and reports `complete` or `refuse`, runs `next_forks` and
    reports `forked` or `unforked`, frees what `take_freed` names, and passes on `report`.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self.counters = Counters()
        # How many batches may be on their way at once, each with its share of the jobs.
        self.lanes = 1
        self._pool = self._new_pool()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._in_flight: list[Batch] = []
        self._forks: list[ForkPlan] = []
        # Given out, and without an answer yet.
        self._forking: set[ForkPlan] = set()
        self._turns = 0
        # Set when a step was refused for want of blocks and none could be given back.
        self._starved = False

    # --- What the driver asks.

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def kept(self) -> int:
        """Sequences that ended and are kept to be forked."""
        return self._pool.idle

    @property
    def idle(self) -> bool:
        return not (self._waiting or self._running)

    def prompt_tokens_ahead(self) -> int:
        """Tokens of prompts that have not run yet."""
        return sum(job.remaining for job in (*self._waiting, *self._running) if job.remaining > 1)

    def reusable(self, tokens: list[int]) -> int:
        """How many of a prompt's tokens need not be run here."""
        return self._pool.longest(tokens)[1]

    def add(self, job: Job) -> MusterError | None:
        """Takes a job, or says why it can never run."""
        if why := self._unfit(job):
            return why
        self._pool.prepare(job)
        self._waiting.append(job)
        return None

    def cancel(self, job: Job) -> None:
        """It runs no further, and its blocks are given back once its step has ended."""
        if job.ended:
            return
        job.finish = "cancelled"
        if job in self._waiting:
            self._waiting.remove(job)
            job.ended = True
        elif job.ready:
            self._end(job, keep=False)

    def evacuate(self) -> list[Job]:
        """Takes out all jobs, to run elsewhere; whatever was on its way is forgotten."""
        jobs = [job for job in (*self._running, *self._waiting) if not job.cancelled]
        for job in jobs:
            job.restart()
        for part in (self._running, self._waiting, self._in_flight, self._forks):
            part.clear()
        self._forking.clear()
        self._pool = self._new_pool()
        self._starved = False
        return jobs

    def report(self, capacity: Capacity) -> None:
        """What the replica says of its blocks, now."""
        on_their_way = sum(sum(batch.blocks) for batch in self._in_flight)
        if self._pool.report(capacity, on_their_way):
            self._starved = False

    def relieve(self) -> None:
        """Something may have changed: what was refused for want of blocks is tried again."""
        self._starved = False

    def take_freed(self) -> tuple[list[str], bool]:
        """Sequences to free, each named once, and whether the next step counts on their blocks."""
        return self._pool.take_freed()

    def next_forks(self) -> list[ForkPlan]:
        """Forks to make before their jobs can run, each given once."""
        self._admit()
        forks, self._forks = self._forks, []
        self._forking.update(forks)
        return forks

    def next_batch(self) -> Batch | None:
        """The next step; None where there is nothing to run now, or enough on its way."""
        if len(self._in_flight) >= self.lanes or self._starved:
            return None
        self._admit()
        batch = self._compose()
        if not batch.jobs:
            return None
        for job in batch.jobs:
            self._turns += 1
            job.in_flight, job.served = True, self._turns
        self._in_flight.append(batch)
        return batch

    # --- What became of it.

    def complete(self, batch: Batch, result: StepResult) -> list[tuple[Job, Token]]:
        """The tokens that a step gave, to be passed on; a job whose last it is has `ended` set."""
        self._in_flight.remove(batch)
        self._starved = False
        tokens: list[tuple[Job, Token]] = []
        for job, piece, output in zip(batch.jobs, batch.slices, result.outputs, strict=True):
            rows = len(piece.token_ids)
            job.in_flight = job.alone = False
            job.held += rows
            job.rebuilds = 0
            self.counters.prefilled += rows if rows > 1 or not job.generated else 0
            self._pool.advance(job)
            if job.cancelled:
                self._end(job, keep=False)
            elif output.error is not None:
                self._fail(job, output.error)
            elif piece.sample:
                self._take_token(job, output, tokens)
        return tokens

    def refuse(self, batch: Batch, error: MusterError) -> None:
        """A step was refused, and nothing of it ran; jobs that cannot run otherwise fail."""
        self._in_flight.remove(batch)
        self.counters.refusals += 1
        for job, blocks in zip(batch.jobs, batch.blocks, strict=True):
            job.in_flight = False
            self._pool.untake(job, blocks)
            if job.cancelled:
                self._end(job, keep=False)
        left = [job for job in batch.jobs if not job.ended]
        if error.kv_written:
            for job in left:
                self._rebuild(job, error)
        elif error.reason == "KV_CAPACITY":
            self._make_room(left, error)
        elif error.retriable:
            pass  # The driver waits, and the same jobs come again.
        elif len(batch.jobs) > 1:
            # One of them was at fault; each alone will show which.
            for job in left:
                job.alone = True
        elif left and error.of_lost_sequence and left[0].held:
            self._rebuild(left[0], error)
        elif left:
            self._fail(left[0], error)

    def forked(self, plan: ForkPlan, fork: Fork) -> None:
        """The job begins as a fork."""
        if plan not in self._forking:
            return
        self._forking.remove(plan)
        self._pool.unpin(plan.source, usable=True)
        job = plan.job
        if job.sequence_id != plan.sequence_id:
            self._pool.free_name(plan.sequence_id)  # It was taken elsewhere meanwhile.
            return
        job.forking = False
        job.held = job.reused = fork.tokens
        # A block that is not full becomes its own as soon as it writes.
        self._pool.take(job, self._pool.growth_of_fork(fork.tokens))
        self.counters.forks += 1
        self.counters.reused += fork.tokens
        self._pool.track(job)
        if job.cancelled:
            self._end(job, keep=False)

    def unforked(self, plan: ForkPlan) -> None:
        """There was no fork: the job runs its whole prompt, under another name."""
        if plan not in self._forking:
            return
        self._forking.remove(plan)
        self._pool.unpin(plan.source, usable=False)
        self._pool.free_name(plan.sequence_id)  # Whether it was made is not known.
        job = plan.job
        if job.sequence_id != plan.sequence_id:
            return
        job.restart()
        self._pool.track(job)
        if job.cancelled:
            self._end(job, keep=False)

    def _new_pool(self) -> Pool:
        limits = self.limits
        return Pool(limits.block_tokens, limits.sequences, limits.keep_prefixes)

    # --- Admission.

    def _unfit(self, job: Job) -> MusterError | None:
        prompt, limits = job.tokens, self.limits
        if not prompt or job.request.max_tokens < 1:
            what = "max_tokens is below 1" if prompt else "the prompt is empty"
            return MusterError(what, "INVALID_ARGUMENT", "INVALID_REQUEST")
        if len(prompt) > limits.context:
            return MusterError(
                f"the prompt has {len(prompt):,} tokens; the model's longest context is "
                f"{limits.context:,}", "OUT_OF_RANGE", "CONTEXT_EXCEEDED")
        if not 0 <= min(prompt) <= max(prompt) < limits.vocabulary:
            return MusterError(
                f"the prompt has a token outside of the vocabulary of {limits.vocabulary:,}",
                "INVALID_ARGUMENT", "INVALID_REQUEST")
        return None

    def _admit(self) -> None:
        """Moves jobs from waiting to running, as long as blocks and sequences last."""
        for job in list(self._waiting):
            if self._starved:
                return
            source, common = self._pool.longest(job.tokens, job.digests)
            if source is not None:
                if not source.idle and common - source.held >= self.limits.block_tokens:
                    continue  # Another is just about to run what this one can take over.
                common = min(common, source.held)
                if common < self.limits.block_tokens:
                    source, common = None, 0
            if not self._fits(job, source, common):
                return
            self._waiting.remove(job)
            self._running.append(job)
            if source is None:
                self._pool.track(job)
            else:
                job.forking, job.reused = True, common
                self._pool.pin(source)
                self._forks.append(ForkPlan(job, job.sequence_id, source, common))

    def _fits(self, job: Job, source: Entry | None, common: int) -> bool:
        """Whether the prompt fits, beside what the admitted ones will take."""
        if not self._pool.make_place(len(self._running), source):
            return False
        promised = sum(self._missing_blocks(other, other.reused) for other in self._running)
        if self._pool.make_room(self._missing_blocks(job, common) + promised, source):
            return True
        # With nothing of ours that could end, only the replica can tell.
        return not self._running

    def _missing_blocks(self, job: Job, reused: int) -> int:
        """KV blocks that a job's tokens will take; a fork shares whole blocks."""
        shared = reused // self.limits.block_tokens
        return max(0, self._pool.blocks(len(job.tokens)) - shared - job.blocks)

    # --- Composition.

    def _compose(self) -> Batch:
        ready = sorted((job for job in self._running if job.ready), key=lambda job: job.served)
        batch = Batch()
        for job in ready:
            if job.alone:
                self._put(batch, job, min(job.remaining, self.limits.rows))
                return batch
        decoding = [job for job in ready if job.remaining == 1]
        share = -(-sum(job.remaining == 1 for job in self._running) // self.lanes)
        for job in decoding[:max(1, share)]:
            self._offer(batch, job)
        for job in self._running:
            if job.ready and job.remaining > 1:
                self._offer(batch, job)
        # Nothing fits as far as is known here: the replica knows better.
        if not batch.jobs and ready and not self._in_flight:
            first = (decoding or ready)[0]
            self._put(batch, first, min(first.remaining, self.limits.rows))
        return batch

    def _offer(self, batch: Batch, job: Job) -> None:
        """Puts as many of a job's rows into the batch as fit."""
        rows = min(job.remaining, self.limits.rows - batch.rows)
        if rows < 1 or len(batch.jobs) >= self.limits.slices:
            return
        if self._pool.make_room(self._pool.growth(job, rows)):
            self._put(batch, job, rows)

    def _put(self, batch: Batch, job: Job, rows: int) -> None:
        blocks = self._pool.growth(job, rows)
        self._pool.take(job, blocks)
        sample = rows == job.remaining
        batch.jobs.append(job)
        batch.blocks.append(blocks)
        batch.rows += rows
        batch.slices.append(Slice(
            job.sequence_id, job.tokens[job.held:job.held + rows], job.held, sample,
            job.request.top_n if sample else 0, job.request.sampling))

    # --- Ends.

    def _take_token(self, job: Job, output: Output, tokens: list[tuple[Job, Token]]) -> None:
        token = output.token
        if token is None:
            self._fail(job, MusterError("the replica sampled no token", "INTERNAL"))
            return
        job.tokens.append(token.id)
        self.counters.sampled += 1
        tokens.append((job, token))
        if token.id in (job.request.stop_ids or ()):
            job.finish = "stop"
        elif job.generated >= job.request.max_tokens:
            job.finish = "length"
        elif len(job.tokens) > self.limits.context:
            job.finish = "context"
        if job.finish:
            self._end(job, keep=True)

    def _end(self, job: Job, keep: bool) -> None:
        """Takes out a job that was admitted; its sequence is kept to be forked, or freed."""
        job.ended = True
        self._running.remove(job)
        self._starved = False
        self._pool.retire(job, keep)

    def _fail(self, job: Job, error: MusterError) -> None:
        self._end(job, keep=False)
        job.sink.fail(error)

    def _make_room(self, refused: Iterable[Job], error: MusterError) -> None:
        """The blocks do not suffice for a step: something has to go, or to wait."""
        self._pool.exhausted()
        if self._pool.evict():
            return
        holding = [job for job in self._running if job.ready and job.held]
        if len(holding) > 1:
            job = holding[-1]
            self.counters.preemptions += 1
            self._pool.forget(job)
            self._running.remove(job)
            job.restart()
            self._waiting.appendleft(job)
            return
        for job in refused:
            if self._pool.total_blocks and (
                    self._pool.blocks(len(job.tokens)) > self._pool.total_blocks):
                self._fail(job, error)
                return
        self._starved = True

    def _rebuild(self, job: Job, error: MusterError) -> None:
        """The replica has lost the sequence: all its tokens run again."""
        job.rebuilds += 1
        self.counters.rebuilds += 1
        if job.rebuilds > _REBUILDS:
            self._fail(job, error)
            return
        self._pool.forget(job)
        job.restart()
        self._pool.track(job)
