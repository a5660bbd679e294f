"""One worker as its operator meets it: how it starts, is refused, outlives a coordinator, ends."""

import os
import signal
import subprocess
import time

import pytest
from fleets import MODELS, PROMISE, await_that, golden
from muster.client import Fleet
from muster.errors import MusterError

MODEL = MODELS / "llama-mha12"
NOWHERE = "127.0.0.1:1"


@pytest.fixture
def start(programs):
    """Starts a daemon; the `programs` end it."""

    def start(daemon: str, *words: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(programs.bin / daemon), *words, "--log-level", "warning"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture
def start_worker(start):
    def start_worker(coordinator: str, worker: str = "w0", *words: str) -> subprocess.Popen:
        return start("muster-worker", "--coordinator", coordinator, "--worker-id", worker,
                     "--model", str(MODEL), "--kv-memory", "4MiB", "--threads", "1", *words)

    return start_worker


@pytest.fixture
def start_coordinator(start, tmp_path):
    """Starts a coordinator, and waits for its address."""

    def start_coordinator(listen: str = "127.0.0.1:0", cp: int = 2):
        port_file = tmp_path / "port"
        port_file.unlink(missing_ok=True)
        process = start("muster-coordinator", "--listen", listen, "--cp", str(cp), "--port-file",
                        str(port_file))
        await_that(port_file.exists, "the coordinator listens")
        return process, port_file.read_text().strip()

    return start_coordinator


def assert_ends(process: subprocess.Popen, status: int, *parts: str) -> None:
    """It ends with one line of its own on stderr that holds all parts."""
    _, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    lines = [line for line in errors.splitlines() if line.startswith("muster-worker: ")]
    assert len(lines) == 1, errors
    for part in parts:
        assert part in lines[0]


def serving_epoch(coordinator: str) -> int:
    """The epoch of replica 0 while it serves, else 0."""
    try:
        with Fleet(coordinator) as fleet:
            (replica,) = fleet.replicas()
    except MusterError:
        return 0
    return replica.epoch if replica.state == "SERVING" else 0


def test_a_wrong_flag_is_status_2_and_help_is_status_0(start, start_worker):
    assert_ends(start_worker(NOWHERE, "w0", "--threads", "0"), 2, "--threads", "'0'")
    assert_ends(start_worker(NOWHERE, "no/such/name"), 2, "--worker-id")
    helped = start("muster-worker", "--help")
    output, errors = helped.communicate(timeout=30)
    assert helped.returncode == 0 and "--coordinator HOST:PORT" in output and not errors


def test_a_model_that_cannot_be_used_is_told_before_it_listens(
        start, start_coordinator, tmp_path):
    _, taken = start_coordinator()
    unusable = start("muster-worker", "--coordinator", NOWHERE, "--model", str(tmp_path / "none"),
                     "--listen", taken)
    assert_ends(unusable, 1, "none")


def test_a_port_that_is_taken_is_named(start_coordinator, start_worker):
    _, address = start_coordinator()
    assert_ends(start_worker(NOWHERE, "w0", "--listen", address), 1,
                f"cannot listen on {address}: address in use")


def test_a_second_worker_of_one_name_is_refused(start_coordinator, start_worker):
    _, address = start_coordinator(cp=1)
    start_worker(address)
    await_that(lambda: serving_epoch(address), "the first serves")
    assert_ends(start_worker(address), 1, "refused this worker", "w0")


def test_what_is_no_coordinator_is_told_apart(start_coordinator, start_worker):
    coordinator, address = start_coordinator()
    coordinator.kill()
    coordinator.wait()
    start_worker(NOWHERE, "w0", "--listen", address)
    assert_ends(start_worker(address, "w1"), 1, f"what listens at {address} is no coordinator")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_that_serves_or_waits(start_coordinator, start_worker, number):
    _, address = start_coordinator(cp=1)
    serving, waiting = start_worker(address), start_worker(NOWHERE)
    await_that(lambda: serving_epoch(address), "it serves")
    start = time.monotonic()
    for worker in (serving, waiting):
        os.kill(worker.pid, number)
    for worker in (serving, waiting):
        assert worker.wait(timeout=30) == 0
    assert time.monotonic() - start < PROMISE


def test_serving_goes_on_without_a_coordinator_and_the_next_one_adopts_it(
        start_coordinator, start_worker):
    coordinator, address = start_coordinator()
    for worker in ("w0", "w1"):
        start_worker(address, worker)
    await_that(lambda: serving_epoch(address) == 1, "epoch 1 serves")
    facts = golden("llama-mha12")
    with Fleet(address) as fleet, fleet.replica(0) as replica:
        tokens = []
        for token in replica.generate(facts["prompt"], max_tokens=24):
            tokens.append(token.id)
            if len(tokens) == 5:
                coordinator.kill()
                coordinator.wait()
        assert tokens == facts["tokens"]
    start_coordinator(address)
    await_that(lambda: serving_epoch(address) == 1, "epoch 1 is adopted")
    with Fleet(address) as fleet, fleet.replica(0) as replica:
        again = [token.id for token in replica.generate(facts["prompt"], max_tokens=24)]
    assert again == facts["tokens"]
