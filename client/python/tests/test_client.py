"""Fleet and Replica against a server that speaks as the daemons do."""

import pytest
from fake_fleet import EOS, MAX_ROWS, FakeFleet
from muster.client import Fleet
from muster.replica import Replica
from muster.errors import MusterError
from muster.values import ParallelConfig, Plan, Sampling, Slice
from proto.muster.v1 import fleet_pb2


@pytest.fixture
def server():
    server = FakeFleet()
    yield server
    server.stop()


@pytest.fixture
def fleet(server):
    with Fleet(server.address, patience=0) as fleet:
        yield fleet


@pytest.fixture
def replica(server):
    with Replica(server.address, client_id="me", patience=0) as replica:
        yield replica


def test_a_replica_is_told_with_its_epoch_leader_ledger_and_phases(fleet, server):
    (status,) = fleet.replicas()
    assert (status.state, status.epoch, status.leader) == ("SERVING", 3, server.address)
    assert status.config == ParallelConfig(tp=1, cp=2)
    assert status.config.world == 2
    assert status.workers == ("w0", "w1")
    assert status.phases_ms == {"load": 1.5}
    assert status.ledgers[0].bytes == {"weights": 123}


def test_a_plan_names_the_workers_of_every_rank(fleet):
    assert fleet.plan(ParallelConfig(tp=3)) == Plan((("w0", "w1", "w2"),))


def test_a_refused_plan_says_why_and_of_which_kind(fleet):
    with pytest.raises(MusterError, match="cannot plan tp=2") as caught:
        fleet.plan(ParallelConfig(tp=2))
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "PLAN_REFUSED")


def test_events_begin_where_they_are_asked_for(fleet):
    events = list(fleet.events(from_sequence=2))
    assert [event.sequence for event in events] == [2, 3]
    assert (events[0].kind, events[0].rank, events[0].phase) == ("WORKER_LOST", 1, "warmup/open")


def test_the_leader_is_found_through_the_fleet(fleet):
    with fleet.replica(0) as replica:
        assert replica.model().name == "fake"


def test_a_replica_that_does_not_serve_is_refused_with_its_reason(fleet, server):
    server.state = fleet_pb2.REPLICA_STATE_FAILED
    with pytest.raises(MusterError, match="replica 0 is FAILED.*rank 1 is lost"):
        fleet.replica(0)
    with pytest.raises(MusterError, match="replica 0 is FAILED"):
        fleet.replica()
    with pytest.raises(MusterError, match="there is no replica 5: the fleet has 0"):
        fleet.replica(5)


def test_a_step_returns_a_token_for_each_slice_that_wants_one(replica):
    result = replica.forward([
        Slice("a", [1, 2], 0, sample=True, top_n=2), Slice("b", [3], 0)])
    sampled, silent = result.tokens
    assert (sampled.id, sampled.top, silent) == (3, ((0, 0.0), (1, -1.0)), None)
    assert (result.epoch, result.step, result.device_ms) == (3, 1, 0.25)


def test_sampling_parameters_and_epoch_travel(replica, server):
    replica.forward([Slice("a", [1], 0, sample=True, sampling=Sampling(0.5, 3, 0.25, 7))], 3)
    (request,) = server.forwards
    sampling = request.slices[0].sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed) == (
        0.5, 3, 0.25, 7)
    assert (request.client_id, request.expected_epoch) == ("me", 3)


def test_the_epoch_is_left_open_where_none_is_expected(replica, server):
    replica.forward([Slice("a", [1], 0)])
    assert not server.forwards[0].HasField("expected_epoch")


def test_a_prompt_longer_than_a_step_goes_in_chunks_and_only_the_last_samples(replica, server):
    prompt = list(range(MAX_ROWS + 2))
    assert [token.id for token in replica.generate(prompt, max_tokens=1)] == [sum(prompt) % 10]
    slices = [request.slices[0] for request in server.forwards]
    assert [(len(s.token_ids), s.first_position, s.sample) for s in slices] == [
        (MAX_ROWS, 0, False), (2, MAX_ROWS, True)]


def test_generation_continues_the_sequence_in_its_own_epoch(replica, server):
    assert [token.id for token in replica.generate([1, 1], max_tokens=3)] == [2, 4, 8]
    positions = [request.slices[0].first_position for request in server.forwards]
    assert positions == [0, 2, 3]
    assert [request.HasField("expected_epoch") for request in server.forwards] == [
        False, True, True]


def test_generation_ends_with_the_end_token_and_frees_its_blocks(replica, server):
    tokens = [token.id for token in replica.generate([4, 5], max_tokens=50)]
    assert tokens == [EOS]
    assert not server.sequences


def test_a_generation_that_is_abandoned_frees_its_blocks(replica, server):
    generation = replica.generate([1, 1], max_tokens=50)
    next(generation)
    assert server.sequences
    generation.close()
    assert not server.sequences


def test_sequences_are_freed_by_name_once(replica):
    replica.forward([Slice("a", [1], 0)])
    assert replica.free("a", "never") == 1
    assert replica.free("a") == 0


def test_capacity_is_told_in_blocks(replica):
    replica.forward([Slice("a", [1, 2, 3], 0)])
    capacity = replica.capacity()
    assert (capacity.total_blocks, capacity.free_blocks, capacity.sequences) == (1000, 999, 1)


def test_every_field_of_an_error_detail_is_decoded(replica):
    with pytest.raises(MusterError) as caught:
        replica.forward([Slice("a", [1000], 0)])
    assert caught.value == MusterError(
        message="token 1000 is outside the vocabulary of 100", code="INVALID_ARGUMENT",
        reason="INVALID_REQUEST", epoch=3, ranks=(0, 1), workers=("w0", "w1"), culprit_count=2,
        phase="serve", retriable=True, kv_written=True)


def test_an_empty_prompt_is_refused_by_the_leader(replica):
    with pytest.raises(MusterError, match="the slice is empty"):
        list(replica.generate([], max_tokens=1))


def test_a_daemon_that_is_gone_is_named_by_its_address(replica, server):
    server.stop()
    with pytest.raises(MusterError, match=f"nothing answers at {server.address}") as caught:
        replica.model()
    assert (caught.value.code, caught.value.retriable) == ("UNAVAILABLE", True)
