"""`musterctl trace`: a file for trace viewers of what all ranks of a fleet did."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import pytest
from fleets import PATIENCE, PROMISE, assert_one_line, await_that
from scaled_fleet import ScaledFleet, scaled_fleet
from wire import CALL_SECONDS, Rank, daemons_of_a_module, forward_request, piece

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
HEADER = [("traceparent", f"00-{TRACE}-{PARENT}-01")]


@pytest.fixture
def fleet(tmp_path_factory) -> Iterator[ScaledFleet]:
    """Two ranks that serve, and two standbys."""
    with (daemons_of_a_module(tmp_path_factory.mktemp("trace")) as daemons,
          scaled_fleet(daemons) as fleet):
        yield fleet


@contextmanager
def load(leader: Rank) -> Iterator[None]:
    """Somebody decodes on the leader, all of whose requests are part of one trace."""
    stop = threading.Event()

    def decode() -> None:
        while not stop.is_set():
            for position in range(200):
                leader.inference.Forward(
                    forward_request(piece("s", [7], position), client="load",
                                    request_id=f"r-{position}"),
                    timeout=CALL_SECONDS, metadata=HEADER)
            leader.free(client="load")

    with ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(decode)
        try:
            yield
        finally:
            stop.set()
        decoding.result()


def trace(fleet: ScaledFleet, seconds: float = 1) -> dict:
    result = fleet.ctl("trace", "--seconds", str(seconds))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def slices(found: dict, name: str | None = None) -> list[dict]:
    return [it for it in found["traceEvents"] if it["ph"] == "X" and name in (None, it["name"])]


def rows(found: dict) -> dict[int, str]:
    """Processes by their ids."""
    return {it["pid"]: it["args"]["name"] for it in found["traceEvents"]
            if it["name"] == "process_name"}


def overlap(one: dict, other: dict, slack: float = 0) -> bool:
    return (one["ts"] <= other["ts"] + other["dur"] + slack
            and other["ts"] <= one["ts"] + one["dur"] + slack)


def assert_well_formed(found: dict) -> None:
    """What a viewer wants: events complete in themselves, which nest within a thread."""
    assert {it["ph"] for it in found["traceEvents"]} <= {"X", "M"}
    assert min((it["ts"] for it in slices(found)), default=0) == 0
    threads: dict[tuple[int, int], list[dict]] = {}
    for event in slices(found):
        assert event["dur"] >= 0 and event["args"]["epoch"] >= 1
        threads.setdefault((event["pid"], event["tid"]), []).append(event)
    named = {(it["pid"], it["tid"]) for it in found["traceEvents"] if it["name"] == "thread_name"}
    assert set(threads) == named
    for events in threads.values():
        open_ends: list[float] = []
        for before, event in pairwise([events[0], *events]):
            assert before["ts"] <= event["ts"]
            # Microseconds with three digits, as binary fractions.
            while open_ends and open_ends[-1] <= event["ts"] + 1e-3:
                open_ends.pop()
            end = event["ts"] + event["dur"]
            assert not open_ends or end <= open_ends[-1] + 1e-3
            open_ends.append(end)


def test_it_has_the_steps_of_all_ranks_on_one_clock_and_the_requests_by_name(fleet):
    with load(fleet.leader):
        found = trace(fleet)
    assert_well_formed(found)
    names = rows(found)
    assert [name[:16] for name in names.values()] == ["replica 0 rank 0", "replica 0 rank 1"]
    leader, follower = names
    steps = {pid: {it["args"]["step"]: it for it in slices(found, "step") if it["pid"] == pid}
             for pid in names}
    both = steps[leader].keys() & steps[follower].keys()
    assert len(both) > 10 and len(both) >= 0.9 * len(steps[leader])
    # As far as the clocks are known.
    slack = sum(worker["round_trip_us"] for worker in found["otherData"]["workers"])
    assert all(overlap(steps[leader][step], steps[follower][step], slack) for step in both)
    for name in ("device", "sampling"):
        assert {it["pid"] for it in slices(found, name)} == {leader, follower}
    for name in ("relay", "request", "queue"):
        assert {it["pid"] for it in slices(found, name)} == {leader}

    requests = slices(found, "request")
    assert {it["args"]["trace_id"] for it in requests} == {TRACE}
    assert {it["args"]["parent_span_id"] for it in requests} == {PARENT}
    assert all(it["args"]["request_id"].startswith("r-") for it in requests)
    assert all(overlap(it, steps[leader][it["args"]["step"]]) for it in requests
               if it["args"]["step"] in steps[leader])
    collectives = [it for it in slices(found) if it["name"].endswith(" collectives")]
    assert {it["pid"] for it in collectives} == {leader, follower}
    assert all(it["args"]["bytes"] > 0 and it["args"]["wait_us"] >= 0 for it in collectives)
    for worker in found["otherData"]["workers"]:
        assert worker["lost"] == 0
        assert abs(worker["clock_offset_us"]) < 5000, "they share a host"


@contextmanager
def tracing(fleet: ScaledFleet, seconds: float) -> Iterator[subprocess.Popen]:
    """A trace that has begun: it is connected with all workers."""
    with subprocess.Popen([*fleet.ctl_command(), "trace", "--seconds", str(seconds)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        await_that(lambda: _sockets(process.pid) >= len(fleet.processes), "all are connected")
        yield process


def _sockets(pid: int) -> int:
    """How many sockets a process has, the pair of its own with which gRPC wakes up not counted."""
    links = []
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
        except OSError:
            continue  # it was closed meanwhile
    return sum(link.startswith("socket:") for link in links)


def assert_between_epochs(pause: dict, found: dict) -> None:
    """A rank pauses when its last step of the former epoch is over, the leader until it steps again.

    A follower may step in the new epoch while its thread of the former has yet to read that it ended.
    """
    steps = [it for it in slices(found, "step") if it["pid"] == pause["pid"]]
    former = [it["ts"] + it["dur"] for it in steps if it["args"]["epoch"] == 1]
    later = [it["ts"] for it in steps if it["args"]["epoch"] == 2]
    assert former and later
    # Microseconds with three digits, as binary fractions.
    assert max(former) <= pause["ts"] + 1e-3
    if pause["args"]["rank"] == 0:
        assert pause["ts"] + pause["dur"] <= min(later) + 1e-3


def test_a_change_of_shape_is_a_pause_and_recruits_are_there(fleet):
    with load(fleet.leader), tracing(fleet, 30) as process:
        fleet.scale(4)
        trace(fleet, 2)  # for as long, beside the other
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PROMISE)
    assert process.returncode == 130
    assert errors == "musterctl: interrupted; what was traced until then is written\n"
    found = json.loads(output)
    assert_well_formed(found)
    assert len(rows(found)) == 4
    pauses = slices(found, "pause")
    assert {it["args"]["rank"] for it in pauses} == {0, 1}
    for pause in pauses:
        assert_between_epochs(pause, found)
    assert {it["args"]["epoch"] for it in slices(found, "step")} == {1, 2}


def test_a_worker_that_is_lost_meanwhile_is_left_out_by_name(fleet):
    lost = min(fleet.standbys)
    with tracing(fleet, 2) as process:
        os.kill(fleet.processes[lost].pid, signal.SIGKILL)
        output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    found = json.loads(output)
    assert_well_formed(found)
    told = {it["worker_id"] for it in found["otherData"]["workers"]}
    assert told == fleet.processes.keys() - {lost}
    (line,) = errors.splitlines()
    assert line.startswith(f"musterctl: worker {lost} is left out: ")


def test_a_fleet_at_rest_makes_a_trace_of_nothing(fleet):
    found = trace(fleet, 0.1)
    assert found["traceEvents"] == []
    assert len(found["otherData"]["workers"]) == 4


@pytest.mark.parametrize("seconds", ["0", "1000", "-1", "nan", "much"])
def test_a_time_that_is_none_is_refused(programs, seconds):
    assert_one_line(programs.musterctl("trace", "--seconds", seconds), "--seconds", status=2)


def test_without_a_fleet_it_says_so(programs):
    assert_one_line(programs.musterctl("--coordinator", "127.0.0.1:1", "trace"), "127.0.0.1:1")
    result = programs.musterctl("trace")
    assert_one_line(result, "coordinator")
    assert result.stdout == ""
