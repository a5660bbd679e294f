"""What the services' ports do with callers who ask for too much."""

import socket

import grpc
import pytest
from proto.muster.v1 import fleet_pb2, fleet_pb2_grpc
from wire import CALL_SECONDS

_MIB = 1 << 20
_IDLE = 1000


@pytest.fixture
def coordinator(programs) -> str:
    return programs.up("llama-mha12").await_event("serving")["coordinator"]


def topology(channel: grpc.Channel, metadata=()) -> fleet_pb2.GetTopologyResponse:
    return fleet_pb2_grpc.FleetStub(channel).GetTopology(
        fleet_pb2.GetTopologyRequest(), metadata=metadata, timeout=CALL_SECONDS)


@pytest.mark.parametrize("size", [64 << 10, 100 * _MIB])
def test_metadata_beyond_the_limit_is_refused_and_others_are_served(coordinator, size):
    with grpc.insecure_channel(coordinator, [("grpc.max_metadata_size", 2 * size)]) as greedy:
        with pytest.raises(grpc.RpcError) as caught:
            topology(greedy, metadata=[("x-large", "m" * size)])
    assert caught.value.code() in (
        grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE), caught.value
    with grpc.insecure_channel(coordinator) as channel:
        assert len(topology(channel).replicas) == 1


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
