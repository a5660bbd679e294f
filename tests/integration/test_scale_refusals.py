"""Changes of shape that are refused: with the reason in one line, and with nothing changed."""

import json
import shutil

import pytest
from fleets import MODELS, assert_one_line
from hand_worker import HandWorkers
from muster.errors import MusterError
from proto.muster.v1 import inference_pb2
from scaled_fleet import MODEL, PROMPT, ScaledFleet, Text, scaled_fleet, unresized
from wire import Rank, piece, refusal

HIDDEN = 96


@pytest.fixture(scope="module")
def module_fleet(daemons):
    """w0 and w1 serve, w2 and w3 stand by; each has room for 32 KV blocks of 16 tokens."""
    with scaled_fleet(daemons, resize_range="1:3", kv_memory="384KiB") as fleet:
        yield fleet


@pytest.fixture
def fleet(module_fleet):
    """With cp 2; no test may leave sequences."""
    module_fleet.reset()
    assert module_fleet.leader.capacity().sequences == 0
    return module_fleet


@pytest.fixture
def leader(fleet):
    leader = fleet.leader
    yield leader
    fleet.leader.free()


@pytest.fixture
def lonely(daemons):
    """One worker, w0, and nobody else."""
    with scaled_fleet(daemons, cp=1, workers=1, resize_range="1:3") as fleet:
        yield fleet


@pytest.fixture
def strangers():
    workers = HandWorkers()
    yield workers
    workers.end()


def refused(fleet: ScaledFleet, *words: str, parts: tuple[str, ...]) -> str:
    """The line by which a command is refused; the fleet is what it was, and serves."""
    before, operations = fleet.replica, fleet.client.operations()
    result = fleet.ctl(*words)
    assert_one_line(result, *parts)
    assert not result.stdout
    assert (fleet.replica.epoch, fleet.replica.workers) == (before.epoch, before.workers)
    assert fleet.client.operations() == operations
    return result.stderr


def failure(fleet: ScaledFleet, cp: int) -> MusterError:
    with pytest.raises(MusterError) as caught:
        fleet.scale(cp)
    return caught.value


@pytest.mark.parametrize("cp", ["0", "-1", "1025", "4294967298", "two", "2.5"])
def test_what_is_no_size_is_a_wrong_command_line(fleet, cp):
    assert_one_line(fleet.ctl("scale-cp", cp), f"cp: Value {cp} not in range 1 to 1024", status=2)


@pytest.mark.parametrize("cp", [0, 1025])
def test_what_is_no_size_is_refused_by_the_coordinator_as_well(fleet, cp):
    found = failure(fleet, cp)
    assert (found.code, found.reason) == ("INVALID_ARGUMENT", "PLAN_REFUSED")
    assert f"cp={cp}" in str(found) and "1 to 1,024" in str(found)


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["", "dry run"])
def test_a_size_that_does_not_divide_is_refused_with_those_that_do(fleet, dry_run):
    refused(fleet, "scale-cp", "5", *dry_run, parts=(
        "cannot plan cp=5", "6 heads of 16 make 96 numbers per token, which 5 does not divide",
        "cp can be 1, 2 or 3."))


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["", "dry run"])
def test_a_size_without_room_is_refused_with_the_range_and_its_flag(fleet, dry_run):
    refused(fleet, "scale-cp", "4", *dry_run, parts=(
        "cannot plan cp=4", "cp 1 to 3 (--resize-range)", "cp can be 1, 2 or 3."))
    found = failure(fleet, 4)
    assert (found.code, found.reason) == ("INVALID_ARGUMENT", "PLAN_REFUSED")
    assert not found.retriable


def test_a_size_outside_of_the_range_is_not_made_possible_by_more_workers(fleet):
    """Whoever is told of workers starts some, only to be told then that the range forbids it."""
    refused(fleet, "scale-cp", "6", parts=("--resize-range",))


def test_a_size_beyond_the_workers_is_refused_with_how_many_there_are(lonely):
    refused(lonely, "scale-cp", "2", parts=("cp=2", "needs 2 workers", "1 "))
    found = failure(lonely, 2)
    assert (found.code, found.reason) == ("FAILED_PRECONDITION", "NOT_ENOUGH_WORKERS")
    assert found.retriable
    lonely.start_worker("w1")
    lonely.scale(2)
    assert lonely.replica.workers == ("w0", "w1")


def test_workers_that_were_drained_are_told_apart_from_those_that_are_missing(lonely):
    """w1 is enlisted, as `musterctl status` shows, and gets no rank."""
    lonely.start_worker("w1")
    assert lonely.ctl("drain", "w1").returncode == 0
    line = refused(lonely, "scale-cp", "2", parts=("needs 2 workers",))
    assert "drained" in line and "1 are enlisted" not in line


def test_a_second_operation_is_refused_with_the_first_ones_id(fleet):
    with fleet.scaling(3, "first"):
        for words in (("scale-cp", "1"), ("drain", "w1"), ("scale-cp", "3")):
            refused(fleet, *words, parts=("'first'", "cp 2 to 3", "running"))
        found = failure(fleet, 1)
        assert (found.code, found.reason) == ("FAILED_PRECONDITION", "OPERATION_RUNNING")
    assert fleet.operation("first").state == "DONE"


def test_an_id_that_named_another_change_is_refused(fleet):
    assert fleet.ctl("scale-cp", "3", "--request-id", "mine").returncode == 0
    refused(fleet, "scale-cp", "2", "--request-id", "mine", parts=("'mine'", "other arguments"))


def test_an_operation_that_has_ended_or_never_was_cannot_be_cancelled(fleet):
    assert fleet.ctl("scale-cp", "3", "--request-id", "over").returncode == 0
    result = fleet.ctl("cancel", "over")
    assert (result.returncode, result.stdout) == (0, "operation over (cp 2 to 3) had ended: DONE\n")
    assert fleet.replica.config.cp == 3
    refused(fleet, "cancel", "nothing", parts=("no operation 'nothing'",))


def test_the_only_worker_cannot_be_drained(lonely):
    refused(lonely, "drain", "w0", parts=("w0", "only worker of replica 0"))


def test_the_leader_cannot_be_drained_while_it_serves(fleet):
    refused(fleet, "drain", "w0", parts=("w0", "leads replica 0"))


def test_nobody_is_drained_who_is_not_there(fleet):
    refused(fleet, "drain", "w9", parts=("no worker named 'w9'",))


@pytest.fixture
def with_stranger(daemons, tmp_path):
    """w0 and w1 serve, w2 stands by and holds another model under the same names of tensors."""
    other = shutil.copytree(MODELS / MODEL, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with scaled_fleet(daemons, workers=2) as fleet:
        fleet.start_worker("w2", other)
        yield fleet


def test_a_standby_of_another_model_gets_no_rank_and_is_named(with_stranger):
    fleet = with_stranger
    refused(fleet, "scale-cp", "3", parts=("different models", "w2 holds other", MODEL, "digest"))
    found = failure(fleet, 3)
    assert (found.code, found.reason) == ("FAILED_PRECONDITION", "DISAGREEMENT")
    assert found.workers == ("w2",)
    assert fleet.ctl("drain", "w2").returncode == 0
    assert fleet.scale(1).state == "DONE"


def test_a_standby_of_another_model_hinders_no_change_that_does_not_need_it(with_stranger):
    with_stranger.start_worker("w3")
    for cp, workers in ((3, ("w0", "w1", "w3")), (1, ("w0",))):
        result = with_stranger.ctl("scale-cp", str(cp))
        assert result.returncode == 0, result.stderr
        assert with_stranger.replica.workers == workers


def test_a_standby_of_another_build_gets_no_rank_and_is_named(lonely, strangers):
    member = lonely.coordinator.workers()["w0"]
    strangers.enlist(lonely.coordinator, "w1", member.model.digest, build="0.0.1")
    assert member.build not in ("", "0.0.1")
    refused(lonely, "scale-cp", "2", "--dry-run", parts=("w1", "0.0.1", member.build))


@pytest.fixture
def full(leader):
    """Four sequences of ten blocks each, 40 of 64."""
    for index in range(4):
        leader.forward(piece(f"s{index}", [index + 3] * 160, sample=False))
    assert leader.capacity().free_blocks == 24
    return leader


def test_sequences_that_would_not_fit_are_refused_with_the_numbers(fleet, full):
    for dry_run in ((), ("--dry-run",)):
        refused(fleet, "scale-cp", "1", *dry_run, parts=(
            "cannot plan cp=1", "rank 0 would hold 40 KV blocks", "room for 32",
            "Free sequences, or choose cp 3."))
    found = failure(fleet, 1)
    assert (found.code, found.reason) == ("RESOURCE_EXHAUSTED", "KV_CAPACITY")
    assert found.retriable and found.ranks == (0,) and found.workers == ("w0",)
    assert full.free("s0") == 1
    # 30 blocks of 32.
    assert fleet.scale(1).replicas[0].sequences == 3


def test_another_tp_is_not_refused_for_blocks_that_are_smaller_there(fleet, full):
    """At tp 3 a rank has a third of each block, and room for 96 of them."""
    result = fleet.apply("tp: 3\ncp: 1\n", "--json")
    assert result.returncode == 0, result.stderr
    assert fleet.leader.capacity().total_blocks == 96
    assert json.loads(result.stdout)["replicas"][0]["sequences"] == 4


def feed_hidden_states(leader: Rank, sequence: str) -> None:
    """Has the second layer run on numbers of the client's own, and the first on tokens."""
    front, back = (inference_pb2.LayerRange(begin=it, end=it + 1) for it in (0, 1))
    leader.forward(piece(sequence, [5, 17, 42], sample=False, layers=front))
    leader.forward(piece(sequence, hidden_states=[0.5] * HIDDEN * 3, layers=back))


def test_sequences_fed_with_hidden_states_make_another_tp_refuse_unless_dropped(fleet, leader):
    reference = unresized(fleet, 20)
    feed_hidden_states(leader, "fed")
    with fleet.client.replica() as replica:
        text = Text(replica)
        text.write(10)
        parts = ("1 sequence can be neither moved nor computed again", "'test/fed'", "drop")
        assert_one_line(fleet.apply("tp: 3\ncp: 1\n"), *parts)
        assert_one_line(fleet.apply("tp: 3\ncp: 1\ndrop: [test/other]\n"), *parts)
        result = fleet.apply("tp: 3\ncp: 1\ndrop: [test/fed]\n", "--json")
        assert result.returncode == 0, result.stderr
        (facts,) = json.loads(result.stdout)["replicas"]
        assert (facts["sequences"], facts["sequences_dropped"]) == (1, 1)
        assert facts["tokens_rebuilt"] == text.prefilled
        assert text.write(10) == reference
        assert text.prefilled == len(PROMPT) + 19
        text.free()
    found = refusal(lambda: leader.forward(piece("fed", [1], first=3)))
    assert found.reason == "UNKNOWN_SEQUENCE"


def test_the_dry_run_of_a_change_that_loses_sequences_names_them(fleet, leader):
    """It is refused as the change itself, and shows what it loses once that may be lost."""
    feed_hidden_states(leader, "fed")
    refused(fleet, *("plan", "--tp", "3", "--cp", "2"), parts=("it needs 6 workers",))
    assert_one_line(fleet.apply("tp: 3\ncp: 1\n", "--dry-run"), "1 sequence", "'test/fed'", "drop")
    for result in (fleet.apply("tp: 3\ncp: 1\n", "--dry-run", "--drop", "test/fed"),
                   fleet.ctl("plan", "--tp", "3", "--cp", "1")):
        assert result.returncode == 0, result.stderr
        assert "test/fed" in result.stdout and "--drop" in result.stdout
    assert leader.capacity().sequences == 1


def test_sequences_fed_with_hidden_states_move_with_their_blocks(fleet, leader):
    feed_hidden_states(leader, "fed")
    feed_hidden_states(leader, "twin")
    before = leader.forward(piece("twin", [9], first=3)).outputs[0]
    assert fleet.scale(3).replicas[0].sequences == 2
    after = leader.forward(piece("fed", [9], first=3)).outputs[0]
    assert after.sampled_token == before.sampled_token


@pytest.mark.parametrize("file, complaint", [
    ("", "empty"), ("cp: x\n", "'cp' wants a whole number"), ("sp: 2\n", "'sp' is no key"),
    ("buckets: [1, 8]\n", "largest first"), ("tp: 0\n", "'tp' wants a whole number"),
    ("timeout: 2h\n", "'timeout'")])
def test_a_file_that_is_wrong_is_refused_with_its_name_and_the_key(fleet, file, complaint):
    assert_one_line(fleet.apply(file), "topology.yaml", complaint)
