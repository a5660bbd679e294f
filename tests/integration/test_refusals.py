"""Requests and plans that do not fit: one line with the numbers, and the fleet goes on serving."""

import socket

import pytest
from fleets import MODELS, assert_one_line, golden, written
from muster.client import Fleet
from muster.errors import MusterError
from muster.values import ParallelConfig, Slice


@pytest.fixture
def fleet(programs):
    """A fleet of two workers of llama-mha12: 12 heads, 101 tokens, 512 positions."""
    serving = programs.up("llama-mha12", cp=2).await_event("serving")
    with Fleet(serving["coordinator"], patience=0) as fleet:
        yield fleet


@pytest.fixture
def replica(fleet):
    with fleet.replica(0) as replica:
        yield replica


def assert_still_serves(replica) -> None:
    facts = golden("llama-mha12")
    tokens = [token.id for token in replica.generate(facts["prompt"], max_tokens=2)]
    assert tokens == facts["tokens"][:2]


def test_a_tp_that_does_not_divide_the_heads_is_refused_before_any_weight_is_read(programs):
    result = programs.demo(
        "--model", str(MODELS / "llama-mha12"), "--prompt-tokens", "1", "--tp", "5", "--cp", "1")
    assert_one_line(result, "tp=5", "12 attention heads", "1, 2, 3, 4, 6 or 12")
    assert "load" not in result.stdout


def test_a_cp_that_does_not_divide_is_refused(programs):
    result = programs.demo(
        "--model", str(MODELS / "llama-mha12"), "--prompt-tokens", "1", "--cp", "5")
    assert_one_line(result, "cp=5", "96", "1, 2, 3, 4, 6, 8, 12 or 16")


def test_a_plan_of_more_ranks_than_workers_is_refused_with_both_numbers(programs, fleet):
    result = programs.musterctl("plan", "--cp", "4")
    assert_one_line(result, "4", "2")
    with pytest.raises(MusterError) as caught:
        fleet.plan(ParallelConfig(cp=4))
    assert caught.value.reason == "NOT_ENOUGH_WORKERS"


def test_a_plan_changes_nothing(programs, fleet):
    assert programs.musterctl("plan", "--cp", "1").returncode == 0
    (status,) = fleet.replicas()
    assert (status.state, status.epoch, status.config.cp) == ("SERVING", 1, 2)


def test_an_empty_prompt_is_refused(programs, replica):
    assert_one_line(programs.demo("--prompt", ""), "the prompt is empty", status=2)
    with pytest.raises(MusterError) as caught:
        list(replica.generate([], max_tokens=1))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert_still_serves(replica)


def test_a_token_outside_the_vocabulary_is_refused_with_both_numbers(programs, replica):
    result = programs.musterctl("forward", "--prompt-tokens", "1,101")
    assert_one_line(result, "101")
    with pytest.raises(MusterError, match="4294967295") as caught:
        replica.forward([Slice("a", [4294967295], 0)])
    assert caught.value.code == "INVALID_ARGUMENT"
    assert_still_serves(replica)


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(programs, replica):
    assert_one_line(programs.musterctl("forward", "--prompt-tokens", written([1] * 513)), "512")
    with pytest.raises(MusterError, match="512") as caught:
        list(replica.generate([1] * 513, max_tokens=1))
    assert caught.value.reason == "CONTEXT_EXCEEDED"
    assert_still_serves(replica)


def test_a_prompt_beyond_the_kv_cache_is_refused_with_the_numbers(programs):
    # 16 tokens x 2 layers x 2 x 12 heads x 8 x 4 bytes are 24 KiB a block: 4 blocks a rank.
    up = programs.up("llama-mha12", cp=2, extra=("--kv-memory", "96KiB", "--threads", "1"))
    with Fleet(up.await_event("serving")["coordinator"], patience=0) as fleet, fleet.replica(0) as replica:
        fits = replica.capacity().max_prompt_tokens
        assert fits < 500
        with pytest.raises(MusterError) as caught:
            list(replica.generate([1] * (fits + 1), max_tokens=1))
        assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "KV_CAPACITY")
        assert "blocks" in caught.value.message
        assert len(list(replica.generate([1] * fits, max_tokens=1))) == 1


def test_a_position_that_does_not_continue_the_sequence_is_refused(replica):
    replica.forward([Slice("a", [1, 2], 0)])
    with pytest.raises(MusterError) as caught:
        replica.forward([Slice("a", [3], 7)])
    assert caught.value.reason == "POSITION_MISMATCH"
    assert replica.free("a") == 1


def test_an_epoch_that_is_not_held_is_refused(replica):
    with pytest.raises(MusterError) as caught:
        replica.forward([Slice("a", [1], 0)], expected_epoch=99)
    assert caught.value.reason == "STALE_EPOCH"


def test_a_port_in_use_is_named(programs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = programs.musterctl(
            "up", "--model", str(MODELS / "llama-mha12"), "--listen", f"127.0.0.1:{port}")
    assert_one_line(result, str(port))


def test_unknown_flags_are_status_2(programs):
    assert_one_line(programs.demo("--frobnicate"), "--frobnicate", status=2)
    assert_one_line(programs.musterctl("status", "--frobnicate"), "--frobnicate", status=2)
    assert_one_line(programs.musterctl("frobnicate"), "frobnicate", status=2)


def test_no_coordinator_is_told_with_its_address_and_what_to_do(programs):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for command in ("status", "topology", "plan", "events"):
            result = programs.musterctl(command, "--coordinator", address)
            assert_one_line(result, address, "musterctl up")
    assert_one_line(programs.musterctl("status"), "musterctl up")
