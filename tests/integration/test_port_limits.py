"""What the services' ports do with callers who ask for too much."""

import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from fleets import await_that
from proto.muster.v1 import fleet_pb2, fleet_pb2_grpc
from wire import CALL_SECONDS

_MIB = 1 << 20
_IDLE = 1000
_ARRIVED_KIB = 4096
# A process of its own: the call keeps its caller busy as well.
_GREEDY = """
import sys, grpc
call = grpc.insecure_channel(sys.argv[1], [("grpc.max_metadata_size", 200 << 20)]).unary_unary(
    "/muster.v1.Fleet/GetTopology")
call(b"", metadata=[("x-large", "m" * (100 << 20))])
"""


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.fixture
def coordinator(programs) -> str:
    return programs.up("llama-mha12").await_event("serving")["coordinator"]


def topology(channel: grpc.Channel, metadata=()) -> fleet_pb2.GetTopologyResponse:
    return fleet_pb2_grpc.FleetStub(channel).GetTopology(
        fleet_pb2.GetTopologyRequest(), metadata=metadata, timeout=CALL_SECONDS)


def test_metadata_beyond_the_limit_is_refused_and_others_are_served(coordinator):
    size = _MIB
    with grpc.insecure_channel(coordinator, [("grpc.max_metadata_size", 2 * size)]) as greedy:
        with pytest.raises(grpc.RpcError) as caught:
            topology(greedy, metadata=[("x-large", "m" * size)])
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with grpc.insecure_channel(coordinator) as channel:
        assert len(topology(channel).replicas) == 1


def test_others_are_served_while_somebody_sends_a_hundred_megabytes_of_metadata(programs):
    up = programs.up("llama-mha12")
    pid = up.await_event("started")["coordinator_pid"]
    coordinator = up.await_event("serving")["coordinator"]
    before = resident_kib(pid)
    greedy = subprocess.Popen([sys.executable, "-c", _GREEDY, coordinator])
    try:
        await_that(lambda: resident_kib(pid) > before + _ARRIVED_KIB, "much of it has arrived")
        for _ in range(50):
            with grpc.insecure_channel(
                    coordinator, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                assert len(topology(channel).replicas) == 1
        assert greedy.poll() is None
        assert resident_kib(pid) < before + 100 * 1024
    finally:
        greedy.kill()
        greedy.wait()


def test_a_thousand_silent_connections_keep_nobody_out(coordinator):
    host, port = coordinator.rsplit(":", 1)
    silent = []
    try:
        for _ in range(_IDLE):
            silent.append(socket.create_connection((host, int(port)), timeout=CALL_SECONDS))
        with grpc.insecure_channel(coordinator) as channel:
            assert len(topology(channel).replicas) == 1
    finally:
        for connection in silent:
            connection.close()


def test_a_message_beyond_the_limit_is_refused(coordinator):
    request = fleet_pb2.WatchEventsRequest()
    request.MergeFromString(b"\xfa\xff\x07" + b"\x80\x80\x80\x28" + bytes(80 * _MIB))
    with grpc.insecure_channel(coordinator) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            next(fleet_pb2_grpc.FleetStub(channel).WatchEvents(request, timeout=CALL_SECONDS))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(topology(channel).replicas) == 1
