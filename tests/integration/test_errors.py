"""Every reason that an error can have: made to happen, seen over a channel, and found in
docs/errors.md as it is told there."""

import re
import shutil
import uuid
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import grpc
import numpy
import pytest
from fleets import MODELS, REPOSITORY, await_that
from hand_worker import HandWorkers
from proto.muster.v1 import (
    error_pb2,
    fleet_pb2,
    membership_pb2,
    membership_pb2_grpc,
    rendezvous_pb2,
    worker_control_pb2,
)
from safetensors.numpy import load_file, save_file
from wire import (
    CALL_SECONDS,
    Coordinator,
    Daemons,
    Rank,
    Refusal,
    ServingFleet,
    daemons_of_a_module,
    forward_request,
    piece,
    refusal,
    seconds,
)

MAX_DETAIL_BYTES = 4096
REASONS = sorted(
    name.removeprefix("ERROR_REASON_") for name, number in error_pb2.ErrorReason.items() if number)
DOCUMENT = REPOSITORY / "docs" / "errors.md"


class Stage:
    """Where the scenarios play: fleets and workers, each started when it is wanted first."""

    def __init__(self, daemons: Daemons, directory: Path):
        self.daemons = daemons
        self.directory = directory
        self.hands = HandWorkers()

    @cached_property
    def fleet(self) -> ServingFleet:
        """llama-mha12 on two workers: 12 heads, 101 tokens, 512 positions."""
        return self.daemons.serving_fleet()

    def rank_at_hand(self, name: str, model: Path, kv_memory: str = "4MiB") -> "RankAtHand":
        # It waits for more workers than there will ever be, and so gives this one no rank.
        lobby = self.daemons.coordinator(cp=16)
        self.daemons.worker(lobby, name, model, kv_memory)
        await_that(lambda: name in lobby.workers(), "the worker enlists")
        return RankAtHand(lobby, name)


class RankAtHand:
    """A real worker, led through its life by the test in the coordinator's place."""

    def __init__(self, lobby: Coordinator, name: str):
        worker = lobby.workers()[name]
        self.rank = Rank(worker.address)
        (self.topology,) = lobby.plan().topologies
        (place,) = self.topology.ranks
        place.worker_id, place.address = name, worker.address
        place.incarnation = worker.incarnation
        await_that(lambda: self._answers(), "it answers")

    def assign(self) -> None:
        self.rank.control.Assign(
            worker_control_pb2.AssignRequest(header=self._header(), topology=self.topology),
            timeout=CALL_SECONDS)

    def load(self) -> None:
        request = worker_control_pb2.LoadRequest(header=self._header())
        list(self.rank.control.Load(request, timeout=CALL_SECONDS))

    def warm_up(self) -> None:
        request = worker_control_pb2.WarmupRequest(
            header=self._header(), timeout=seconds(CALL_SECONDS))
        list(self.rank.control.Warmup(request, timeout=CALL_SECONDS))

    def capture(self) -> None:
        request = worker_control_pb2.CaptureRequest(
            header=self._header(), timeout=seconds(CALL_SECONDS))
        list(self.rank.control.Capture(request, timeout=CALL_SECONDS))

    def _header(self) -> worker_control_pb2.ControlHeader:
        return worker_control_pb2.ControlHeader(
            request_id=uuid.uuid4().hex, term=self.topology.term, epoch=self.topology.epoch)

    def _answers(self) -> bool:
        try:
            self.rank.control.GetStatus(
                worker_control_pb2.GetStatusRequest(), timeout=CALL_SECONDS)
        except grpc.RpcError:
            return False
        return True


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    directory = tmp_path_factory.mktemp("errors")
    with daemons_of_a_module(directory) as daemons:
        stage = Stage(daemons, directory)
        try:
            yield stage
        finally:
            stage.hands.end()


SCENARIOS: dict[str, Callable[[Stage], list[Refusal]]] = {}


def scenario(play: Callable[[Stage], list[Refusal]]):
    """The function is named after the reason that it makes happen."""
    SCENARIOS[play.__name__.upper()] = play
    return play


def damaged_model(directory: Path, **weights: numpy.ndarray | None) -> Path:
    """llama-mha12 with other weights, or without some (None); "model__norm__weight" names one."""
    copy = Path(shutil.copytree(MODELS / "llama-mha12", directory))
    path = copy / "model.safetensors"
    tensors = load_file(path)
    for name, value in weights.items():
        tensors.pop(name.replace("__", "."))
        if value is not None:
            tensors[name.replace("__", ".")] = value
    save_file(tensors, path)
    return copy


@scenario
def invalid_request(stage):
    leader = stage.fleet.leader
    return [
        refusal(leader.forward),
        refusal(lambda: leader.forward(piece("a", [1], sample=True, top_n=65))),
        # As many slices as a step can have, and more rows.
        refusal(lambda: leader.forward(*[piece(f"s{i}", [1] * 17) for i in range(32)])),
    ]


@scenario
def plan_refused(stage):
    return [refusal(lambda: stage.fleet.coordinator.plan(tp=5)),
            refusal(lambda: stage.fleet.coordinator.plan(cp=5))]


@scenario
def not_enough_workers(stage):
    empty = stage.daemons.coordinator()
    waiting = empty.replica()
    assert waiting.state == fleet_pb2.REPLICA_STATE_WAITING
    return [refusal(empty.plan), refusal(lambda: stage.fleet.coordinator.plan(cp=4))]


@scenario
def model_unusable(stage):
    incomplete = damaged_model(stage.directory / "incomplete", model__norm__weight=None)
    misshapen = damaged_model(
        stage.directory / "misshapen", model__norm__weight=numpy.ones(95, numpy.float32))
    refusals = []
    for name, model in (("incomplete", incomplete), ("misshapen", misshapen)):
        rank = stage.rank_at_hand(name, model)
        rank.assign()
        refusals.append(refusal(rank.load))
    return refusals


@scenario
def stale_epoch(stage):
    leader = stage.fleet.leader
    return [refusal(lambda: leader.forward(piece("a", [1]), expected_epoch=99)),
            refusal(lambda: leader.fork("a", "b", expected_epoch=99))]


@scenario
def wrong_state(stage):
    rank = stage.rank_at_hand("early", MODELS / "llama-mha12")
    without_an_epoch = refusal(lambda: rank.rank.forward(piece("a", [1])))
    rank.assign()
    return [without_an_epoch,
            refusal(lambda: rank.rank.forward(piece("a", [1]))),
            refusal(rank.warm_up)]


def forming_pair(stage: Stage):
    """Two workers by hand, and the topology that they were given ranks in."""
    coordinator = stage.daemons.coordinator(cp=2)
    pair = [stage.hands.enlist(coordinator, name) for name in ("hand-0", "hand-1")]
    await_that(lambda: coordinator.replica().HasField("topology"), "a topology is planned")
    return coordinator, pair, coordinator.replica().topology


@scenario
def rank_missing(stage):
    _, (first, _), topology = forming_pair(stage)
    missed = first.all_gather(topology, "warmup/exchange", timeout=0.05, value=b"here")
    missing = refusal(missed.result)
    assert (list(missing.detail.ranks), list(missing.detail.workers)) == ([1], ["hand-1"])
    return [missing]


@scenario
def rank_lost(stage):
    coordinator, (first, second), topology = forming_pair(stage)
    waiting = first.all_gather(topology, "warmup/exchange", value=b"here")
    second.leave()
    lost = [refusal(waiting.result), first.aborted(),
            Refusal.of_failure(coordinator.replica().failure)]
    for it in lost:
        assert (list(it.detail.ranks), list(it.detail.workers)) == ([1], ["hand-1"])
    return lost


@scenario
def rank_failed(stage):
    _, (first, second), topology = forming_pair(stage)
    waiting = first.all_gather(topology, "warmup/exchange", value=b"here")
    reported = rendezvous_pb2.RankFailure(code=13, message="the device is on fire")
    told = second.all_gather(topology, "warmup/exchange", failure=reported)
    failed = [refusal(waiting.result), refusal(told.result)]
    for it in failed:
        assert "the device is on fire" in it.message and list(it.detail.ranks) == [1]
    return failed


@scenario
def disagreement(stage):
    coordinator = stage.daemons.coordinator(cp=16)
    for i in range(10):
        stage.hands.enlist(coordinator, f"same-{i}")
    # Names as long as they can be; all of them would not fit the detail.
    for i in range(9):
        stage.hands.enlist(coordinator, f"odd-{i}".ljust(128, "x"), digest="f" * 16)
    odd = refusal(coordinator.plan)
    assert len(odd.detail.workers) == 8 and odd.detail.culprit_count == 9
    return [odd, Refusal.of_failure(coordinator.replica().failure)]


@scenario
def out_of_memory(stage):
    rank = stage.rank_at_hand("small", MODELS / "llama-mha12", kv_memory="4KiB")
    rank.assign()
    rank.load()
    rank.warm_up()
    return [refusal(rank.capture)]


@scenario
def kv_capacity(stage):
    leader = stage.daemons.serving_fleet(kv_memory="96KiB").leader
    fits = leader.capacity().max_prompt_tokens
    return [refusal(lambda: leader.forward(piece("a", [1] * (fits + 1))))]


@scenario
def context_exceeded(stage):
    leader = stage.fleet.leader
    return [refusal(lambda: leader.forward(piece("a", [1] * 513))),
            refusal(lambda: leader.forward(piece("a", [1], first=512)))]


@scenario
def unknown_sequence(stage):
    leader = stage.fleet.leader
    return [refusal(lambda: leader.forward(piece("nobody", [1], first=3))),
            refusal(lambda: leader.fork("nobody", "b"))]


@scenario
def position_mismatch(stage):
    leader = stage.fleet.leader
    leader.forward(piece("short", [1, 2]))
    return [refusal(lambda: leader.forward(piece("short", [3], first=7))),
            refusal(lambda: leader.forward(piece("short", [3], first=1))),
            refusal(lambda: leader.fork("short", "b", tokens=3))]


@scenario
def not_leader(stage):
    follower = stage.fleet.ranks[1]
    refused = refusal(lambda: follower.forward(piece("a", [1])))
    assert list(refused.detail.ranks) == [0]
    return [refused, refusal(follower.capacity)]


@scenario
def sequence_exists(stage):
    leader = stage.fleet.leader
    leader.forward(piece("parent", [1, 2]))
    leader.fork("parent", "child")
    return [refusal(lambda: leader.fork("parent", "child"))]


@scenario
def request_id_reused(stage):
    leader = stage.fleet.leader
    leader.forward(piece("once", [1]), request_id="same")
    return [refusal(lambda: leader.forward(piece("once", [2]), request_id="same"))]


@scenario
def queue_full(stage):
    leader = stage.fleet.leader
    more_than_can_wait = 300
    with stage.fleet.standing_still():
        calls = [leader.inference.Forward.future(
            forward_request(piece("flood", [1])), timeout=CALL_SECONDS)
            for _ in range(more_than_can_wait)]
        refused = await_that(lambda: [call for call in calls if call.done()], "some are refused")
    ended = [call.exception() for call in calls]
    # Of those that could wait one began the sequence, and the others came too late for that.
    assert ended.count(None) == 1
    return [refusal(call.result) for call in refused]


@scenario
def given_up(stage):
    """Whoever gave up hears nothing more: its own library tells it so."""
    leader = stage.fleet.leader
    before = leader.capacity().sequences
    with stage.fleet.standing_still():
        stream = stage.fleet.standing_step(
            forward_request(piece("stands", [1])), forward_request(piece("stands", [1], 1)))
        late = leader.inference.Forward.future(forward_request(piece("late", [1])), timeout=2)
        await_that(lambda: leader.capacity().queued_requests == 2, "it waits")
        hung_up = leader.inference.Forward.future(
            forward_request(piece("hung up", [1])), timeout=CALL_SECONDS)
        await_that(lambda: leader.capacity().queued_requests == 3, "it waits as well")
        hung_up.cancel()
        in_vain = refusal(late.result)
    assert all(response.HasField("response") for response in stream)
    # This one comes behind them in the queue: the leader has come to both, and run neither.
    assert leader.free("stands") == 1
    assert leader.capacity().sequences == before
    assert (in_vain.code, in_vain.detail) == ("DEADLINE_EXCEEDED", None)
    assert hung_up.code() == grpc.StatusCode.CANCELLED
    return []


@scenario
def cannot_sample(stage):
    model = damaged_model(stage.directory / "not-a-number",
                          model__norm__weight=numpy.full(96, numpy.nan, numpy.float32))
    leader = stage.daemons.serving_fleet(model).leader
    response = leader.forward(piece("a", [1, 2]), piece("b", [1], sample=False))
    unanswered, untouched = response.outputs
    assert not unanswered.HasField("sampled_token") and not untouched.HasField("error")
    failed = Refusal.of_status(unanswered.error)
    # Its positions are taken all the same.
    leader.forward(piece("a", [3], first=2, sample=False))
    assert failed.detail.kv_written
    return [failed]


def rows() -> dict[str, tuple[set[str], str, str]]:
    """Of the table: codes, "yes", "no" or "either", and the whole row, by reason."""
    table = {}
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.fullmatch(r"`([A-Z_]+)`", cells[0])
        if name is None or len(cells) < 5:
            continue
        assert name[1] not in table, f"{name[1]} stands twice in {DOCUMENT.name}"
        table[name[1]] = (set(re.findall(r"`([A-Z_]+)`", cells[1])), cells[3], line)
    return table


# Reasons of which every failure concerns one epoch.
OF_AN_EPOCH = {"NOT_LEADER", "RANK_MISSING", "RANK_LOST", "RANK_FAILED", "STALE_EPOCH"}
# Tests of what no channel shows, by reason.
UNSEEN = {
    "GIVEN_UP": ("worker/service/inference_service_test.cc",
                 ["ADeadlineThatPassesInTheQueueLeavesNothing",
                  "WhatACancelledStreamHadWaitingIsNotRun"]),
    "OPERATION_RUNNING": ("coordinator/operations_test.cc",
                          ["ASecondOperationIsRefusedWithTheFirstOnesName"]),
    "OPERATION_CANCELLED": ("coordinator/replica_resize_test.cc", ["ItCanBeCancelled"]),
    "WORKER_DRAINED": ("coordinator/change_plan_test.cc",
                       ["ADrainedWorkerIsNotRecruitedAndNamedWhereItIsMissed"]),
    "KV_CORRUPT": ("worker/cache/kv_arena_test.cc", ["ABlockThatChangedAfterItsSealIsRefused"]),
}
SCENARIOS |= {name: lambda stage: [] for name in UNSEEN if name not in SCENARIOS}


@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_happens_and_is_told_as_documented(stage, reason):
    assert reason in SCENARIOS, f"no scenario makes {reason} happen"
    codes, retriable, _ = rows()[reason]
    refusals = SCENARIOS[reason](stage)
    assert refusals or reason in UNSEEN
    for it in refusals:
        assert it.reason == reason, it
        assert it.code in codes, it
        assert retriable in ("either", "yes" if it.detail.retriable else "no"), it
        assert it.detail_bytes <= MAX_DETAIL_BYTES, it
        assert reason not in OF_AN_EPOCH or it.detail.epoch == 1, it
    if reason not in UNSEEN:
        assert {it.code for it in refusals} == codes, "the table has codes that nobody saw"


def test_the_table_has_every_reason_and_no_other():
    assert sorted(rows()) == REASONS
    assert sorted(SCENARIOS) == REASONS


@pytest.mark.parametrize("reason", UNSEEN)
def test_what_no_channel_shows_is_shown_by_a_test_that_the_table_names(reason):
    source, names = UNSEEN[reason]
    text = (REPOSITORY / source).read_text()
    for name in names:
        assert f", {name})" in text
        assert name in rows()[reason][2]


def test_errors_of_a_stream_carry_the_same_detail(stage):
    leader = stage.fleet.leader
    requests = [forward_request(piece("nobody", [1], first=3), request_id="lost")]
    (response,) = leader.stream(*requests)
    assert response.request_id == "lost"
    streamed = Refusal.of_status(response.error)
    unary = refusal(lambda: leader.inference.Forward(requests[0], timeout=CALL_SECONDS))
    assert streamed == unary


def test_requests_of_a_replica_that_loses_a_rank_say_what_became_of_them(stage):
    fleet = stage.daemons.serving_fleet()
    leader = fleet.leader
    leader.forward(piece("held", [1]))
    requests = [forward_request(piece("held", [2], first=1)), forward_request(piece("new", [1]))]
    with fleet.standing_still():
        stream = fleet.standing_step(*requests)
        fleet.processes[fleet.coordinator.replica().topology.ranks[1].worker_id].kill()
    stamped, waiting = [Refusal.of_status(response.error) for response in stream]
    for it in (stamped, waiting):
        assert (it.code, it.reason) == ("UNAVAILABLE", "RANK_LOST"), it
        assert (it.detail.epoch, list(it.detail.ranks), list(it.detail.workers)) == (
            1, [1], ["w1"]), it
    assert stamped.detail.kv_written and not waiting.detail.kv_written


def second_of_one_name(stage):
    coordinator, (first, _), _ = forming_pair(stage)
    enlist = membership_pb2_grpc.MembershipStub(coordinator.channel).Enlist
    again = membership_pb2.EnlistRequest()
    again.CopyFrom(first.enlistment)
    again.enlistment.incarnation += 1000
    return list(enlist(iter([again]), timeout=CALL_SECONDS))


def malformed_enlistment(stage):
    enlist = membership_pb2_grpc.MembershipStub(stage.fleet.coordinator.channel).Enlist
    empty = membership_pb2.EnlistRequest(enlistment=membership_pb2.Enlistment())
    return list(enlist(iter([empty]), timeout=CALL_SECONDS))


def rendezvous_of_no_group(stage):
    _, (first, _), topology = forming_pair(stage)
    topology.groups[0].id = "0" * 16
    return first.all_gather(topology, "key", value=b"here").result()


@pytest.mark.parametrize("call", [
    lambda stage: stage.fleet.coordinator.plan(tp=2000),
    second_of_one_name,
    malformed_enlistment,
    rendezvous_of_no_group,
], ids=["a size beyond all", "a second worker of one name", "a malformed enlistment",
        "a rendezvous of no group"])
def test_the_coordinators_refusals_have_a_detail_too(stage, call):
    assert refusal(lambda: call(stage)).reason != "UNSPECIFIED"
