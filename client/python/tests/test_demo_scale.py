"""The demo's --scale: its words, and a thread that scales while tokens come."""

import argparse
import threading

import pytest
from fake_fleet import FakeFleet
from muster.client import Fleet
from muster.demo.arguments import parse
from muster.demo.scale import CountedReplica, Point, Scaled, Scaler, parse_points
from muster.errors import MusterError
from muster.values import ParallelConfig, ReplicaResize


@pytest.fixture
def server():
    server = FakeFleet()
    yield server
    server.go_on.set()
    server.stop()


@pytest.fixture
def fleet(server):
    with Fleet(server.address) as fleet:
        yield fleet


@pytest.fixture
def replica(server):
    with CountedReplica(server.address, patience=0) as replica:
        yield replica


def test_points_are_pairs_of_token_and_cp():
    assert parse_points("12:4,40:1") == (Point(12, 4), Point(40, 1))
    assert parse_points("") == parse_points("none") == ()


@pytest.mark.parametrize("text, complaint", [
    ("12", "TOKEN:CP pairs like 12:4,40:1, not '12'"), ("a:4", "not 'a:4'"),
    ("12:4,", "not ''"), ("12:-1", "not '12:-1'"), ("12:4:5", "not '12:4:5'"),
    ("0:4", "0:4: a token is numbered from 1"), ("12:0", "12:0: cp can be 1 to 1,024"),
    ("12:1025", "cp can be 1"), ("12:4,12:1", "12:1 comes after token 12: tokens must ascend"),
    ("40:4,12:1", "comes after token 40"), ("٣:4", "TOKEN:CP")])
def test_wrong_points_are_told_with_the_pair(text, complaint):
    with pytest.raises(argparse.ArgumentTypeError, match=complaint):
        parse_points(text)


@pytest.mark.parametrize("words, complaint", [
    (["--scale", "12:2"], "12:2: cp is 2 already"),
    (["--scale", "12:4,40:4"], "40:4: cp is 4 already"),
    (["--scale", "12:4,40:17"], "40:17: that is 17 workers with --tp 1; a replica can have 16"),
    (["--scale", "12:8", "--tp", "3"], "12:8: that is 24 workers with --tp 3"),
    (["--scale", "12:4", "--replicas", "2"], "it takes no --replicas"),
    (["--scale", "x"], "TOKEN:CP")])
def test_a_scale_that_cannot_be_shown_is_one_line_and_status_2(words, complaint, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("muster: ") and error.count("\n") == 1 and complaint in error


def test_there_are_standbys_for_the_largest_cp():
    assert parse(["--scale", "12:4,40:1"]).standbys == 2
    assert parse(["--tp", "3", "--scale", "5:4,9:1"]).standbys == 6
    assert parse(["--scale", "5:1"]).standbys == parse(["--scale", "none"]).standbys == 0


def test_a_change_is_told_in_one_line_once_it_has_ended(server, fleet, replica):
    with Scaler(fleet, (Point(2, 4),), 100, replica) as scaler:
        assert scaler.token(1) == []
        assert scaler.missed == (Point(2, 4),)
        (change,) = [it for count in range(2, 27) for it in scaler.token(count)]
        assert scaler.finish() == [] and scaler.missed == () and scaler.under_way is None
    assert change.items() == [
        "cp 2 → 4 at token 2: prepare 0.2 s", "pause 4 ms", "21 KV blocks moved", "20 kept",
        "0 failed"]
    assert change.report() == {
        "at_token": 2, "from_cp": 2, "to_cp": 4, "epoch": 4, "prepare_ms": 250.0, "pause_ms": 4.0,
        "kv_bytes_moved": 4096, "kv_blocks_kept": 20, "failed_requests": 0}


def change_at_token_2(fleet, replica) -> Scaled:
    """What is told of the change while a text of 30 tokens is written."""
    told = []
    with Scaler(fleet, (Point(2, 4),), 30, replica) as scaler, replica.sequence() as sequence:
        for count, _ in enumerate(sequence.generate([1, 3], 30), 1):
            told += scaler.token(count)
        told += scaler.finish()
    (change,) = told
    assert scaler.scaled == told
    return change


def test_a_change_that_the_text_rides_through_fails_no_request(server, fleet, replica):
    change = change_at_token_2(fleet, replica)
    assert (change.resize.to_epoch, server.epoch) == (4, 4)
    assert change.failed_requests == replica.failed == 0
    assert not any(request.HasField("expected_epoch") for request in server.forwards)


def test_a_request_that_is_made_again_counts_as_failed_by_the_change(server, fleet, replica):
    server.go_on.clear()

    def lose_the_sequence(request):
        if len(server.forwards) == 5:
            server.faults = lambda request: None
            server.sequences.clear()
            server.go_on.set()

    server.faults = lose_the_sequence
    change = change_at_token_2(fleet, replica)
    assert change.failed_requests == replica.failed == 1
    assert change.items()[-1] == "1 failed" and change.report()["failed_requests"] == 1


def test_a_failed_request_counts_for_one_change_only(server, fleet, replica):
    with Scaler(fleet, (Point(1, 4), Point(2, 1)), 9, replica) as scaler:
        replica.failed = 2
        (first,) = scaler.token(1) + scaler.finish()
        replica.failed = 5
        (second,) = scaler.token(2) + scaler.finish()
    assert (first.failed_requests, second.failed_requests) == (2, 3)


def test_tokens_come_while_a_change_is_prepared_and_wait_where_the_next_is_due(
        server, fleet, replica):
    server.go_on.clear()
    with Scaler(fleet, (Point(1, 4), Point(6, 1)), 100, replica) as scaler:
        assert [scaler.token(count) for count in range(1, 6)] == [[]] * 5
        assert scaler.under_way == Point(1, 4)
        threading.Timer(0.05, server.go_on.set).start()
        (first,) = scaler.token(6)
        (second,) = scaler.finish()
    assert (first.resize.to_config.cp, second.resize.from_config.cp) == (4, 4)
    assert scaler.scaled == [first, second]


@pytest.mark.parametrize("most_tokens, last", [(100, 26), (9, 8)])
def test_the_text_does_not_end_before_its_last_change(server, fleet, replica, most_tokens, last):
    server.go_on.clear()
    with Scaler(fleet, (Point(2, 4),), most_tokens, replica) as scaler:
        for count in range(1, last):
            assert scaler.token(count) == []
        threading.Timer(0.05, server.go_on.set).start()
        assert len(scaler.token(last)) == 1


def test_an_answer_that_ends_early_keeps_its_sequence_until_the_change_has_ended(
        server, fleet, replica):
    server.go_on.clear()
    with Scaler(fleet, (Point(1, 4), Point(99, 3)), 200, replica) as scaler:
        scaler.token(1)
        threading.Timer(0.05, server.go_on.set).start()
        assert len(scaler.finish()) == 1
    assert scaler.missed == (Point(99, 3),)


def test_a_change_that_is_rolled_back_ends_the_demo_with_its_reason(server, fleet, replica):
    server.failure = "w3 was lost"
    with Scaler(fleet, (Point(1, 4), Point(2, 1)), 100, replica) as scaler:
        with pytest.raises(MusterError, match="w3 was lost"):
            scaler.token(2)
            scaler.finish()
    assert server.cp == 2


def test_without_points_nothing_is_scaled(server, fleet, replica):
    with Scaler(fleet, (), 3, replica) as scaler:
        assert [scaler.token(count) for count in (1, 2, 3)] == [[]] * 3 and scaler.finish() == []
    assert not server.asked


def test_long_prepares_are_in_seconds():
    resize = ReplicaResize(0, "DONE", 1, 2, ParallelConfig(cp=2), ParallelConfig(), (), 1080.0, 99.4)
    assert Scaled(Point(9, 1), resize).items()[:2] == [
        "cp 2 → 1 at token 9: prepare 1.1 s", "pause 99 ms"]
