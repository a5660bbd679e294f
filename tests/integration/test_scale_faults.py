"""Deaths, freezes and refusals while a fleet changes its shape: who is named, who serves on, and
that nothing stays behind."""

import signal
import subprocess
from contextlib import ExitStack

import pytest
from admin_port import ADMIN, admin_url, scrape
from fleets import await_that
from scaled_faults import OPERATION, SOON, FaultyFleet, Talk, soon
from scaled_fleet import scaled_fleet

# Within it a worker that stands still is missed; within the other only its death is.
SHORT_LEASE = "1s"
LONG_LEASE = "20s"
SURVIVORS = ("w0", "w1")
EVERYONE = ("w0", "w1", "w2")


@pytest.fixture
def fleet_with(daemons):
    """Makes a fleet of which w0 and w1 serve, and w2 stands by.

    A fault of w2 meets it when it is recruited; those of w0 can be in a phase of a takeover.
    """
    with ExitStack() as ends:

        def fleet_with(fault: str = "", lease: str = LONG_LEASE, kv_memory: str = "4MiB",
                       leader_fault: str = "") -> FaultyFleet:
            words = {"w0": ("--fault", leader_fault)} if leader_fault else {}
            fleet = FaultyFleet(ends.enter_context(
                scaled_fleet(daemons, workers=2, lease=lease, words=words,
                             coordinator_words=ADMIN)))
            ends.callback(fleet.close)
            fleet.fleet.start_worker(
                "w2", kv_memory=kv_memory, words=("--fault", fault) if fault else ())
            return fleet

        yield fleet_with


def complaint(command: subprocess.Popen, *parts: str, status: int = 1) -> str:
    """The one line that the command ended with, which holds all parts."""
    _, errors = command.communicate(timeout=SOON)
    assert command.returncode == status, errors
    (line,) = errors.splitlines()
    assert line.startswith("musterctl: ")
    for part in parts:
        assert part in line
    return line


def assert_rolled_back(fleet: FaultyFleet, *parts: str, worker: str = "") -> dict:
    """The operation says so, with a reason that holds all parts, and so does an event."""
    operation = fleet.await_end()
    assert operation["state"] == operation["replicas"][0]["stage"] == "ROLLED_BACK"
    for part in parts:
        assert part in operation["failure"]["message"]
    assert operation["failure"]["detail"].get("workers", []) == ([worker] if worker else [])
    (event,) = fleet.events_of("ROLLED_BACK")
    assert event.operation_id == OPERATION and event.epoch == 2
    assert event.message == operation["failure"]["message"]
    assert not fleet.events_of("EPOCH_FAILED")
    return operation


def assert_failed(fleet: FaultyFleet, rank: int, worker: str, *left: str) -> int:
    """The operation has failed by that worker, and the others serve another epoch: it."""
    operation = fleet.await_end()
    assert operation["state"] == operation["replicas"][0]["stage"] == "FAILED"
    assert operation["failure"]["detail"]["workers"] == [worker]
    (event,) = fleet.events_of("EPOCH_FAILED")
    assert f"rank {rank} (worker {worker}) was lost" in event.message
    replica = fleet.await_serving(3)
    assert sorted(replica.workers) == sorted(left)
    fleet.await_alone(replica.epoch, *left)
    return replica.epoch


def assert_formed_again(fleet: FaultyFleet, talk: Talk, command: subprocess.Popen, rank: int,
                        victim: str, *left: str) -> None:
    """The operation has failed by that worker, says so, and the client goes on with the others."""
    epoch = assert_failed(fleet, rank, victim, *left)
    complaint(command, "cp 2 to 3 failed", f"rank {rank} (worker {victim}) was lost",
              "the replica is formed again")
    talk.await_tokens()
    assert talk.end(losses=1)[-1] == epoch


def assert_can_grow(fleet: FaultyFleet) -> None:
    """Nothing is in the way of another try."""
    assert fleet.fleet.scale(3).state == "DONE"


# A standby.


@pytest.mark.parametrize("phase", [
    "load", "warmup/exchange", "warmup/self-test", "capture/graphs", "capture/agree"])
def test_a_standby_that_dies_is_named_and_the_epoch_before_serves_on(fleet_with, phase):
    fleet = fleet_with(f"kill@{phase}")
    talk = fleet.talk()
    before = fleet.all_held(*SURVIVORS)
    called = phase.split("/")[0]
    complaint(fleet.scale(), "cp 2 to 3 was rolled back", "rank 2 (worker w2) was lost in", called,
              "epoch 1 still serves")
    assert_rolled_back(fleet, "rank 2 (worker w2) was lost in", called, worker="w2")
    fleet.await_death("w2")
    fleet.await_held(before)
    talk.await_tokens()
    fleet.fleet.start_worker("w3")
    assert_can_grow(fleet)
    talk.await_tokens()
    assert talk.end() == [1, 3]


@pytest.mark.parametrize("phase", ["load", "warmup/vote", "warmup/self-test", "capture/agree"])
def test_a_standby_that_freezes_is_named_and_gives_back_when_it_goes_on(fleet_with, phase):
    fleet = fleet_with(f"stop@{phase}", lease=SHORT_LEASE)
    talk = fleet.talk()
    before = fleet.all_held(*EVERYONE)
    command = fleet.scale()
    fleet.await_stop("w2")
    called = phase.split("/")[0]
    complaint(command, "cp 2 to 3 was rolled back", "rank 2 (worker w2) was lost in", called,
              "epoch 1 still serves")
    assert_rolled_back(fleet, "rank 2 (worker w2) was lost in", called, worker="w2")
    fleet.await_held({name: before[name] for name in SURVIVORS})
    talk.await_tokens()
    fleet.go_on("w2")
    fleet.await_held(before)
    assert_can_grow(fleet)
    talk.await_tokens()
    assert talk.end() == [1, 3]


def test_a_standby_that_freezes_and_then_dies_leaves_nothing(fleet_with):
    fleet = fleet_with("stop@capture/graphs")
    talk = fleet.talk()
    before = fleet.all_held(*SURVIVORS)
    command = fleet.scale()
    fleet.await_stop("w2")
    talk.await_tokens()
    fleet.kill("w2")
    complaint(command, "rank 2 (worker w2) was lost in capture", "epoch 1 still serves")
    assert_rolled_back(fleet, "rank 2 (worker w2) was lost in capture", worker="w2")
    fleet.await_held(before)
    assert talk.end() == [1]


def test_a_standby_with_too_little_memory_is_told_with_numbers(fleet_with):
    fleet = fleet_with(kv_memory="1MiB")
    talk = fleet.talk()
    before = fleet.all_held(*EVERYONE)
    wanted = "the KV that goes over takes 341 blocks on every rank; " \
             "rank 2 (worker w2) has room for 85"
    complaint(fleet.scale(), wanted, "epoch 1 still serves")
    operation = assert_rolled_back(fleet, wanted, worker="w2")
    assert operation["failure"]["detail"]["reason"] == "OUT_OF_MEMORY"
    fleet.await_held(before)
    assert talk.end() == [1]


def await_survivors_at_the_barrier(fleet: FaultyFleet) -> None:
    """The coordinator has their calls: one that stops then keeps nobody there."""
    for name in SURVIVORS:
        soon(lambda name=name: fleet.epochs(name)[2].progress.phase == "warmup/barrier",
             f"{name} is at the barrier")
    url = admin_url(fleet.fleet.coordinator.process)
    soon(lambda: scrape(url)["muster_coordinator_rendezvous_waiting"].total() == len(SURVIVORS),
         "they wait for w2")


def test_what_a_survivor_waits_for_ends_with_the_epoch_that_is_prepared(fleet_with):
    """The leader has yet to make way for the self-test when the standby dies."""
    fleet = fleet_with("stop@warmup/barrier")
    before = fleet.held("w1")
    command = fleet.scale()
    fleet.await_stop("w2")
    await_survivors_at_the_barrier(fleet)
    fleet.stop("w0")
    fleet.await_stop("w0")
    fleet.go_on("w2")
    soon(lambda: fleet.epochs("w1")[2].progress.phase == "warmup/self-test",
         "w1 waits for the leader")
    fleet.kill("w2")
    await_that(lambda: fleet.held("w1") == before, "w1 gives back", timeout=3)
    fleet.go_on("w0")
    complaint(command, "rank 2 (worker w2) was lost in warmup", "epoch 1 still serves")


# A standby in the takeover.


def test_a_standby_that_freezes_before_the_switch_is_rolled_back(fleet_with):
    fleet = fleet_with(lease=SHORT_LEASE, leader_fault="stop@activate/copy")
    talk = fleet.talk()
    before = fleet.all_held(*EVERYONE)
    command = fleet.scale()
    fleet.await_stop("w0")
    fleet.stop("w2")
    fleet.await_stop("w2")
    fleet.go_on("w0")
    complaint(command, "rank 2 (worker w2) was lost in activate", "epoch 1 still serves")
    assert_rolled_back(fleet, "rank 2 (worker w2) was lost in activate", worker="w2")
    fleet.await_held({name: before[name] for name in SURVIVORS})
    talk.await_tokens()
    fleet.go_on("w2")
    fleet.await_held(before)
    assert_can_grow(fleet)
    talk.await_tokens()
    assert talk.end() == [1, 3]


@pytest.mark.parametrize("phase", ["activate/copy", "activate/hold"])
def test_a_standby_that_dies_before_the_switch_is_rolled_back(fleet_with, phase):
    fleet = fleet_with(leader_fault=f"stop@{phase}")
    talk = fleet.talk()
    before = fleet.all_held(*SURVIVORS)
    command = fleet.scale()
    fleet.await_stop("w0")
    fleet.kill("w2")
    fleet.go_on("w0")
    complaint(command, "rank 2 (worker w2) was lost in activate", "epoch 1 still serves")
    assert_rolled_back(fleet, "rank 2 (worker w2) was lost in activate", worker="w2")
    fleet.await_held(before)
    talk.await_tokens()
    assert talk.end() == [1]


def test_a_standby_that_dies_after_the_switch_fails_the_new_epoch(fleet_with):
    fleet = fleet_with(leader_fault="stop@activate/switch")
    talk = fleet.talk()
    command = fleet.scale()
    fleet.await_stop("w0")
    fleet.kill("w2")
    fleet.go_on("w0")
    complaint(command, "cp 2 to 3 failed", "rank 2 (worker w2)", "the replica is formed again")
    epoch = assert_failed(fleet, 2, "w2", *SURVIVORS)
    talk.await_tokens()
    assert talk.end(losses=1)[-1] == epoch


# Those that serve.


@pytest.mark.parametrize("rank, victim, left", [(0, "w0", ["w1", "w2"]), (1, "w1", ["w0", "w2"])])
def test_one_that_serves_and_dies_while_the_next_epoch_is_prepared_ends_both(
        fleet_with, rank, victim, left):
    fleet = fleet_with("stop@capture/agree")
    talk = fleet.talk()
    command = fleet.scale()
    fleet.await_stop("w2")
    fleet.kill(victim)
    fleet.go_on("w2")
    assert_formed_again(fleet, talk, command, rank, victim, *left)


@pytest.mark.parametrize("phase", ["activate/copy", "activate/hold", "activate/switch"])
def test_a_leader_that_dies_in_the_takeover_is_named_and_the_replica_is_formed_again(
        fleet_with, phase):
    fleet = fleet_with(leader_fault=f"kill@{phase}")
    talk = fleet.talk()
    command = fleet.scale()
    assert_formed_again(fleet, talk, command, 0, "w0", "w1", "w2")


@pytest.mark.parametrize("phase", ["activate/hold", "activate/switch"])
def test_a_leader_that_freezes_in_the_takeover_serves_nothing_when_it_goes_on(fleet_with, phase):
    fleet = fleet_with(lease=SHORT_LEASE, leader_fault=f"stop@{phase}")
    talk = fleet.talk()
    idle = fleet.held("w2")
    command = fleet.scale()
    fleet.await_stop("w0")
    epoch = assert_failed(fleet, 0, "w0", "w1", "w2")
    complaint(command, "cp 2 to 3 failed", "rank 0 (worker w0) was lost")
    fleet.go_on("w0")
    fleet.await_held({"w0": idle})
    fleet.await_alone(epoch, "w1", "w2")
    assert not fleet.leaders(["w0"])
    talk.await_tokens()
    assert talk.end(losses=1)[-1] == epoch


@pytest.mark.parametrize("phase", ["activate/copy", "activate/hold", "activate/switch"])
def test_a_follower_that_dies_in_the_takeover_is_named_and_the_replica_is_formed_again(
        fleet_with, phase):
    fleet = fleet_with(leader_fault=f"stop@{phase}")
    talk = fleet.talk()
    command = fleet.scale()
    fleet.await_stop("w0")
    fleet.kill("w1")
    fleet.go_on("w0")
    assert_formed_again(fleet, talk, command, 1, "w1", "w0", "w2")


# The coordinator.


def test_a_coordinator_that_dies_while_an_epoch_is_prepared_leaves_the_one_that_serves(fleet_with):
    fleet = fleet_with("stop@capture/agree")
    talk = fleet.talk()
    before = fleet.all_held(*EVERYONE)
    command = fleet.scale()
    fleet.await_stop("w2")
    fleet.kill_coordinator()
    fleet.go_on("w2")
    talk.await_tokens(100)
    complaint(command, f"operation {OPERATION} is out of sight")
    fleet.start_coordinator()
    assert fleet.await_serving().epoch == 1
    soon(lambda: fleet.events_of("ADOPTED"), "epoch 1 is adopted")
    (event,) = soon(lambda: fleet.events_of("ROLLED_BACK"), "epoch 2 is given back")
    assert event.epoch == 2 and "epoch 1 serves on" in event.message
    fleet.await_held(before)
    assert_can_grow(fleet)
    talk.await_tokens()
    assert talk.end() == [1, 3]


def test_a_takeover_does_without_a_coordinator_and_the_next_one_adopts_its_outcome(fleet_with):
    fleet = fleet_with(leader_fault="stop@activate/copy")
    talk = fleet.talk()
    command = fleet.scale()
    fleet.await_stop("w0")  # It has been told to take over.
    fleet.kill_coordinator()
    fleet.go_on("w0")
    soon(lambda: talk.epochs == [1, 2] or talk.failures, "the leader finishes by itself")
    complaint(command, f"operation {OPERATION} is out of sight")
    fleet.start_coordinator()
    assert fleet.await_serving().epoch == 2
    soon(lambda: fleet.events_of("ADOPTED"), "epoch 2 is adopted")
    fleet.await_alone(2, *EVERYONE)
    assert fleet.fleet.scale(2).state == "DONE"
    talk.await_tokens()
    assert talk.end() == [1, 2, 3]


# The command.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_operation_outlives_its_command_and_can_be_watched_again(fleet_with, number):
    fleet = fleet_with("stop@warmup/exchange")
    talk = fleet.talk()
    command = fleet.scale()
    assert command.stdout.readline()  # It has seen the operation begin.
    fleet.await_stop("w2")
    command.send_signal(number)
    if number == signal.SIGINT:
        complaint(command, f"operation {OPERATION} goes on", status=130)
    else:
        assert command.wait(SOON) == -signal.SIGKILL
    assert fleet.operation()["state"] == "RUNNING"
    again = fleet.scale()
    fleet.go_on("w2")
    output, errors = again.communicate(timeout=SOON)
    assert again.returncode == 0, errors
    assert "cp 2 → 3: prepare" in output
    assert fleet.operation()["state"] == "DONE"
    talk.await_tokens()
    assert talk.end() == [1, 2]


@pytest.mark.parametrize("phase", ["load", "capture/agree"])
def test_what_is_prepared_can_be_cancelled(fleet_with, phase):
    fleet = fleet_with(f"stop@{phase}")
    talk = fleet.talk()
    before = fleet.all_held(*EVERYONE)
    command = fleet.scale()
    fleet.await_stop("w2")
    assert fleet.fleet.ctl("cancel", OPERATION).returncode == 0
    fleet.go_on("w2")
    complaint(command, "was cancelled before it took effect", "epoch 1 still serves", status=1)
    operation = assert_rolled_back(fleet, "was cancelled before it took effect")
    assert operation["failure"]["detail"]["reason"] == "OPERATION_CANCELLED"
    fleet.await_held(before)
    assert_can_grow(fleet)
    talk.await_tokens()
    assert talk.end() == [1, 3]
