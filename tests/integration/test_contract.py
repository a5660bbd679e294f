"""Bad input, and callers that misbehave, through a real channel: each is refused with its reason,
nothing of it is applied, and the next good request gives what it always gave."""

import math
import threading
from collections.abc import Callable

import grpc
import pytest
from fleets import golden
from proto.muster.v1 import inference_pb2
from wire import (
    CALL_SECONDS,
    Rank,
    Refusal,
    daemons_of_a_module,
    forward_request,
    piece,
    refusal,
)

GOLDEN = golden("llama-mha12")
PROMPT, TOKENS = GOLDEN["prompt"], GOLDEN["tokens"]
HIDDEN = 96
NAN, INFINITY = math.nan, math.inf


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """llama-mha12 (2 layers, 101 tokens) on two workers, with 32 KV blocks of 16 tokens in all."""
    with daemons_of_a_module(tmp_path_factory.mktemp("contract")) as daemons:
        yield daemons.serving_fleet(kv_memory="384KiB")


@pytest.fixture
def leader(fleet):
    """The leader; whatever a test did, a good request gives the same tokens before and after."""
    assert_good(fleet.leader)
    yield fleet.leader
    for client in ("test", "other"):
        fleet.leader.free(client=client)
    assert_good(fleet.leader)


def write(rank: Rank, prompt: list[int], count: int, client: str, chunk: int = 512) -> list[int]:
    """`count` tokens after a prompt in chunks, greedily; the sequence is freed in the end."""
    tokens: list[int] = []
    pending, position = list(prompt), 0
    while len(tokens) < count:
        now, pending = pending[:chunk], pending[chunk:]
        response = rank.forward(
            piece("s", now, first=position, sample=not pending), client=client)
        position += len(now)
        if not pending:
            tokens.append(response.outputs[0].sampled_token)
            pending = tokens[-1:]
    assert rank.free("s", client=client) == 1
    return tokens


def assert_good(rank: Rank) -> None:
    assert write(rank, PROMPT, 3, client="good") == TOKENS[:3]


def refused(rank: Rank, call: Callable[[], object], reason: str) -> Refusal:
    """`call` is refused for `reason`, changes nothing, and hinders nobody."""
    before = rank.capacity()
    found = refusal(call)
    assert found.reason == reason, found
    assert found.detail is None or not found.detail.kv_written
    assert rank.capacity() == before
    assert_good(rank)
    return found


def sampling(**fields) -> inference_pb2.SamplingParameters:
    return inference_pb2.SamplingParameters(**fields)


def layers(begin: int, end: int) -> inference_pb2.LayerRange:
    return inference_pb2.LayerRange(begin=begin, end=end)


@pytest.mark.parametrize("first", [0, 2, 4, 500])
def test_a_position_that_overwrites_or_leaves_a_hole_is_refused(leader, first):
    leader.forward(piece("held", [1, 2, 3]))
    found = refused(leader, lambda: leader.forward(piece("held", [4], first=first)),
                    "POSITION_MISMATCH")
    assert "3 tokens" in found.message and str(first) in found.message
    leader.forward(piece("held", [4], first=3))


def test_a_sequence_twice_in_a_step_is_refused(leader):
    leader.forward(piece("twice", [1]))
    found = refused(
        leader,
        lambda: leader.forward(piece("twice", [2], first=1), piece("twice", [3], first=2)),
        "INVALID_REQUEST")
    assert "'twice'" in found.message


def test_a_sequence_that_was_freed_is_unknown(leader):
    leader.forward(piece("gone", [1, 2]))
    assert leader.free("gone") == 1
    refused(leader, lambda: leader.forward(piece("gone", [3], first=2)), "UNKNOWN_SEQUENCE")
    assert leader.free("gone") == 0


def test_a_sequence_that_never_was_is_unknown(leader):
    refused(leader, lambda: leader.forward(piece("never", [3], first=2)), "UNKNOWN_SEQUENCE")
    refused(leader, lambda: leader.fork("never", "child"), "UNKNOWN_SEQUENCE")


def test_nobody_sees_another_clients_sequence(leader):
    leader.forward(piece("mine", [1, 2], sample=False))
    refused(leader, lambda: leader.forward(piece("mine", [3], first=2), client="other"),
            "UNKNOWN_SEQUENCE")
    refused(leader, lambda: leader.fork("mine", "theirs", client="other"), "UNKNOWN_SEQUENCE")
    assert leader.free("mine", client="other") == 0
    # The same name is free for the other one.
    leader.forward(piece("mine", [9], sample=False), client="other")
    leader.forward(piece("mine", [3], first=2))


@pytest.mark.parametrize("numbers, tokens", [
    ([0.5] * (HIDDEN - 1), []),
    ([0.5] * (HIDDEN + 1), []),
    ([0.5] * (HIDDEN - 1) + [NAN], []),
    ([-INFINITY] + [0.5] * (HIDDEN - 1), []),
    ([0.5] * HIDDEN, [1]),
], ids=["too few", "too many", "NaN", "infinite", "tokens as well"])
def test_hidden_states_of_a_wrong_size_or_not_finite_are_refused(leader, numbers, tokens):
    bad = piece("a", tokens, hidden_states=numbers)
    refused(leader, lambda: leader.forward(bad), "INVALID_REQUEST")


@pytest.mark.parametrize("begin, end", [(1, 0), (2, 1), (0, 0), (1, 1), (0, 3), (2, 3), (7, 9),
                                        (0, 2**32 - 1), (2**32 - 1, 2**32 - 1)])
def test_a_layer_range_reversed_empty_or_outside_is_refused(leader, begin, end):
    bad = piece("a", hidden_states=[0.5] * HIDDEN, sample=False, layers=layers(begin, end))
    found = refused(leader, lambda: leader.forward(bad), "INVALID_REQUEST")
    assert "range of the model's 2" in found.message


@pytest.mark.parametrize("slice_", [
    piece("a", [1], sample=False, layers=layers(1, 2)),
    piece("a", [1], sample=True, layers=layers(0, 1)),
    piece("a", [1], sample=False, return_logits=True, layers=layers(0, 1)),
    piece("a", [1], sample=False, return_hidden_states=2, layers=layers(0, 1)),
    piece("a", [1], sample=False, return_hidden_states=3),
], ids=["tokens above layer 0", "a token of the first part", "logits of the first part",
        "hidden states of the other part", "hidden states of no layer"])
def test_what_the_layers_cannot_take_or_give_is_refused(leader, slice_):
    refused(leader, lambda: leader.forward(slice_), "INVALID_REQUEST")


@pytest.mark.parametrize("parameters", [
    {"top_p": 0}, {"top_p": -0.5}, {"top_p": 1.5}, {"top_p": NAN}, {"temperature": -1},
    {"temperature": NAN}, {"temperature": INFINITY},
], ids=str)
def test_sampling_values_out_of_range_are_refused(leader, parameters):
    bad = piece("a", [1], sampling=sampling(**parameters))
    found = refused(leader, lambda: leader.forward(bad), "INVALID_REQUEST")
    assert next(iter(parameters)) in found.message


@pytest.mark.parametrize("slice_", [
    piece("a", []), piece("a", [101]), piece("", [1]), piece("a" * 129, [1]),
    piece("a", [1], top_n=65),
], ids=["no token", "outside the vocabulary", "no name", "a name too long", "top_n"])
def test_a_malformed_slice_is_refused(leader, slice_):
    refused(leader, lambda: leader.forward(slice_), "INVALID_REQUEST")


@pytest.mark.parametrize("client", ["", "c" * 129])
def test_a_client_must_have_a_name(leader, client):
    refused(leader, lambda: leader.forward(piece("a", [1]), client=client), "INVALID_REQUEST")
    refused(leader, lambda: leader.fork("a", "b", client=client), "INVALID_REQUEST")
    refused(leader, lambda: leader.free("a", client=client), "INVALID_REQUEST")


def test_a_message_over_the_limit_is_refused(leader):
    too_long = "x" * (64 << 20)
    found = refused(leader, lambda: leader.forward(piece(too_long, [1])), "UNSPECIFIED")
    assert found.code == "RESOURCE_EXHAUSTED"
    # Just below the limit it arrives, and is refused for what it is.
    arrives = "x" * ((64 << 20) - 100)
    refused(leader, lambda: leader.forward(piece(arrives, [1])), "INVALID_REQUEST")


def test_ten_thousand_slices_in_a_step_are_refused_with_the_number(leader):
    many = [piece(f"s{i}", [1]) for i in range(10_000)]
    found = refused(leader, lambda: leader.forward(*many), "INVALID_REQUEST")
    assert "10000 slices" in found.message and "32" in found.message


@pytest.mark.parametrize("epoch", [0, 2, 2**64 - 1])
def test_stale_and_future_epochs_are_refused_with_the_one_that_is_held(leader, epoch):
    leader.forward(piece("a", [1]), expected_epoch=1)
    for call in (lambda: leader.forward(piece("a", [2], first=1), expected_epoch=epoch),
                 lambda: leader.fork("a", "b", expected_epoch=epoch),
                 lambda: leader.inference.FreeSequences(inference_pb2.FreeSequencesRequest(
                     client_id="test", all=True, expected_epoch=epoch), timeout=CALL_SECONDS)):
        assert refused(leader, call, "STALE_EPOCH").detail.epoch == 1


def test_a_request_id_with_another_body_is_refused_and_with_the_same_is_answered(leader):
    first = leader.forward(piece("a", [1, 2, 3]), request_id="once")
    refused(leader, lambda: leader.forward(piece("a", [1, 2, 4]), request_id="once"),
            "REQUEST_ID_REUSED")
    assert leader.forward(piece("a", [1, 2, 3]), request_id="once") == first
    # Of another client's it says nothing.
    other = leader.forward(piece("a", [1, 2, 4]), request_id="once", client="other")
    assert other.step > first.step


def test_a_batch_that_does_not_fit_is_refused_whole_and_nothing_is_lost(leader):
    leader.forward(piece("decoding", PROMPT, sample=False))
    leader.forward(piece("long", [1] * 320, sample=False))
    assert leader.capacity().free_blocks == 32 - 5 - 20
    batch = [piece("decoding", TOKENS[:1], first=len(PROMPT)), piece("new", [7] * 48),
             piece("newer", [7] * 80), piece("long", [1], first=320)]
    found = refused(leader, lambda: leader.forward(*batch), "KV_CAPACITY")
    assert "'newer'" in found.message and found.detail.retriable
    # Neither those before the one that did not fit nor those after it have moved.
    leader.free("long")
    answered = leader.forward(batch[0], batch[1], batch[2])
    assert answered.outputs[0].sampled_token == TOKENS[1]


def test_a_caller_that_hangs_up_in_mid_step_gets_the_recorded_answer_when_it_is_back(
        fleet, leader):
    request = forward_request(piece("s", PROMPT), request_id="interrupted")
    behind = forward_request(piece("behind", [1]))
    with fleet.standing_still():
        hung_up = fleet.standing_step(request, behind)
        hung_up.cancel()
        joined = leader.inference.Forward.future(request, timeout=CALL_SECONDS)
    assert hung_up.code() == grpc.StatusCode.CANCELLED
    recorded = joined.result()
    assert recorded.outputs[0].sampled_token == TOKENS[0]
    assert leader.inference.Forward(request, timeout=CALL_SECONDS) == recorded
    # It was run once, and what waited behind it at most where the leader had not heard in time.
    decoded = leader.forward(piece("s", TOKENS[:1], first=len(PROMPT)))
    assert decoded.outputs[0].sampled_token == TOKENS[1]
    assert decoded.step - recorded.step in (1, 2)


def test_two_schedulers_on_one_replica_get_each_its_own_tokens(leader):
    prompts = {"test": PROMPT, "other": PROMPT[::-1]}
    alone = {client: write(leader, prompts[client], 24, client) for client in prompts}
    assert alone["test"] == TOKENS and alone["other"] != TOKENS
    together: dict[str, list[list[int]]] = {client: [] for client in prompts}

    def schedule(client: str, chunk: int) -> None:
        for _ in range(4):
            together[client].append(write(leader, prompts[client], 24, client, chunk))

    threads = [threading.Thread(target=schedule, args=it) for it in (("test", 7), ("other", 16))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == {client: [tokens] * 4 for client, tokens in alone.items()}


def test_two_parts_of_the_layers_write_the_tokens_of_the_whole(leader):
    tokens, position = list(PROMPT), 0
    for expected in TOKENS[:3]:
        front = leader.forward(piece("s", tokens, first=position, sample=False,
                                     layers=layers(0, 1), return_hidden_states=1))
        between = front.outputs[0].hidden_states
        assert len(between) == len(tokens) * HIDDEN
        back = leader.forward(piece("s", first=position, hidden_states=between,
                                    layers=layers(1, 2)))
        assert back.outputs[0].sampled_token == expected
        position += len(tokens)
        tokens = [expected]
    assert leader.capacity().not_rebuildable_sequences == 1


def test_a_fork_goes_on_as_its_parent_would_and_neither_disturbs_the_other(leader):
    leader.forward(piece("parent", PROMPT))
    assert leader.fork("parent", "child").tokens == len(PROMPT)
    leader.forward(piece("child", [7], first=len(PROMPT)))
    position = len(PROMPT)
    for given, expected in zip(TOKENS, TOKENS[1:4], strict=False):
        answer = leader.forward(piece("parent", [given], first=position))
        assert answer.outputs[0].sampled_token == expected
        position += 1
