"""Probes and gRPC health of daemons: they say what is so."""

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import grpc
import pytest
from admin_port import ADMIN, admin_url, get
from fleets import PROMISE, await_that
from scaled_fleet import MODEL, ScaledFleet
from wire import Coordinator, Daemons, ServingFleet, forward_request, piece

STALL = ("--stall-timeout", "1s")
SERVING, NOT_SERVING = 1, 2


def _request(service: str) -> bytes:
    name = service.encode()
    return b"\x0a" + bytes([len(name)]) + name if name else b""


def _status(answer: bytes) -> int:
    assert len(answer) == 2 and answer[0] == 8
    return answer[1]


def health(channel: grpc.Channel, service: str = "") -> int:
    """grpc.health.v1.HealthCheckResponse.ServingStatus."""
    check = channel.unary_unary("/grpc.health.v1.Health/Check", lambda it: it, lambda it: it)
    return _status(check(_request(service), timeout=10))


def health_changes(channel: grpc.Channel, service: str) -> Iterator[int]:
    """The same as it is now, and whenever it changes."""
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch", lambda it: it, lambda it: it)
    return map(_status, watch(_request(service), timeout=60))


@pytest.fixture(scope="module")
def coordinator(daemons: Daemons) -> Coordinator:
    return daemons.coordinator(2, *ADMIN)


@pytest.fixture(scope="module")
def fleet(daemons: Daemons, coordinator: Coordinator) -> Iterator[ScaledFleet]:
    """Two ranks that serve, and a standby."""
    fleet = ScaledFleet(daemons, coordinator)
    for name in ("w0", "w1", "w2"):
        fleet.start_worker(name, words=(*ADMIN, *STALL))
    await_that(lambda: fleet.replica.state == "SERVING", "the fleet serves")
    yield fleet
    fleet.close()


def of(fleet: ScaledFleet, worker: str, probe: str) -> tuple[int, str]:
    return get(f"{admin_url(fleet.processes[worker])}/{probe}")


def test_a_coordinator_is_ready_without_workers(coordinator: Coordinator) -> None:
    url = admin_url(coordinator.process)
    assert get(f"{url}/readyz") == (200, "ok\n")
    assert get(f"{url}/livez") == (200, "ok\n")
    for service in ("", "muster.v1.Membership", "muster.v1.Rendezvous", "muster.v1.Fleet"):
        assert health(coordinator.channel, service) == SERVING


def test_a_rank_that_serves_is_ready(fleet: ScaledFleet) -> None:
    for worker in ("w0", "w1"):
        assert of(fleet, worker, "readyz") == (200, "ok\n")
        assert of(fleet, worker, "livez") == (200, "ok\n")
        assert of(fleet, worker, "startupz") == (200, "ok\n")
        status, text = of(fleet, worker, "readyz?verbose")
        assert status == 200
        assert "[+]epoch: replica 0 epoch 1 serves\n" in text
        assert "[+]steps: no request waits\n" in text
    channel = fleet.rank_of("w0").channel
    for service in ("", "muster.v1.Inference", "muster.v1.WorkerControl"):
        assert health(channel, service) == SERVING


def test_a_standby_is_ready_only_as_a_standby(fleet: ScaledFleet) -> None:
    status, text = of(fleet, "w2", "readyz")
    assert (status, text) == (503, "[-]epoch: standby: this worker has no rank\n"
                                   "readyz check failed\n")
    assert of(fleet, "w2", "readyz?standby") == (200, "ok\n")
    assert of(fleet, "w2", "startupz") == (200, "ok\n")
    channel = fleet.rank_of("w2").channel
    assert health(channel, "muster.v1.Inference") == NOT_SERVING
    assert health(channel, "muster.v1.WorkerControl") == SERVING


def test_a_worker_without_a_coordinator_has_not_started(daemons: Daemons) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        lonely = Coordinator(f"127.0.0.1:{nobody.getsockname()[1]}", daemons.start("musterctl"))
        worker = daemons.worker(lonely, "lonely", MODEL, words=ADMIN)
        url = admin_url(worker)
        assert get(f"{url}/livez") == (200, "ok\n")
        status, text = get(f"{url}/startupz")
        assert status == 503
        assert "no coordinator has taken this worker in yet" in text


def test_a_leader_whose_steps_stand_still_does_not_serve(fleet: ScaledFleet) -> None:
    rank = fleet.leader
    serving = ServingFleet(fleet.coordinator, fleet.processes, [rank])
    leader = fleet.coordinator.replica().topology.ranks[0].worker_id
    watched = health_changes(rank.channel, "muster.v1.Inference")
    assert next(watched) == SERVING
    with serving.standing_still():
        stream = serving.standing_step(
            *(forward_request(piece(f"s{i}", [1, 2, 3]), request_id=f"r{i}") for i in range(2)))
        await_that(lambda: of(fleet, leader, "readyz")[0] == 503, "the stall is noticed")
        text = of(fleet, leader, "readyz")[1]
        assert "[-]steps: 2 requests in flight, and a step ended" in text
        assert health(rank.channel, "muster.v1.Inference") == NOT_SERVING
        assert next(watched) == NOT_SERVING
        assert of(fleet, leader, "livez")[0] == 200, "there is nothing that a restart would mend"
    assert len(list(stream)) == 2
    await_that(lambda: of(fleet, leader, "readyz")[0] == 200, "steps end again")
    assert health(rank.channel, "muster.v1.Inference") == SERVING
    assert next(watched) == SERVING


def test_a_thousand_idle_connections_keep_no_probe_waiting(fleet: ScaledFleet) -> None:
    port = urlsplit(admin_url(fleet.processes["w0"])).port or 0
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(1000)]
    try:
        begun = time.monotonic()
        assert of(fleet, "w0", "readyz")[0] == 200
        assert time.monotonic() - begun < PROMISE
    finally:
        for connection in idle:
            connection.close()


def test_a_rank_whose_peer_is_lost_is_not_ready_until_it_serves_again(fleet: ScaledFleet) -> None:
    fleet.processes["w1"].kill()
    fleet.processes["w1"].wait()
    await_that(lambda: of(fleet, "w0", "readyz")[0] == 503, "w0 serves no more")
    await_that(lambda: fleet.replica.state == "SERVING", "w2 has taken the place")
    await_that(lambda: of(fleet, "w0", "readyz")[0] == 200, "w0 serves again")
    assert of(fleet, "w2", "readyz")[0] == 200
