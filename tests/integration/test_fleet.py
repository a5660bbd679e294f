"""`musterctl up` in one process, the other commands in others, and what becomes of the dead."""

import json
import os
import signal
import time

import pytest
from fleets import MODELS, PROMISE, await_that, golden, worker_pid, written
from muster.client import Fleet
from muster.fleet_process import FleetError

PHASES = [
    "load", "warmup/probe", "warmup/vote", "warmup/allocate", "warmup/exchange", "warmup/open",
    "warmup/barrier", "warmup/self-test", "warmup/acknowledge", "warmup/relay",
    "capture/graphs", "capture/kv", "capture/agree"]


def events(programs) -> list[dict]:
    result = programs.musterctl("--json", "events")
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_later_commands_find_the_fleet_and_talk_to_it(programs):
    up = programs.up("llama-gqa6", tp=3, cp=2)
    serving = up.await_event("serving")
    status = programs.musterctl("status")
    assert status.returncode == 0 and "serving" in status.stdout
    assert all(f"w{index}" in status.stdout for index in range(6))
    topology = programs.musterctl("topology").stdout
    assert "heads 2-3" in topology and "CP [0,3] [1,4] [2,5]" in topology
    facts = golden("llama-gqa6")
    forward = programs.musterctl(
        "forward", "--prompt-tokens", written(facts["prompt"]), "--max-tokens", "24")
    assert list(map(int, forward.stdout.split())) == facts["tokens"]
    assert json.loads(programs.musterctl("--json", "status").stdout)["coordinator"] == (
        serving["coordinator"])


def test_json_forward_returns_log_probabilities(programs):
    programs.up("llama-mha12").await_event("serving")
    facts = golden("llama-mha12")
    report = json.loads(programs.musterctl(
        "forward", "--json", "--top", "2", "--prompt-tokens", written(facts["prompt"])).stdout)
    assert report["tokens"] == facts["tokens"][:1]
    ((first, best), (_, second)), = report["top"]
    assert first == facts["tokens"][0] and best > second


def test_events_tell_the_life_of_the_fleet(programs):
    programs.up("llama-mha12").await_event("serving")
    kinds = [event["kind"] for event in events(programs)]
    assert kinds.count("WORKER_ENLISTED") == 2
    assert kinds.index("TOPOLOGY_PLANNED") < kinds.index("PHASE_DONE") < kinds.index("SERVING")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_fleet_in_time_and_says_so(programs, number):
    up = programs.up("llama-mha12")
    up.await_event("serving")
    start = time.monotonic()
    os.kill(up.pid, number)
    assert up.await_event("stopped")["processes"] == 3
    assert up.next_event() is None
    assert time.monotonic() - start < PROMISE
    assert not programs.running()


def test_a_fleet_whose_worker_stands_still_ends_in_time(programs):
    up = programs.up("llama-mha12")
    started = up.await_event("started")
    up.await_event("serving")
    os.kill(worker_pid(started, "w1"), signal.SIGSTOP)
    start = time.monotonic()
    os.kill(up.pid, signal.SIGTERM)
    up.await_event("stopped")
    assert time.monotonic() - start < PROMISE


def test_kill_9_of_musterctl_leaves_nothing(programs):
    up = programs.up("llama-mha12")
    up.await_event("serving")
    os.kill(up.pid, signal.SIGKILL)
    await_that(lambda: not programs.running(), "all processes are gone", PROMISE)
    # Nobody was left to remove the record; it says so to the next caller.
    assert "recorded by the last" in programs.musterctl("status").stderr
    for path in (MODELS / os.environ["XDG_RUNTIME_DIR"]).rglob("coordinator"):
        path.unlink()


@pytest.mark.parametrize("worker, rank", [("w0", 0), ("w1", 1)])
def test_the_death_of_a_serving_worker_is_told_with_rank_worker_and_phase(programs, worker, rank):
    up = programs.up("llama-mha12")
    started = up.await_event("started")
    with Fleet(up.await_event("serving")["coordinator"]) as fleet:
        (before,) = fleet.replicas()
        pid = worker_pid(started, before.workers[rank])
        os.kill(pid, signal.SIGKILL)
        lost = await_that(
            lambda: [it for it in events(programs) if it["kind"] == "WORKER_LOST"],
            "the loss is an event", PROMISE)
        assert (lost[0]["rank"], lost[0]["worker_id"]) == (rank, before.workers[rank])
        assert lost[0]["phase"]
        await_that(lambda: fleet.replicas()[0].state != "SERVING", "it serves no more", PROMISE)
    assert up.await_event("process_ended")["pid"] == pid


@pytest.mark.parametrize("phase", PHASES)
def test_a_worker_killed_while_forming_fails_the_others_at_once_and_is_named(
        programs, phase, tmp_path):
    logs = tmp_path / "logs"
    up = programs.up("llama-mha12", tp=1, cp=3, extra=(
        "--fault", f"w1:kill@{phase}", "--log-dir", str(logs)))
    with pytest.raises(FleetError) as caught:
        up.await_event("serving", timeout=20)
    message = str(caught.value)
    assert "w1" in message and "rank" in message, message
    assert phase.split("/")[0] in message
    up.stop()


def test_a_coordinator_that_dies_ends_the_fleet(programs):
    up = programs.up("llama-mha12")
    started = up.await_event("started")
    up.await_event("serving")
    os.kill(started["coordinator_pid"], signal.SIGKILL)
    with pytest.raises(FleetError, match="coordinator was killed by signal 9"):
        up.await_event("stopped")


def test_logs_go_where_they_are_asked_for(programs, tmp_path):
    programs.up("llama-mha12", extra=("--log-dir", str(tmp_path / "logs"))).await_event("serving")
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "coordinator.log", "w0.log", "w1.log"]
    assert (tmp_path / "logs" / "w0.log").read_text()
