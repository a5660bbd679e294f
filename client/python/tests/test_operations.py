"""Changes of shape: what the calls say of them, and that nothing notices them."""

import asyncio
import threading

import loop
import pytest
from fake_fleet import FakeFleet, Refused
from grpc import StatusCode
from muster import aio
from muster.client import Fleet
from muster.errors import MusterError
from muster.scheduler import Request, Router
from muster.scheduler.plan import Counters
from muster.values import Operation, ParallelConfig


@pytest.fixture
def server():
    server = FakeFleet(slices=8, rows=16)
    yield server
    server.go_on.set()
    server.stop()


@pytest.fixture
def fleet(server):
    with Fleet(server.address) as fleet:
        yield fleet


def test_a_resize_tells_of_its_progress_and_returns_its_figures(server, fleet):
    states: list[Operation] = []
    operation = fleet.scale_context_parallel(4, "grow", timeout=1.5, on_progress=states.append)
    assert [state.state for state in states] == ["RUNNING", "DONE"]
    assert (states[0].ended, states[0].replicas[0].stage) == (None, "PREPARING")
    assert (operation.id, operation.kind) == ("grow", "SCALE_CONTEXT_PARALLEL")
    (resize,) = operation.replicas
    assert (resize.from_config.cp, resize.to_config.cp, resize.in_force) == (2, 4, True)
    assert (resize.prepare_ms, resize.pause_ms, resize.kv_blocks_kept) == (250.0, 4.0, 20)
    assert server.asked[0].timeout.ToMilliseconds() == 1500


def test_the_same_size_changes_nothing_and_says_so(server, fleet):
    operation = fleet.scale_context_parallel(2)
    assert operation.no_change and not operation.replicas and server.epoch == 3


def test_a_lost_connection_finds_its_operation_again(server, fleet):
    server.lose_watches = 1
    assert fleet.scale_context_parallel(3).state == "DONE"
    first, second = server.asked
    assert first.request_id == second.request_id
    assert (server.cp, server.epoch) == (3, 4)


def test_a_request_id_joins_the_operation_that_it_began(server, fleet):
    assert fleet.scale_context_parallel(4, "once") == fleet.scale_context_parallel(4, "once")
    assert server.epoch == 4


def test_what_is_rolled_back_is_an_error_that_names_the_culprit(server, fleet):
    server.failure = "w0 was lost"
    with pytest.raises(MusterError, match="w0 was lost") as caught:
        fleet.scale_context_parallel(4)
    assert caught.value.workers == ("w0",)
    assert server.epoch == 3
    (operation,) = fleet.operations()
    assert (operation.state, operation.replicas[0].stage) == ("ROLLED_BACK", "ROLLED_BACK")


def test_one_operation_runs_at_a_time_and_can_be_cancelled(server, fleet):
    server.go_on.clear()
    begun, errors = threading.Event(), []

    def scale() -> None:
        with Fleet(server.address) as other:
            try:
                other.scale_context_parallel(4, "first", on_progress=lambda _: begun.set())
            except MusterError as error:
                errors.append(error)

    thread = threading.Thread(target=scale)
    thread.start()
    assert begun.wait(20)
    with pytest.raises(MusterError, match="operation first runs"):
        fleet.scale_context_parallel(3)
    assert fleet.cancel_operation("first").id == "first"
    thread.join(20)
    assert [error.reason for error in errors] == ["OPERATION_CANCELLED"]
    with pytest.raises(MusterError, match="no operation nobody"):
        fleet.cancel_operation("nobody")


def test_apply_and_drain_name_what_they_change(server, fleet):
    applied = fleet.apply_topology(ParallelConfig(cp=4), buckets=[8, 1], drop=["*"])
    drained = fleet.drain_worker("w3")
    assert (applied.kind, drained.kind) == ("APPLY_TOPOLOGY", "DRAIN_WORKER")
    assert (list(server.asked[0].buckets), list(server.asked[0].drop)) == ([8, 1], ["*"])
    assert (server.asked[1].worker_id, server.cp) == ("w3", 3)
    assert [it.kind for it in fleet.operations()] == ["DRAIN_WORKER", "APPLY_TOPOLOGY"]


def test_a_plan_tells_what_a_change_takes(fleet):
    (change,) = fleet.plan(ParallelConfig(cp=4)).changes
    assert (change.from_config.cp, change.to_config.cp, change.to_epoch) == (2, 4, 4)
    assert (change.ranks[0].role, change.flows[0].blocks) == ("SURVIVOR", 2)
    assert (change.kv_blocks_moved, change.predicted_pause_ms) == (2, 4.0)


def test_asyncio_has_the_same_calls(server):
    async def run():
        async with aio.Fleet(server.address) as fleet:
            server.lose_watches = 1
            grown = await fleet.scale_context_parallel(4)
            same = await fleet.scale_context_parallel(4)
            shrunk = await fleet.apply_topology(ParallelConfig(cp=2))
            drained = await fleet.drain_worker("w1")
            plan = await fleet.plan(ParallelConfig(cp=3))
            ended = await fleet.cancel_operation(grown.id)
            return grown, same, shrunk, drained, plan, ended, await fleet.operations()

    grown, same, shrunk, drained, plan, ended, operations = loop.run(run())
    assert (grown.state, ended, same.no_change) == ("DONE", grown, True)
    assert operations == [drained, shrunk, same, grown]
    assert plan.changes[0].to_config.cp == 3


def routed(server: FakeFleet, change) -> tuple[list[list[int]], list[Counters]]:
    """Answers of requests amidst which `change` happens, and what each scheduler counted."""

    async def run():
        async with aio.Fleet(server.address) as fleet, Router(fleet) as router:
            await router.ready()
            first = [router.submit(Request((n, 3, 5, 7, 9, 2), 30, stop_ids=frozenset()))
                     for n in range(6)]
            reached = False
            async for _ in first[0]:
                if not reached and len(first[0].tokens) >= 5:
                    reached = True
                    await change(fleet)
            later = router.submit(Request((1, 3, 5, 7, 9, 2), 30, stop_ids=frozenset()))
            answers = [[token.id for token in await it.wait()] for it in (*first, later)]
            schedulers = (*router.schedulers.values(), *router.retired)
            return answers, [scheduler.counters for scheduler in schedulers]

    return loop.run(run())


def undisturbed(server: FakeFleet):
    async def nothing(_: aio.Fleet) -> None:
        pass

    return routed(server, nothing)[0]


def test_a_router_keeps_scheduler_and_prefixes_through_a_resize(server):
    async def scale(fleet: aio.Fleet) -> None:
        await fleet.scale_context_parallel(4)

    wanted = undisturbed(server)
    answers, (counters,) = routed(server, scale)
    assert answers == wanted
    assert (counters.rebuilds, counters.refusals) == (0, 0)
    assert counters.reused > 0


def test_another_leader_process_takes_nothing_over(server):
    async def restart(_: aio.Fleet) -> None:
        server.incarnation += 1
        server.begin_epoch(keep=False)

    wanted = undisturbed(server)
    answers, counters = routed(server, restart)
    assert answers == wanted
    assert len(counters) == 2


def test_a_step_that_is_refused_as_stale_runs_in_the_epoch_that_came(server):
    refused = []

    def refuse_once(_: object) -> None:
        if len(server.forwards) == 8 and not refused:
            refused.append(server.epoch)
            server.epoch += 1
            raise Refused(StatusCode.FAILED_PRECONDITION, "the epoch is 4", "STALE_EPOCH",
                          epoch=server.epoch, retriable=True)

    wanted = undisturbed(server)
    server.forwards.clear()
    server.faults = refuse_once
    answers, (counters,) = routed(server, lambda _: asyncio.sleep(0))
    assert refused and answers == wanted
    assert (counters.rebuilds, counters.refusals) == (0, 1)
