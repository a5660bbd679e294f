"""Scheduler and Router over gRPC, against a leader that can be made to fail."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import loop
import pytest
from fake_fleet import FakeFleet, Refused
from muster.aio import Fleet, Replica
from muster.errors import MusterError
from muster.scheduler import Options, Request, Router, Scheduler
from muster.tokenizer import Detokenizer
from proto.muster.v1 import fleet_pb2

NO_STOP: frozenset[int] = frozenset()


@pytest.fixture
def server():
    server = FakeFleet(slices=8, rows=16)
    yield server
    server.stop()


def answer_to(prompt, count: int) -> list[int]:
    """What the fake says after a prompt."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(sum(tokens) % 10)
    return tokens[len(prompt):]


def ids(tokens) -> list[int]:
    return [token.id for token in tokens]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def scheduled(server: FakeFleet, work: Callable[[Scheduler], Awaitable[object]],
              patience: float = 10.0, options: Options = Options(), find_leader=None):
    """Runs `work` with a scheduler of the server."""

    async def run():
        replica = Replica(server.address, "me", patience=patience, find_leader=find_leader)
        async with replica, Scheduler(replica, await replica.model(), options) as scheduler:
            async with asyncio.timeout(30):
                return await work(scheduler)

    return loop.run(run())


def requests(count: int, max_tokens: int = 6) -> list[Request]:
    return [Request((index % 90, 3, 5), max_tokens, stop_ids=NO_STOP) for index in range(count)]


async def all_of(scheduler: Scheduler, asked: list[Request]) -> list[list[int]]:
    generations = [scheduler.submit(request) for request in asked]
    return [ids(await generation.wait()) for generation in generations]


def wanted(asked: list[Request]) -> list[list[int]]:
    return [answer_to(request.prompt, request.max_tokens) for request in asked]


def test_many_requests_share_steps_and_each_gets_its_answer(server):
    asked = requests(12)
    assert scheduled(server, lambda scheduler: all_of(scheduler, asked)) == wanted(asked)
    assert max(len(request.slices) for request in server.forwards) == 8
    assert len(server.forwards) < 12 * 6


def test_the_end_token_of_the_model_ends_a_generation(server):
    async def work(scheduler):
        generation = scheduler.submit(Request((4, 5), 50))
        return ids(await generation.wait()), generation.finish_reason

    assert scheduled(server, work) == ([9], "stop")


def test_everything_is_given_back_at_the_end(server):
    scheduled(server, lambda scheduler: all_of(scheduler, requests(5)))
    assert not server.sequences


def test_pieces_come_one_by_one_with_their_text(server):
    async def work(scheduler):
        generation = scheduler.submit(
            Request((1, 1), 4, stop_ids=NO_STOP),
            Detokenizer(lambda tokens: "".join(map(str, tokens))))
        return [(piece.token.id, piece.text) async for piece in generation]

    assert scheduled(server, work) == [(2, "2"), (4, "4"), (8, "8"), (6, "6")]


def test_a_stop_text_across_tokens_ends_a_generation(server):
    async def work(scheduler):
        generation = scheduler.submit(
            Request((1, 1), 50, stop_ids=NO_STOP),
            Detokenizer(lambda tokens: "".join(map(str, tokens)), stop=["48"]))
        text = "".join([piece.text async for piece in generation])
        await until(lambda: scheduler.batcher.idle)
        return text, generation.finish_reason

    assert scheduled(server, work) == ("2", "stop")


def test_a_reader_that_leaves_cancels_and_frees(server):
    async def work(scheduler):
        generation = scheduler.submit(Request((1, 1), 390, stop_ids=NO_STOP))
        async for _ in generation:
            break
        await generation.__aiter__().aclose()
        generation.cancel()
        await until(lambda: not server.sequences)
        return generation.finish_reason

    assert scheduled(server, work) == "cancelled"


def test_a_cancelled_request_that_waits_never_runs(server):
    async def work(scheduler):
        generation = scheduler.submit(Request((1, 1), 5))
        generation.cancel()
        await asyncio.sleep(0)
        return await generation.wait()

    assert scheduled(server, work) == []
    assert not server.forwards


def test_a_bad_request_fails_and_disturbs_nobody(server):
    async def work(scheduler):
        bad = scheduler.submit(Request((1000,), 5))
        good = scheduler.submit(Request((1, 1), 2, stop_ids=NO_STOP))
        with pytest.raises(MusterError, match="outside of the vocabulary"):
            await bad.wait()
        return ids(await good.wait())

    assert scheduled(server, work) == [2, 4]


def test_an_answer_lost_with_its_connection_is_asked_for_again_and_not_run_twice(server):
    server.lose_answers = 3
    asked = requests(4)
    assert scheduled(server, lambda scheduler: all_of(scheduler, asked)) == wanted(asked)
    assert server.retries == 3


def test_an_epoch_that_keeps_its_sequences_goes_unnoticed(server):
    async def work(scheduler):
        generations = [scheduler.submit(request) for request in asked]
        await until(lambda: len(server.forwards) > 3)
        server.begin_epoch(keep=True)
        return [ids(await generation.wait()) for generation in generations]

    asked = requests(4, max_tokens=30)
    assert scheduled(server, work) == wanted(asked)
    assert sum(piece.first_position == 0 for it in server.forwards for piece in it.slices) == 4


def test_an_epoch_that_loses_its_sequences_has_them_built_anew(server):
    async def work(scheduler):
        generations = [scheduler.submit(request) for request in asked]
        await until(lambda: len(server.forwards) > 3)
        server.begin_epoch(keep=False)
        answers = [ids(await generation.wait()) for generation in generations]
        return answers, scheduler.counters.rebuilds

    asked = requests(4, max_tokens=30)
    answers, rebuilds = scheduled(server, work)
    assert answers == wanted(asked) and rebuilds == 4


def test_a_refusal_that_is_retriable_is_tried_again(server):
    refusals = iter([True, True])

    def refuse_twice(request):
        if next(refusals, False):
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "16 requests wait", "QUEUE_FULL",
                          retriable=True)

    server.faults = refuse_twice
    asked = requests(3)
    assert scheduled(server, lambda scheduler: all_of(scheduler, asked)) == wanted(asked)


def test_a_refusal_that_is_not_retriable_is_not_tried_again(server):
    tried = []

    def refuse(request):
        tried.append(request)
        raise Refused(grpc.StatusCode.INTERNAL, "rank 1 is broken", "RANK_FAILED")

    async def work(scheduler):
        with pytest.raises(MusterError, match="rank 1 is broken"):
            await scheduler.submit(Request((1, 1), 5)).wait()

    server.faults = refuse
    scheduled(server, work)
    assert len(tried) == 1


def test_few_blocks_delay_requests_and_fail_none():
    server = FakeFleet(blocks=12, slices=8, rows=16)
    try:
        asked = requests(10, max_tokens=20)
        assert scheduled(server, lambda scheduler: all_of(scheduler, asked)) == wanted(asked)
    finally:
        server.stop()


def test_the_second_user_of_a_prompt_forks_it(server):
    prompt = tuple(range(40))

    async def work(scheduler):
        await scheduler.submit(Request((*prompt, 50), 2, stop_ids=NO_STOP)).wait()
        rows = scheduler.counters.prefilled
        second = scheduler.submit(Request((*prompt, 60), 2, stop_ids=NO_STOP))
        tokens = ids(await second.wait())
        return tokens, second.reused, scheduler.counters.prefilled - rows

    assert scheduled(server, work) == (answer_to((*prompt, 60), 2), 40, 1)
    assert [request.tokens for request in server.forks] == [40]


def test_without_reuse_every_prompt_runs(server):
    asked = [Request(tuple(range(40)), 2, stop_ids=NO_STOP)] * 2
    options = Options(keep_prefixes=False)
    assert scheduled(server, lambda it: all_of(it, asked), options=options) == wanted(asked)
    assert not server.forks


def test_several_lanes_have_several_steps_on_their_way(server):
    asked = requests(8)
    options = Options(lanes=3)
    assert scheduled(server, lambda it: all_of(it, asked), options=options) == wanted(asked)
    decodes = [request.slices for request in server.forwards
               if all(len(piece.token_ids) == 1 for piece in request.slices)]
    assert max(map(len, decodes)) <= 3


def test_a_leader_that_is_gone_for_good_fails_what_runs(server):
    async def work(scheduler):
        generation = scheduler.submit(Request((1, 1), 390, stop_ids=NO_STOP))
        await until(lambda: generation.tokens)
        await asyncio.to_thread(server.stop)
        with pytest.raises(MusterError, match="nothing answers at"):
            await generation.wait()

    scheduled(server, work, patience=0.2)


def test_a_leader_that_moves_is_followed_and_nothing_is_lost(server):
    other = FakeFleet(slices=8, rows=16)

    async def find_leader():
        return other.address

    async def work(scheduler):
        generations = [scheduler.submit(request) for request in asked]
        await until(lambda: len(server.forwards) > 3)
        await asyncio.to_thread(server.stop)
        return [ids(await generation.wait()) for generation in generations]

    asked = requests(4, max_tokens=60)
    try:
        assert scheduled(server, work, find_leader=find_leader) == wanted(asked)
        assert other.forwards
    finally:
        other.stop()


def routed(server: FakeFleet, work: Callable[[Router], Awaitable[object]], patience: float = 20.0):
    """Runs `work` with a router of the fleet."""

    async def run():
        async with Fleet(server.address, patience=0.2) as fleet:
            async with Router(fleet, patience=patience) as router, asyncio.timeout(30):
                return await work(router)

    return loop.run(run())


def test_a_router_waits_for_a_replica_to_serve(server):
    async def work(router):
        generation = router.submit(Request((1, 1), 2, stop_ids=NO_STOP))
        with server.change():
            server.state = fleet_pb2.REPLICA_STATE_SERVING
        return ids(await generation.wait())

    server.state = fleet_pb2.REPLICA_STATE_FORMING
    assert routed(server, work) == [2, 4]


def test_a_router_tells_why_nothing_serves_when_its_patience_ends(server):
    async def work(router):
        with pytest.raises(MusterError, match="rank 1 is lost"):
            await router.submit(Request((1, 1), 2)).wait()
        with pytest.raises(MusterError, match="rank 1 is lost"):
            await router.ready()

    server.state = fleet_pb2.REPLICA_STATE_FAILED
    routed(server, work, patience=0.2)


def test_requests_of_a_replica_that_fails_go_on_when_it_serves_again(server):
    async def work(router):
        generation = router.submit(Request((1, 1), 100, stop_ids=NO_STOP))
        await until(lambda: generation.tokens)
        with server.change():
            server.state = fleet_pb2.REPLICA_STATE_FAILED
        await until(lambda: not router.schedulers)
        server.begin_epoch(keep=False)
        with server.change():
            server.state = fleet_pb2.REPLICA_STATE_SERVING
        return ids(await generation.wait())

    assert routed(server, work) == answer_to((1, 1), 100)


def test_requests_spread_over_replicas(server):
    async def work(router):
        await router.ready(2)
        asked = requests(8)
        generations = [router.submit(request) for request in asked]
        answers = [ids(await generation.wait()) for generation in generations]
        return answers == wanted(asked)

    other = FakeFleet(slices=8, rows=16)
    plain = server._replicas

    def two_replicas():
        (first,) = plain()
        second = fleet_pb2.ReplicaStatus()
        second.CopyFrom(first)
        second.replica = 1
        for rank in second.topology.ranks:
            rank.address = other.address
        return [first, second]

    server._replicas = two_replicas
    try:
        assert routed(server, work)
        begun = [sum(piece.first_position == 0 for it in fake.forwards for piece in it.slices)
                 for fake in (server, other)]
        assert begun == [4, 4]
    finally:
        other.stop()
