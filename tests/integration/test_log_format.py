"""--log-format: what the daemons write is for people, or for programs, line by line."""

import json
import re
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
from fleets import await_that
from wire import (
    CALL_SECONDS, Daemons, ServingFleet, daemons_of_a_module, forward_request, piece)

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
# What ends lines and strings, and controls terminals.
ODD_ID = "odd\n\"}\\\x1b\u2028"


def objects(daemons: Daemons, process: subprocess.Popen) -> list[dict]:
    """Every line of a daemon's log, each of which is an object."""
    return [json.loads(line) for line in daemons.log_of(process).splitlines()]


def leader_of(fleet: ServingFleet) -> subprocess.Popen:
    return fleet.processes[fleet.coordinator.replica().topology.ranks[0].worker_id]


def forward(fleet: ServingFleet, request_id: str) -> None:
    fleet.leader.inference.Forward(
        forward_request(piece("s", [1, 2]), request_id=request_id), timeout=CALL_SECONDS,
        metadata=[("traceparent", TRACEPARENT)])


def assert_dated(line: dict) -> None:
    assert TIME.fullmatch(line["time"])
    written = datetime.fromisoformat(line["time"].replace("Z", "+00:00"))
    assert abs(datetime.now(timezone.utc) - written) < timedelta(minutes=5)


def test_every_line_is_an_object_with_what_is_known(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MUSTER_LOG_FORMAT", "json")
    with daemons_of_a_module(tmp_path_factory.mktemp("json"), "debug") as daemons:
        fleet = daemons.serving_fleet()
        coordinator = objects(daemons, fleet.coordinator.process)
        follower = objects(daemons, fleet.processes["w1"])
    for role, lines in (("coordinator", coordinator), ("worker", follower)):
        assert lines
        for line in lines:
            assert list(line)[:3] == ["time", "level", "role"] and line["role"] == role
            assert_dated(line)
            assert line["level"] in ("debug", "info", "warning", "error")
            assert isinstance(line["message"], str)
    assert {line["worker"] for line in follower} == {"w1"}
    loaded = next(line for line in follower if line["message"].startswith("loaded"))
    assert (loaded["replica"], loaded["epoch"]) == (0, 1) and loaded["rank"] in (0, 1)
    assert {line.get("worker") for line in coordinator} >= {"w0", "w1"}


def test_a_line_of_a_request_names_it_whatever_its_id_is(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MUSTER_LOG_FORMAT", "json")
    with daemons_of_a_module(tmp_path_factory.mktemp("json"), "debug") as daemons:
        fleet = daemons.serving_fleet()
        forward(fleet, ODD_ID)
        answered = await_that(
            lambda: [line for line in objects(daemons, leader_of(fleet)) if "request_id" in line],
            "the request is logged")
    assert len(answered) == 1
    assert answered[0]["request_id"] == ODD_ID and answered[0]["trace_id"] == TRACE
    assert answered[0]["epoch"] == 1 and answered[0]["message"].startswith("answered after step ")


def test_text_names_request_epoch_and_trace_as_well(tmp_path_factory):
    with daemons_of_a_module(tmp_path_factory.mktemp("text"), "debug") as daemons:
        fleet = daemons.serving_fleet()
        forward(fleet, "r-7")
        line = await_that(
            lambda: re.search(r"^.*request r-7.*$", daemons.log_of(leader_of(fleet)), re.M),
            "the request is logged")
    assert re.fullmatch(
        rf"\S+ D worker w\d \[epoch 1 request r-7 trace {TRACE}\] answered after step \d+: .*",
        line.group())


def test_the_last_word_of_a_daemon_is_an_object_too(programs, tmp_path):
    result = subprocess.run(
        [str(programs.bin / "muster-worker"), "--coordinator", "127.0.0.1:1", "--model",
         str(tmp_path / "no\nwhere"), "--log-format", "json", "--device", "cpu"],
        capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 1
    last = json.loads(result.stderr.splitlines()[-1])
    assert last["level"] == "error" and "no\nwhere" in last["message"].replace("\\n", "\n")


@pytest.mark.parametrize("daemon", ["muster-coordinator", "muster-worker"])
def test_another_format_is_refused(programs, daemon):
    result = subprocess.run(
        [str(programs.bin / daemon), "--log-format", "xml"], capture_output=True, text=True,
        timeout=20, check=False)
    assert result.returncode == 2
    assert "--log-format: 'xml' is not one of text, json" in result.stderr
