"""SIGTERM on a worker, whatever it is doing: its rank goes to somebody else, or its requests are
answered, and it ends with status 0 in time."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

import grpc
import pytest
from admin_port import ADMIN, await_requests
from fleets import MODELS, PATIENCE, PROMISE, await_that
from muster.values import Event
from scaled_faults import SOON, FaultyFleet, soon
from scaled_fleet import GOLDEN, MODEL, PROMPT, ScaledFleet, Text, scaled_fleet
from wire import Daemons, Refusal, forward_request, piece

# A worker with a rank that somebody takes over: far below its time of 30 seconds.
HANDED_OVER = 5.0
PHASES = ("load", "warmup/exchange", "warmup/self-test", "capture/graphs", "capture/agree")
BAD_NEWS = ("EPOCH_FAILED", "WORKER_LOST")


@pytest.fixture
def fleet_of(daemons: Daemons):
    """Makes a fleet of which the first `cp` workers serve, and the others stand by."""
    with ExitStack() as ends:

        def fleet_of(workers: int, cp: int = 2, lease: str = "20s",
                     words: dict[str, tuple[str, ...]] | None = None) -> FaultyFleet:
            fleet = FaultyFleet(ends.enter_context(
                scaled_fleet(daemons, cp=cp, workers=workers, lease=lease, words=words)))
            ends.callback(fleet.close)
            return fleet

        yield fleet_of


def terminate(fleet: FaultyFleet, *names: str) -> float:
    """SIGTERM; seconds until all have ended, with status 0."""
    begun = time.monotonic()
    for name in names:
        os.kill(fleet.pid(name), signal.SIGTERM)
    for name in names:
        assert fleet.fleet.processes[name].wait(PATIENCE) == 0, name
    return time.monotonic() - begun


def log_of(fleet: FaultyFleet, name: str) -> str:
    return fleet.fleet.daemons.log_of(fleet.fleet.processes[name])


def only(fleet: FaultyFleet, kind: str) -> Event:
    (event,) = soon(lambda: fleet.events_of(kind), f"{kind} is told")
    return event


def assert_nobody_failed(fleet: FaultyFleet, *left: str) -> None:
    """The workers that left are told of as such, and nobody else is."""
    soon(lambda: sorted(it.worker_id for it in fleet.events_of("WORKER_LEFT")) == sorted(left),
         f"{left} have left")
    assert not [it for it in fleet.fleet.events() if it.kind in BAD_NEWS]


def prompt_of(sequence: str):
    return forward_request(piece(sequence, PROMPT))


def await_serving(fleet: FaultyFleet, *workers: str) -> None:
    soon(lambda: (it := fleet.fleet.replica).state == "SERVING" and sorted(it.workers) ==
         sorted(workers), f"{workers} serve")


# Under load.


def test_a_standby_takes_the_rank_and_no_request_fails(fleet_of):
    fleet = fleet_of(3)
    talk = fleet.talk()
    assert terminate(fleet, "w1") < HANDED_OVER
    await_serving(fleet, "w0", "w2")
    talk.await_tokens()
    assert talk.end() == [1, 2]
    assert_nobody_failed(fleet, "w1")
    assert "rank 1 (serving)" in only(fleet, "WORKER_LEAVING").message
    assert "its rank moved to w2" in log_of(fleet, "w1")


def test_without_a_standby_the_replica_shrinks_and_no_request_fails(fleet_of):
    fleet = fleet_of(2)
    talk = fleet.talk()
    assert terminate(fleet, "w1") < HANDED_OVER
    await_serving(fleet, "w0")
    talk.await_tokens()
    assert talk.end() == [1, 2]
    assert_nobody_failed(fleet, "w1")


@pytest.mark.parametrize(("workers", "left"), [(3, ("w1", "w2")), (2, ("w1",))])
def test_a_leader_answers_what_is_in_flight_and_clients_go_on_elsewhere(fleet_of, workers, left):
    fleet = fleet_of(workers)
    talk = fleet.talk()
    assert terminate(fleet, "w0") < HANDED_OVER
    await_serving(fleet, *left)
    talk.await_tokens()
    assert talk.end() == [1, 2], "every text goes on, computed again from its tokens"
    assert_nobody_failed(fleet, "w0")
    ended = only(fleet, "EPOCH_ENDED")
    assert ended.worker_id == "w0" and ended.rank == 0 and ended.epoch == 1
    assert "all requests are answered, 2 sequences" in ended.message


def test_one_worker_after_another_is_replaced(fleet_of):
    """As a cluster is upgraded: what ended is started again, and stands by for the next."""
    fleet = fleet_of(3)
    talk = fleet.talk()
    for name in ("w1", "w2", "w0"):
        terminate(fleet, name)
        talk.await_tokens()
        fleet.fleet.start_worker(name)
    talk.await_tokens()
    talk.end()
    assert_nobody_failed(fleet, "w0", "w1", "w2")


# In each state of its life.


def test_a_worker_that_was_never_taken_in_ends_at_once(daemons):
    nowhere = daemons.start(
        "muster-worker", "--coordinator", "127.0.0.1:1", "--worker-id", "alone",
        "--model", str(MODELS / MODEL), "--kv-memory", "4MiB", "--threads", "1")
    await_that(lambda: "listening on" in daemons.log_of(nowhere), "it listens")
    begun = time.monotonic()
    nowhere.terminate()
    assert nowhere.wait(PATIENCE) == 0
    assert time.monotonic() - begun < PROMISE


def test_a_worker_that_has_just_been_started_ends(daemons):
    coordinator = daemons.coordinator(cp=2)
    worker = daemons.worker(coordinator, "early")
    worker.terminate()
    # Before it has blocked the signal, that is its end.
    assert worker.wait(PATIENCE) in (0, -signal.SIGTERM)


def test_a_standby_ends_at_once(fleet_of):
    fleet = fleet_of(3)
    assert terminate(fleet, "w2") < PROMISE
    assert_nobody_failed(fleet, "w2")
    assert fleet.fleet.replica.epoch == 1


@pytest.mark.parametrize("phase", PHASES)
def test_while_an_epoch_forms_it_is_formed_without_the_worker(daemons, phase):
    coordinator = daemons.coordinator(cp=2)
    fleet = FaultyFleet(ScaledFleet(daemons, coordinator))
    for name, words in (("w0", ()), ("w1", ("--fault", f"stop@{phase}"))):
        fleet.fleet.start_worker(name, words=words)
    fleet.await_stop("w1")
    # The epoch must not come to serve before the coordinator hears of the end.
    fleet.stop("w0")
    fleet.await_stop("w0")
    os.kill(fleet.pid("w1"), signal.SIGTERM)
    fleet.go_on("w1")
    assert fleet.fleet.processes["w1"].wait(HANDED_OVER) == 0
    fleet.go_on("w0")
    fleet.fleet.start_worker("w2")
    await_serving(fleet, "w0", "w2")
    assert_nobody_failed(fleet, "w1")
    assert "it did not serve yet" in only(fleet, "EPOCH_ENDED").message
    fleet.fleet.close()


def test_while_it_serves_and_nobody_asks_for_anything(fleet_of):
    fleet = fleet_of(1, cp=1)
    assert terminate(fleet, "w0") < PROMISE
    assert_nobody_failed(fleet, "w0")
    assert "0 sequences" in only(fleet, "EPOCH_ENDED").message


def test_a_recruit_that_ends_is_rolled_back_and_the_others_serve_on(fleet_of):
    fleet = fleet_of(3, words={"w2": ("--fault", "stop@capture/graphs")})
    talk = fleet.talk()
    command = fleet.scale(3)
    fleet.await_stop("w2")
    os.kill(fleet.pid("w2"), signal.SIGTERM)
    fleet.go_on("w2")
    assert fleet.fleet.processes["w2"].wait(HANDED_OVER) == 0
    _, errors = command.communicate(timeout=SOON)
    assert command.returncode == 1 and "worker w2 is ending" in errors
    talk.await_tokens()
    assert talk.end() == [1]
    assert_nobody_failed(fleet, "w2")


def test_a_survivor_that_ends_goes_before_the_change_that_counted_on_it(fleet_of):
    fleet = fleet_of(3, words={"w2": ("--fault", "stop@capture/graphs")})
    talk = fleet.talk()
    command = fleet.scale(3)
    fleet.await_stop("w2")
    os.kill(fleet.pid("w1"), signal.SIGTERM)
    soon(lambda: fleet.events_of("ROLLED_BACK"), "the change is undone")
    fleet.go_on("w2")
    assert fleet.fleet.processes["w1"].wait(HANDED_OVER) == 0
    command.communicate(timeout=SOON)
    await_serving(fleet, "w0", "w2")
    talk.await_tokens()
    assert talk.end() == [1, 3]
    assert_nobody_failed(fleet, "w1")


def test_all_at_once_end_without_moving_anything(fleet_of):
    fleet = fleet_of(3)
    assert terminate(fleet, "w0", "w1", "w2") < HANDED_OVER
    assert_nobody_failed(fleet, "w0", "w1", "w2")


# A drain that lasts: the standby that is to take the rank stands still.


@pytest.fixture
def draining(fleet_of) -> Callable[..., FaultyFleet]:
    """Makes a fleet whose w1 drains and does not get on."""

    def draining(*words: str) -> FaultyFleet:
        fleet = fleet_of(3, words={"w1": words, "w2": ("--fault", "stop@load")})
        os.kill(fleet.pid("w1"), signal.SIGTERM)
        fleet.await_stop("w2")
        return fleet

    return draining


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(draining, second):
    fleet = draining()
    begun = time.monotonic()
    os.kill(fleet.pid("w1"), second)
    assert fleet.fleet.processes["w1"].wait(PATIENCE) == -second
    assert time.monotonic() - begun < PROMISE
    assert "ended before its rank was handed over" in only(fleet, "WORKER_LOST").message


def test_it_is_not_ready_while_it_drains_and_its_replica_still_answers(draining):
    fleet = draining()
    with fleet.fleet.client.replica() as replica:
        assert Text(replica).write(4) == GOLDEN["tokens"][:4]
    rank = fleet.fleet.rank_of("w1")
    with rank.channel:
        assert rank.health() == "NOT_SERVING"
    leader = fleet.fleet.leader
    with leader.channel:
        assert leader.health() == "SERVING"


def test_a_rank_that_is_not_taken_over_in_time_ends_with_the_epoch(draining):
    fleet = draining("--drain-timeout", "2s")
    begun = time.monotonic()
    assert fleet.fleet.processes["w1"].wait(PATIENCE) == 0
    assert time.monotonic() - begun < 2 + PROMISE
    assert "rank 1 (worker w1) is ending" in only(fleet, "EPOCH_ENDED").message
    assert_nobody_failed(fleet, "w1")


def test_what_is_in_flight_at_the_timeout_is_told(fleet_of):
    fleet = fleet_of(2, words={"w0": ("--drain-timeout", "2s", *ADMIN)})
    leader = fleet.fleet.leader
    with leader.channel:
        fleet.stop("w1")
        fleet.await_stop("w1")
        stream = leader.stream(*(prompt_of(f"s{index}") for index in range(3)))
        await_requests(fleet.fleet.processes["w0"], 3)
        assert terminate(fleet, "w0") < 2 + PROMISE
        refusals = [Refusal.of_status(it.error) for it in stream]
    fleet.go_on("w1")
    assert len(refusals) == 3
    for refused in refusals:
        assert "rank 0 (worker w0) is ending" in refused.message and refused.detail.retriable
    assert "3 requests are still in flight after" in only(fleet, "EPOCH_ENDED").message
    (warning,) = [it for it in log_of(fleet, "w0").splitlines() if "drained in part" in it]
    assert " W " in warning and "3 requests" in warning and "sequence" in warning


def test_new_requests_are_refused_for_a_while_where_nobody_can_take_over(fleet_of):
    fleet = fleet_of(2, words={"w0": ADMIN})
    leader = fleet.fleet.leader
    with leader.channel:
        fleet.stop("w1")
        fleet.await_stop("w1")
        stream = leader.stream(prompt_of("s0"))
        await_requests(fleet.fleet.processes["w0"], 1)
        os.kill(fleet.pid("w0"), signal.SIGTERM)
        await_that(lambda: fleet.events_of("WORKER_LEAVING"), "it leaves")

        def refused() -> bool:
            try:
                leader.capacity()
            except grpc.RpcError as error:
                return "DRAINING and takes no requests now" in (error.details() or "")
            return False

        await_that(refused, "a request is refused")
        fleet.go_on("w1")
        (answer,) = stream
        assert answer.HasField("response"), "what was in flight is answered"
        assert fleet.fleet.processes["w0"].wait(SOON) == 0
    assert "all requests are answered" in only(fleet, "EPOCH_ENDED").message


def test_without_a_coordinator_requests_are_answered_and_it_ends(fleet_of):
    fleet = fleet_of(1, cp=1)
    fleet.kill_coordinator()
    assert terminate(fleet, "w0") < 2 * PROMISE
    log = log_of(fleet, "w0")
    assert "there is no coordinator to hand over to: rank 0 of epoch 1" in log
    assert "all requests are answered" in log


def test_a_coordinator_that_comes_back_meanwhile_hands_over(draining):
    fleet = draining()
    fleet.kill_coordinator()
    fleet.start_coordinator()
    fleet.go_on("w2")
    assert fleet.fleet.processes["w1"].wait(PATIENCE) == 0


def test_sigint_is_no_drain(fleet_of):
    fleet = fleet_of(3)
    begun = time.monotonic()
    os.kill(fleet.pid("w1"), signal.SIGINT)
    assert fleet.fleet.processes["w1"].wait(PATIENCE) == 0
    assert time.monotonic() - begun < PROMISE
    assert only(fleet, "WORKER_LOST").worker_id == "w1"
    assert not fleet.events_of("WORKER_LEAVING")


def test_no_time_to_drain_is_an_end_at_once(fleet_of):
    fleet = fleet_of(3, words={"w1": ("--drain-timeout", "0s")})
    assert terminate(fleet, "w1") < PROMISE
    assert "not handed over within 0 ms: rank 1 of epoch 1" in log_of(fleet, "w1")


def test_a_drained_worker_ends_at_once(fleet_of):
    fleet = fleet_of(3)
    fleet.fleet.client.drain_worker("w1")
    assert terminate(fleet, "w1") < PROMISE
    assert_nobody_failed(fleet, "w1")
