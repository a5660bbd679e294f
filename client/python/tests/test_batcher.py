"""The policy of the scheduler, on a replica without calls."""

import random

import pytest
from muster.errors import MusterError
from muster.scheduler.batcher import Batcher
from muster.scheduler.plan import Batch, Limits
from muster.scheduler.request import Job, Request
from muster.values import Token
from simulated_replica import SimulatedReplica, answer_to

LIMITS = Limits(rows=8, slices=4, sequences=32, context=64, vocabulary=100, block_tokens=4)


class Reader:
    """What came of a request."""

    def __init__(self):
        self.tokens: list[int] = []
        self.ends: list[str] = []

    def push(self, token: Token) -> None:
        assert not self.ends
        self.tokens.append(token.id)

    def finish(self, reason) -> None:
        self.ends.append(reason)

    def fail(self, error: MusterError) -> None:
        self.ends.append(error.reason)


class Rig:
    """A batcher and the replica that it drives."""

    def __init__(self, blocks: int = 1000, limits: Limits = LIMITS):
        self.batcher = Batcher(limits)
        self.replica = SimulatedReplica(limits.block_tokens, blocks)

    def add(self, *prompt: int, max_tokens: int = 4, stop=frozenset()) -> Job:
        job = Job(Request(prompt, max_tokens, stop_ids=frozenset(stop)), Reader())
        if error := self.batcher.add(job):
            job.sink.fail(error)
        return job

    def run_forks(self) -> None:
        for plan in self.batcher.next_forks():
            fork = self.replica.fork(plan)
            if fork is None:
                self.batcher.unforked(plan)
            else:
                self.batcher.forked(plan, fork)

    def send(self) -> Batch | None:
        self.run_forks()
        batch = self.batcher.next_batch()
        self.replica.free(self.batcher)
        return batch

    def answer(self, batch: Batch) -> None:
        result = self.replica.run(batch)
        if isinstance(result, MusterError):
            self.batcher.refuse(batch, result)
        else:
            for job, token in self.batcher.complete(batch, result):
                job.sink.push(token)
                if job.ended and job.finish != "cancelled":
                    job.sink.finish(job.finish)
        self.replica.free(self.batcher)

    def step(self) -> Batch | None:
        batch = self.send()
        if batch is not None:
            self.answer(batch)
        return batch

    def run(self, steps: int = 1000) -> None:
        """Until nothing is left to do."""
        while not self.batcher.idle:
            steps -= 1
            assert steps, "it does not end"
            self.step()


def rows_of(batch: Batch) -> list[int]:
    return [len(piece.token_ids) for piece in batch.slices]


def test_a_prompt_goes_in_chunks_and_only_the_last_samples():
    rig = Rig()
    rig.add(*range(20), max_tokens=1)
    steps = [rig.step() for _ in range(3)]
    assert [rows_of(step) for step in steps] == [[8], [8], [4]]
    assert [step.slices[0].sample for step in steps] == [False, False, True]
    assert rig.batcher.idle


def test_decodes_come_first_and_prefill_fills_what_rows_are_left():
    rig = Rig()
    first = rig.add(1, 2, max_tokens=9)
    rig.step()
    second = rig.add(*range(20))
    batch = rig.send()
    assert batch.jobs == [first, second] and rows_of(batch) == [1, 7]


def test_more_sequences_than_a_step_holds_take_turns():
    rig = Rig()
    jobs = [rig.add(index, max_tokens=6) for index in range(6)]
    for _ in range(6):
        rig.step()
    served = [len(job.sink.tokens) for job in jobs]
    assert max(served) - min(served) <= 1


def test_a_stop_token_ends_a_generation_and_is_passed_on():
    rig = Rig()
    expected = answer_to((1, 2, 3), 10)
    job = rig.add(1, 2, 3, max_tokens=10, stop={expected[2]})
    rig.run()
    assert job.sink.tokens == expected[:expected.index(expected[2]) + 1]
    assert job.sink.ends == ["stop"]


def test_a_generation_ends_where_the_context_does():
    rig = Rig()
    job = rig.add(*range(62), max_tokens=50)
    rig.run()
    assert (job.sink.ends, len(job.sink.tokens)) == (["context"], 3)


@pytest.mark.parametrize("prompt, max_tokens, reason", [
    ((), 1, "INVALID_REQUEST"), ((1,), 0, "INVALID_REQUEST"), ((100,), 1, "INVALID_REQUEST"),
    (tuple(range(65)), 1, "CONTEXT_EXCEEDED")])
def test_what_can_never_run_is_refused_at_once(prompt, max_tokens, reason):
    job = Rig().add(*prompt, max_tokens=max_tokens)
    assert job.sink.ends == [reason]


def test_the_second_user_of_a_prompt_runs_only_what_differs():
    rig = Rig()
    shared = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    rig.add(*shared, 7, 7)
    rig.run()
    before = rig.replica.rows_run
    job = rig.add(*shared, 8, 8, max_tokens=1)
    rig.run()
    assert rig.replica.rows_run - before == 2
    assert job.reused == 10 and job.sink.tokens == answer_to((*shared, 8, 8), 1)


def test_the_same_prompt_again_runs_one_token():
    rig = Rig()
    prompt = tuple(range(12))
    rig.add(*prompt, max_tokens=1)
    rig.run()
    before = rig.replica.rows_run
    job = rig.add(*prompt, max_tokens=1)
    rig.run()
    assert rig.replica.rows_run - before == 1
    assert job.sink.tokens == answer_to(prompt, 1)


def test_a_prompt_waits_for_the_one_that_is_just_running_the_same():
    rig = Rig()
    prompt = tuple(range(24))
    jobs = [rig.add(*prompt, index, max_tokens=2) for index in range(4)]
    rig.run()
    assert rig.replica.rows_run <= 25 + 3 * 1 + 4 * 2
    assert [job.sink.tokens for job in jobs] == [
        answer_to((*prompt, index), 2) for index in range(4)]


def test_whoever_waits_for_a_prompt_that_is_cancelled_runs_it_itself():
    rig = Rig()
    first, second = rig.add(*range(24)), rig.add(*range(24))
    batch = rig.send()
    rig.batcher.cancel(first)
    rig.answer(batch)
    rig.run()
    assert second.sink.tokens == answer_to(tuple(range(24)), 4)
    assert not first.sink.tokens


def test_a_source_that_the_replica_has_lost_is_forgotten():
    rig = Rig()
    rig.add(*range(12), max_tokens=1)
    rig.run()
    rig.replica.sequences.clear()
    job = rig.add(*range(12), 5, max_tokens=1)
    rig.run()
    assert job.reused == 0 and job.sink.tokens == answer_to((*range(12), 5), 1)


def test_kept_prefixes_go_when_blocks_are_needed():
    rig = Rig(blocks=8)
    rig.batcher.report(rig.replica.capacity())
    rig.add(*range(20), max_tokens=1)
    rig.run()
    assert rig.batcher.kept == 1
    job = rig.add(*range(50, 78), max_tokens=1)
    rig.run()
    assert job.sink.ends == ["length"] and rig.replica.used() <= 8


def test_where_blocks_run_out_the_youngest_begins_anew_and_says_the_same():
    rig = Rig(blocks=8)
    jobs = [rig.add(index, index, index, index, max_tokens=12) for index in range(3)]
    rig.run()
    assert rig.batcher.counters.preemptions > 0
    assert [job.sink.tokens for job in jobs] == [
        answer_to((index,) * 4, 12) for index in range(3)]


def test_a_request_that_never_fits_fails_instead_of_waiting():
    rig = Rig(blocks=3)
    rig.batcher.report(rig.replica.capacity())
    job = rig.add(*range(20))
    rig.run()
    assert job.sink.ends == ["KV_CAPACITY"]


def test_while_others_hold_all_blocks_nothing_is_tried_until_more_are_free():
    rig = Rig(blocks=4)
    rig.replica.sequences["another's"] = [0] * 16
    rig.batcher.report(rig.replica.capacity())
    job = rig.add(1, 2)
    rig.step()
    assert rig.step() is None
    del rig.replica.sequences["another's"]
    rig.batcher.report(rig.replica.capacity())
    rig.run()
    assert job.sink.ends == ["length"]


def test_lost_sequences_are_built_anew_and_the_answer_is_the_same():
    rig = Rig()
    jobs = [rig.add(index, 5, max_tokens=6) for index in range(3)]
    for _ in range(3):
        rig.step()
    rig.replica.sequences.clear()
    rig.run()
    assert [job.sink.tokens for job in jobs] == [answer_to((index, 5), 6) for index in range(3)]


def test_one_bad_slice_fails_alone():
    rig = Rig()
    good, bad = rig.add(1, 2), rig.add(50, 60)
    plain_run = rig.replica.run

    def run(batch: Batch):
        if any(50 in piece.token_ids for piece in batch.slices):
            return MusterError("no", "INVALID_ARGUMENT", "INVALID_REQUEST")
        return plain_run(batch)

    rig.replica.run = run
    rig.run()
    assert bad.sink.ends == ["INVALID_REQUEST"]
    assert good.sink.tokens == answer_to((1, 2), 4)


def test_two_lanes_share_the_sequences():
    rig = Rig()
    rig.batcher.lanes = 2
    for index in range(4):
        rig.add(index, max_tokens=5)
    rig.step()
    one, two = rig.send(), rig.send()
    assert len(one.jobs) == len(two.jobs) == 2
    assert not set(one.jobs) & set(two.jobs)
    assert rig.send() is None


def test_evacuated_requests_go_on_elsewhere_from_the_tokens_they_have():
    rig, elsewhere = Rig(), Rig()
    job = rig.add(4, 2, max_tokens=6)
    for _ in range(3):
        rig.step()
    for moved in rig.batcher.evacuate():
        elsewhere.batcher.add(moved)
    elsewhere.run()
    assert job.sink.tokens == answer_to((4, 2), 6) and job.sink.ends == ["length"]


class Chaos:
    """Arrivals, cancellations, losses and lack of blocks, drawn from a seed."""

    def __init__(self, seed: int):
        self.dice = random.Random(seed)
        self.limits = Limits(
            rows=self.dice.choice([2, 5, 16]), slices=self.dice.choice([1, 3, 8]), sequences=12,
            context=64, vocabulary=100, block_tokens=self.dice.choice([1, 4]),
            keep_prefixes=self.dice.random() < 0.8)
        # At least one of the longest requests fits.
        self.rig = Rig(-(-40 // self.limits.block_tokens) + self.dice.randrange(20), self.limits)
        self.rig.batcher.lanes = self.dice.choice([1, 1, 2, 3])
        self.jobs: list[Job] = []
        self.sent: list[Batch] = []
        self.cancelled: set[Job] = set()

    def arrive(self) -> None:
        stem = self.dice.choice([(), (1, 2, 3, 4, 5, 6, 7, 8, 9), (9, 9, 9, 9, 9)])
        prompt = (*stem, *(self.dice.randrange(100) for _ in range(self.dice.randint(1, 15))))
        self.jobs.append(self.rig.add(*prompt, max_tokens=self.dice.randint(1, 12)))

    def cancel(self) -> None:
        job = self.dice.choice(self.jobs)
        if not job.ended:
            self.cancelled.add(job)
            self.rig.batcher.cancel(job)

    def send(self) -> None:
        batch = self.rig.send()
        if batch is None:
            return
        assert 1 <= batch.rows <= self.limits.rows
        assert len(batch.slices) <= self.limits.slices
        self.check_priority(batch)
        self.sent.append(batch)

    def check_priority(self, batch: Batch) -> None:
        """No prompt takes a row while a decode that needs no block was left out."""
        prefilled = any(len(piece.token_ids) > 1 for piece in batch.slices)
        if prefilled and self.rig.batcher.lanes == 1 and not batch.jobs[0].alone:
            left_out = [job for job in self.jobs if job.ready and job.remaining == 1
                        and job.held % self.limits.block_tokens]
            assert not left_out or self.limits.slices == len(batch.jobs)

    def run(self) -> None:
        for _ in range(300):
            event = self.dice.random()
            if event < 0.15 and len(self.jobs) < 25:
                self.arrive()
            elif event < 0.2 and self.jobs:
                self.cancel()
            elif event < 0.22:
                self.rig.replica.sequences.clear()
            elif event < 0.3:
                self.rig.batcher.report(self.rig.replica.capacity())
            elif event < 0.65:
                self.send()
            elif self.sent:
                self.rig.answer(self.sent.pop(0))
        for _ in range(3000):
            if self.rig.batcher.idle and not self.sent:
                self.rig.replica.free(self.rig.batcher)
                return
            self.rig.batcher.relieve()
            self.send()
            if self.sent:
                self.rig.answer(self.sent.pop(0))
        raise AssertionError("it does not end")


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_each_request_is_answered_once_and_rightly(seed):
    chaos = Chaos(seed)
    chaos.run()
    for job in chaos.jobs:
        wanted = answer_to(job.request.prompt, job.request.max_tokens)
        if job in chaos.cancelled:
            assert job.sink.tokens == wanted[:len(job.sink.tokens)] and not job.sink.ends
        else:
            assert (job.sink.tokens, job.sink.ends) == (wanted, ["length"]), job.request
    # What is kept is kept to be forked; everything else was given back.
    assert len(chaos.rig.replica.sequences) <= chaos.rig.batcher.kept
