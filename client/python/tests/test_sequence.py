"""Sequences, blocking and awaited, against a leader that may lose them."""

import loop
import pytest
from fake_fleet import EOS, FakeFleet
from muster import aio
from muster.errors import MusterError
from muster.replica import Replica
from muster.values import Sampling


@pytest.fixture
def server():
    server = FakeFleet()
    yield server
    server.stop()


@pytest.fixture
def replica(server):
    with Replica(server.address, client_id="me", patience=5) as replica:
        yield replica


def test_a_sequence_knows_its_tokens_and_frees_them_when_it_is_left(server, replica):
    with replica.sequence() as sequence:
        sequence.append([1, 2, 3, 4, 5])
        assert sequence.decode([6]).id == 1
        assert sequence.tokens == (1, 2, 3, 4, 5, 6) and len(sequence) == 6
        assert server.sequences
    assert not server.sequences


def test_chunks_are_as_long_as_a_step_allows_or_as_asked_for(server, replica):
    with replica.sequence() as sequence:
        sequence.append([1] * 6)
        sequence.append([1] * 3, chunk=2)
    assert [len(it.slices[0].token_ids) for it in server.forwards] == [4, 2, 2, 1]


def test_a_second_turn_runs_only_what_is_new(server, replica):
    with replica.sequence() as sequence:
        first = [token.id for token in sequence.generate([4, 4], 3)]
        before = sequence.prefilled
        sequence.decode([first[-1], 1, 1])
        assert sequence.prefilled - before == 3
    assert len(server.sequences) == 0


def test_generation_ends_with_the_end_token(replica):
    with replica.sequence() as sequence:
        assert [token.id for token in sequence.generate([4, 5], 50)] == [EOS]


def test_a_fork_goes_its_own_way(server, replica):
    with replica.sequence() as sequence:
        sequence.append([1, 2, 3])
        with sequence.fork(2) as fork:
            assert fork.tokens == (1, 2) and fork.decode([9]).id == 2
            assert sequence.decode([4]).id == 0
            assert fork.prefilled == 1


def test_a_rewound_sequence_keeps_what_the_new_tokens_begin_with(server, replica):
    with replica.sequence() as sequence:
        sequence.append([1, 2, 3, 4, 5])
        assert sequence.rewind_to_prefix_of([1, 2, 3, 7]) == 3
        assert sequence.decode([7]).id == 3
        assert sequence.prefilled == 6
        assert sequence.rewind_to_prefix_of([1, 2, 3, 7]) == 3, "the last one must run again"
        assert sequence.rewind_to_prefix_of([8, 8]) == 0
        assert len(server.sequences) == 0
        sequence.append([8])
    assert not server.sequences


def test_a_new_epoch_that_kept_the_sequence_is_taken_over(server, replica):
    with replica.sequence() as sequence:
        sequence.append([1, 2, 3])
        server.begin_epoch(keep=True)
        assert sequence.decode([4]).id == 0
        assert sequence.prefilled == 4


def test_a_sequence_that_was_lost_is_built_anew(server, replica):
    with replica.sequence() as sequence:
        sequence.append([1, 2, 3])
        server.begin_epoch(keep=False)
        assert sequence.decode([4]).id == 0
        assert sequence.tokens == (1, 2, 3, 4)
    assert not server.sequences


def test_what_failed_in_the_middle_can_go_on(server, replica):
    with replica.sequence() as sequence:
        with pytest.raises(MusterError, match="outside the vocabulary"):
            sequence.append([1, 2, 3, 4, 1000])
        assert sequence.tokens == (1, 2, 3, 4)
        assert sequence.decode([5]).id == 5


def test_a_fork_of_what_is_not_there_is_an_error(replica):
    with replica.sequence() as sequence:
        with pytest.raises(MusterError, match="no such sequence"):
            sequence.fork()


def test_an_idle_sequence_keeps_its_lease():
    server = FakeFleet(lease_ms=60)
    try:
        with Replica(server.address, client_id="me") as replica, replica.sequence() as sequence:
            sequence.append([1])
            renewed = server.renewals
            with server.change() as _:
                pass
            with server._changed:
                assert server._changed.wait_for(lambda: len(renewed) >= 3, timeout=20)
        assert set(server.renewals) == {"me"}
    finally:
        server.stop()


def test_awaited_calls_do_the_same(server):
    async def work():
        async with aio.Replica(server.address, "me", patience=5) as replica:
            async with await replica.sequence() as sequence:
                await sequence.append([1, 2, 3, 4, 5])
                fork = await sequence.fork(2)
                tokens = [token.id async for token in sequence.generate([6], 3, Sampling())]
                server.begin_epoch(keep=False)
                again = await sequence.decode([tokens[-1]])
                assert (await fork.decode([9])).id == 2
                capacity = await replica.capacity()
                await fork.free()
                return tokens, again.id, len(sequence), capacity.sequences

    assert loop.run(work()) == ([1, 2, 4], 8, 9, 2)
    assert not server.sequences


def test_awaited_fleets_follow_the_topology(server):
    async def work():
        async with aio.Fleet(server.address) as fleet:
            watch = fleet.watch()
            first = await anext(watch)
            server.begin_epoch(keep=True)
            second = await anext(watch)
            await watch.aclose()
            replica = await fleet.replica(0)
            events = [event.sequence async for event in fleet.events(2)]
            await replica.close()
            return first[0].epoch, second[0].epoch, events

    assert loop.run(work()) == (3, 4, [2, 3])
