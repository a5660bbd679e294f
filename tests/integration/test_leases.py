"""A client that goes silent loses what it holds, and people hear of it; one that is there does not.
And the socket by which clients of the same host reach a worker."""

import stat
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from fleets import MODELS, PATIENCE, golden
from muster import methods
from muster.client import Fleet
from muster.replica import Replica
from muster.values import Event, Slice
from proto.muster.v1 import fleet_pb2

MODEL = "llama-mha12"
LEASE = "1s"


@pytest.fixture
def fleet(programs, monkeypatch):
    """A fleet of two ranks that serves, with short leases."""
    monkeypatch.setenv("MUSTER_CLIENT_LEASE", LEASE)
    process = programs.up(MODEL)
    serving = process.await_event("serving", PATIENCE)
    with Fleet(serving["coordinator"]) as fleet:
        yield fleet


def expiry_of(fleet: Fleet, client: str) -> Event:
    """Waits for the event that tells of it."""
    events = fleet.events(follow=True, timeout=PATIENCE)
    return next(it for it in events if it.kind == "CLIENT_EXPIRED" and client in it.message)


@contextmanager
def client_of(fleet: Fleet, name: str):
    with Replica(fleet.replica().address, client_id=name) as replica:
        yield replica


def hold(replica: Replica, sequence: str, tokens: int) -> None:
    """Writes the KV of a new sequence, and does not free it."""
    replica.forward([Slice(sequence, [1] * tokens, 0)])


def test_a_silent_client_loses_its_sequences_and_people_hear_of_it(fleet):
    with client_of(fleet, "silent") as silent:
        hold(silent, "a", tokens=17)
        hold(silent, "b", tokens=1)
    event = expiry_of(fleet, "silent")
    assert event.message == (
        "client 'silent' was silent for 1 s: 2 sequences and 3 KV blocks were given back")
    assert (event.replica, event.epoch, event.worker_id) == (0, 1, "w0")
    with client_of(fleet, "observer") as observer:
        capacity = observer.capacity()
    assert capacity.free_blocks == capacity.total_blocks and capacity.sequences == 0


def test_one_expiry_is_one_event(fleet):
    for name in ("first", "second"):
        with client_of(fleet, name) as client:
            hold(client, "a", tokens=1)
        expiry_of(fleet, name)
    told = [it.message.split("'")[1] for it in fleet.events() if it.kind == "CLIENT_EXPIRED"]
    assert told == ["first", "second"]


def test_a_client_that_watches_capacity_keeps_its_sequences(fleet):
    facts = golden(MODEL)
    with client_of(fleet, "watching") as watching, client_of(fleet, "silent") as silent:
        changes = watching.watch_capacity(PATIENCE)
        next(changes)
        prompt = facts["prompt"]
        (first,) = watching.forward([Slice("kept", prompt, 0, sample=True)]).tokens
        hold(silent, "lost", tokens=1)
        expiry_of(fleet, "silent")
        (second,) = watching.forward([Slice("kept", [first.id], len(prompt), sample=True)]).tokens
        assert [first.id, second.id] == facts["tokens"][:2]
        changes.close()
    # Its silence begins when it has left.
    assert "1 sequence" in expiry_of(fleet, "watching").message


def test_musterctl_shows_who_was_silent(programs, fleet):
    with client_of(fleet, "bench-7") as client:
        hold(client, "a", tokens=1)
    message = expiry_of(fleet, "bench-7").message
    listed = programs.musterctl("events")
    assert listed.returncode == 0, listed.stderr
    assert message in listed.stdout


def local_address_of_the_leader(coordinator: str) -> str:
    with grpc.insecure_channel(coordinator) as channel:
        method = methods.GET_TOPOLOGY
        call = channel.unary_unary(
            method.path, request_serializer=method.encode, response_deserializer=method.decode)
        response = call(fleet_pb2.GetTopologyRequest(), timeout=PATIENCE)
    return response.replicas[0].topology.ranks[0].local_address


@pytest.fixture
def short_runtime(monkeypatch):
    """A runtime directory whose path leaves room for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield directory


def test_a_client_of_the_same_host_goes_by_the_unix_socket(programs, short_runtime):
    process = programs.up(MODEL)
    serving = process.await_event("serving", PATIENCE)
    address = local_address_of_the_leader(serving["coordinator"])
    assert address.startswith("unix:/")
    path = Path(address.removeprefix("unix:"))
    assert path.is_relative_to(short_runtime) and path.is_socket()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    facts = golden(MODEL)
    with Replica(address) as replica:
        tokens = [it.id for it in replica.generate(facts["prompt"], max_tokens=24)]
    assert tokens == facts["tokens"]
    process.stop()
    assert not path.exists()


def test_a_socket_that_others_could_reach_is_refused_in_one_line(programs, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    refused = subprocess.run(
        [str(programs.bin / "muster-worker"), "--coordinator", "127.0.0.1:1", "--model",
         str(MODELS / MODEL), "--unix-socket", str(shared / "w.sock")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert refused.returncode == 1, refused.stderr
    assert refused.stderr.startswith("muster-worker: cannot listen on")
    assert f"{shared} has mode 0755, and must have 0700" in refused.stderr
