"""What is tried again, and what is not: the clock alone, then over a connection that fails."""

import itertools

import grpc
import pytest
from fake_fleet import FakeFleet, Refused
from muster.client import Fleet
from muster.errors import MusterError
from muster.replica import Replica
from muster.retry import FIRST_PAUSE, LONGEST_PAUSE, Retries
from muster.values import Slice
from proto.muster.v1 import fleet_pb2


@pytest.fixture
def server():
    server = FakeFleet(blocks=4)
    yield server
    server.stop()


@pytest.fixture
def replica(server):
    with Replica(server.address, client_id="me", patience=20) as replica:
        yield replica


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


RETRIABLE = MusterError("later", "UNAVAILABLE", retriable=True)


def test_pauses_grow_up_to_the_longest_and_end_with_patience():
    clock = Clock()
    retries = Retries(10.0, clock)
    pauses = []
    with pytest.raises(MusterError, match="later"):
        while True:
            pauses.append(retries.pause_after(RETRIABLE))
            clock.now += pauses[-1]
    assert pauses[0] == FIRST_PAUSE and max(pauses) == LONGEST_PAUSE
    assert sum(pauses) == pytest.approx(10.0)


@pytest.mark.parametrize("error", [
    MusterError("never", "UNAVAILABLE"),
    MusterError("who knows", "UNAVAILABLE", retriable=True, kv_written=True),
    MusterError("too late", "DEADLINE_EXCEEDED", retriable=True),
])
def test_what_may_not_be_tried_again_is_raised_at_once(error):
    with pytest.raises(MusterError, match=error.message):
        Retries(100.0).pause_after(error)


def fail_times(server: FakeFleet, count: int, **detail):
    """Makes the next steps fail with UNAVAILABLE."""
    seen = []

    def fail(request):
        seen.append(request)
        if len(seen) <= count:
            raise Refused(grpc.StatusCode.UNAVAILABLE, "it pauses", "WRONG_STATE", **detail)

    server.faults = fail
    return seen


def test_a_retriable_failure_is_tried_again_as_the_same_request(server, replica):
    seen = fail_times(server, 2, retriable=True)
    replica.forward([Slice("a", [1], 0)])
    assert len(seen) == 3 and len({request.request_id for request in seen}) == 1
    assert len(server.forwards) == 1


def test_any_other_failure_is_not_tried_again(server, replica):
    seen = fail_times(server, 2)
    with pytest.raises(MusterError, match="it pauses"):
        replica.forward([Slice("a", [1], 0)])
    assert len(seen) == 1


def test_two_requests_have_two_ids_and_a_caller_may_name_one(server, replica):
    replica.forward([Slice("a", [1], 0)])
    replica.forward([Slice("a", [1], 1)])
    replica.forward([Slice("a", [1], 2)], request_id="mine")
    replica.forward([Slice("a", [1], 2)], request_id="mine")
    ids = [request.request_id for request in server.forwards]
    assert len(set(ids)) == 3 and ids[-1] == "mine" and server.retries == 1


def test_where_there_is_no_room_it_waits_until_some_is_free(server, replica):
    replica.forward([Slice("full", [1] * 4, 0)])
    for position in range(4, 16, 4):
        replica.forward([Slice("full", [1] * 4, position)])
    refusals = itertools.count()

    def free_after_the_first_refusal(request):
        if next(refusals) == 1:
            server.sequences.clear()

    server.faults = free_after_the_first_refusal
    assert replica.forward([Slice("b", [1], 0)]).step == 5


def test_an_impatient_client_is_told_that_there_is_no_room(server):
    with Replica(server.address, patience=0) as replica:
        for position in range(0, 16, 4):
            replica.forward([Slice("full", [1] * 4, position)])
        with pytest.raises(MusterError, match="needs 1 KV blocks; 0 are free") as caught:
            replica.forward([Slice("b", [1], 0)])
    assert caught.value.of_admission


def test_a_stale_epoch_is_told_with_the_current_one(server, replica):
    with pytest.raises(MusterError) as caught:
        replica.forward([Slice("a", [1], 0)], expected_epoch=2)
    assert (caught.value.reason, caught.value.epoch) == ("STALE_EPOCH", 3)


def test_a_daemon_that_comes_back_is_found_again(server):
    address = server.address
    with Replica(address, patience=20) as replica:
        replica.model()
        server.stop()
        again = FakeFleet(address=address)
        try:
            assert replica.model().name == "fake"
        finally:
            again.stop()


def test_a_leader_that_moved_is_looked_for_in_the_fleet(server):
    other = FakeFleet()
    leader = FakeFleet()
    try:
        server.leader = leader.address
        with Fleet(server.address) as fleet, fleet.replica(0) as replica:
            replica.forward([Slice("a", [1], 0)])
            server.leader = other.address
            leader.stop()
            replica.forward([Slice("b", [1], 0)])
        assert len(other.forwards) == 1
    finally:
        other.stop()
        leader.stop()


def test_a_fork_is_not_retried_when_nobody_answers(server):
    with Replica(server.address, patience=20) as replica:
        replica.model()
        server.stop()
        with pytest.raises(MusterError, match="nothing answers"):
            replica.fork("a", "b")


def test_a_fleet_is_watched_and_a_replica_awaited(server):
    server.state = fleet_pb2.REPLICA_STATE_FORMING
    with Fleet(server.address) as fleet:
        watch = fleet.watch(20)
        assert next(watch)[0].state == "FORMING"
        with server.change():
            server.state = fleet_pb2.REPLICA_STATE_SERVING
        assert next(watch)[0].state == "SERVING"
        watch.close()
        assert fleet.replica(0, wait=20).address == server.address


def test_a_replica_that_does_not_come_is_told_with_its_state(server):
    server.state = fleet_pb2.REPLICA_STATE_FORMING
    with Fleet(server.address) as fleet:
        with pytest.raises(MusterError, match="replica 0 is FORMING"):
            fleet.replica(0, wait=0.2)
