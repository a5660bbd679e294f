"""Mutual TLS, with certificates that fit and with all that do not."""

import queue
import subprocess

import grpc
import pytest
from certificates import DOMAIN, Authority, available
from fleets import MODELS, await_that
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hand_worker import model_by_hand
from proto.muster.v1 import (
    fleet_pb2,
    inference_pb2,
    membership_pb2,
    rendezvous_pb2,
    worker_control_pb2,
)
from tls import Caller, TlsFleet, credentials, no_credentials
from wire import CALL_SECONDS, daemons_of_a_module, forward_request, piece, refusal, seconds

pytestmark = pytest.mark.skipif(not available, reason="there is no openssl command")
CONTROL = "muster.v1.WorkerControl"
SERVING = b"\x08\x01"  # a grpc.health.v1.HealthCheckResponse


@pytest.fixture(scope="module")
def daemons(tmp_path_factory):
    with daemons_of_a_module(tmp_path_factory.mktemp("tls")) as daemons:
        yield daemons


@pytest.fixture(scope="module")
def fleet(daemons, tmp_path_factory) -> TlsFleet:
    """A replica of two workers."""
    return TlsFleet.start(daemons, tmp_path_factory.mktemp("certificates"), cp=2)


def forward(caller: Caller, sequence: str = "s", **fields) -> inference_pb2.ForwardResponse:
    request = forward_request(piece(sequence, [1, 2, 3]), **fields)
    return caller.inference.Forward(request, timeout=CALL_SECONDS)


def free_all(caller: Caller, client: str = "test") -> int:
    request = inference_pb2.FreeSequencesRequest(client_id=client, all=True)
    return caller.inference.FreeSequences(request, timeout=CALL_SECONDS).freed


def fleet_refuses(caller: Caller) -> str:
    """The code with which reading the topology fails."""
    return refusal(caller.topology).code


def health(caller: Caller) -> bytes:
    """Of the daemon as a whole; needs no stub."""
    return caller.channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=CALL_SECONDS)


def test_a_scheduler_is_answered_through_tls_between_all_parties(fleet):
    scheduler = fleet.caller_of_leader("scheduler/chat")
    answer = forward(scheduler)
    assert answer.epoch >= 1 and answer.outputs[0].HasField("sampled_token")
    assert free_all(scheduler) == 1


def test_every_role_may_ask_for_health(fleet):
    for name in ("worker/w0", "scheduler", "operator", "coordinator"):
        for caller in (fleet.caller(name), fleet.caller_of_leader(name)):
            assert health(caller) == SERVING


def test_a_method_is_refused_to_other_roles_and_the_refusal_says_who_may(fleet):
    scheduler = fleet.caller_of_leader("scheduler/chat")
    refused = refusal(lambda: scheduler.control.GetStatus(
        worker_control_pb2.GetStatusRequest(), timeout=CALL_SECONDS))
    assert refused.code == "PERMISSION_DENIED"
    assert refused.message == (f"scheduler/chat may not call {CONTROL}.GetStatus; certificates "
                               "that may are those of: coordinator")
    worker = fleet.caller("worker/w0")
    assert refusal(worker.topology).code == "PERMISSION_DENIED"
    reader = fleet.caller("scheduler/chat")
    reader.topology()
    refused = refusal(lambda: list(reader.fleet.ScaleContextParallel(
        fleet_pb2.ScaleContextParallelRequest(cp=1), timeout=CALL_SECONDS)))
    assert (refused.code, refused.message.split("; ")[1]) == (
        "PERMISSION_DENIED", "certificates that may are those of: operator")
    for name in ("worker/w1", "coordinator"):
        caller = fleet.caller_of_leader(name)
        assert refusal(lambda caller=caller: forward(caller)).code == "PERMISSION_DENIED"


def test_reflection_is_the_operators(fleet):
    def services(name: str) -> int:
        stub = reflection_pb2_grpc.ServerReflectionStub(fleet.caller(name).channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=CALL_SECONDS)
        return len(answer.list_services_response.service)

    assert services("operator") >= 3
    assert refusal(lambda: services("scheduler/chat")).code == "PERMISSION_DENIED"


def test_no_connection_comes_about_without_a_certificate_of_the_authority(fleet, tmp_path):
    address = fleet.coordinator.address
    trust = fleet.of("operator")
    assert fleet_refuses(Caller(address, "coordinator", no_credentials(trust))) == "UNAVAILABLE"
    stranger = Authority(tmp_path / "other").issue("operator", tmp_path / "stranger")
    assert fleet_refuses(
        Caller(address, "coordinator", credentials(stranger, trust))) == "UNAVAILABLE"
    assert fleet_refuses(Caller(address, "coordinator", None)) == "UNAVAILABLE"


def test_another_trust_domain_is_refused(fleet, tmp_path):
    folder = fleet.authority.issue("operator", tmp_path / "plant", domain="plant")
    refused = refusal(
        Caller(fleet.coordinator.address, "coordinator", credentials(folder)).topology)
    assert (refused.code, refused.message) == (
        "UNAUTHENTICATED", f"the certificate is of trust domain plant; this fleet is of {DOMAIN}")


def enlist_as(caller: Caller, worker: str):
    enlistment = membership_pb2.Enlistment(
        worker_id=worker, incarnation=7, address="127.0.0.1:1", build="0.1.0")
    enlistment.model.CopyFrom(model_by_hand("0" * 16))
    enlistment.device.kind = "cpu"
    request = membership_pb2.EnlistRequest(enlistment=enlistment)
    stream = caller.membership.Enlist(iter([request]), timeout=CALL_SECONDS)
    return next(iter(stream))


def test_a_certificate_enlists_no_other_worker(fleet):
    refused = refusal(lambda: enlist_as(fleet.caller("worker/w7"), "w0"))
    assert (refused.code, refused.message) == (
        "PERMISSION_DENIED",
        "the certificate is that of worker/w7, who cannot speak for worker w0")
    assert enlist_as(fleet.caller("worker/w7"), "w7").HasField("welcome")


def ask_for_handles(caller: Caller, topology, rank: int, epoch: int):
    request = rendezvous_pb2.AllGatherRequest(
        scope=rendezvous_pb2.RendezvousScope(epoch=epoch, group_id=topology.groups[0].id),
        key="handles", group_rank=rank, incarnation=topology.ranks[rank].incarnation,
        value=b"mine", timeout=seconds(1))
    return caller.rendezvous.AllGather(request, timeout=CALL_SECONDS)


def test_handles_are_given_only_to_the_members_of_their_epoch(fleet):
    topology = fleet.caller("operator").topology().replicas[0].topology
    member = fleet.caller(f"worker/{topology.ranks[1].worker_id}")
    old = refusal(lambda: ask_for_handles(member, topology, 1, topology.epoch + 1))
    assert (old.code, old.reason) == ("FAILED_PRECONDITION", "STALE_EPOCH")
    # With all that the member knows, but its certificate.
    thief = refusal(
        lambda: ask_for_handles(fleet.caller("worker/w9"), topology, 1, topology.epoch))
    assert thief.code == "PERMISSION_DENIED"
    assert thief.message == (f"the certificate is that of worker/w9; rank 1 of epoch "
                             f"{topology.epoch} is held by worker {topology.ranks[1].worker_id}")


def test_nobody_reaches_the_sequences_of_another_certificate(fleet):
    chat, batch = (fleet.caller_of_leader(f"scheduler/{name}") for name in ("chat", "batch"))
    first = forward(chat, request_id="one")
    assert forward(chat, request_id="one").step == first.step, "a retry is not run again"
    # The same client, request and sequence, but of another certificate: all its own.
    assert forward(batch, request_id="one").step > first.step
    assert free_all(batch) == 1
    unknown = refusal(lambda: batch.inference.ForkSequence(
        inference_pb2.ForkSequenceRequest(
            client_id="test", sequence_id="s", new_sequence_id="t"), timeout=CALL_SECONDS))
    assert unknown.reason == "UNKNOWN_SEQUENCE"
    stream = batch.inference.ForwardStream(
        iter([forward_request(piece("s", [4], first=3))]), timeout=CALL_SECONDS)
    assert next(stream).error.message.startswith("sequence")
    assert free_all(chat) == 1


def test_a_client_id_leaves_room_for_the_certificates_name(fleet):
    chat = fleet.caller_of_leader("scheduler/chat")
    refused = refusal(lambda: forward(chat, client="c" * 128))
    assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert "128 bytes and the certificate's name 14; together they can have 127" in refused.message
    forward(chat, client="c" * 113)
    assert free_all(chat, client="c" * 113) == 1


def s_client(address: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["openssl", "s_client", "-connect", address, *words], input="",
                          capture_output=True, text=True, errors="replace", timeout=CALL_SECONDS,
                          check=False)


def test_only_tls_1_3_is_spoken(fleet):
    folder = fleet.of("operator")
    files = ("-cert", str(folder / "tls.crt"), "-key", str(folder / "tls.key"),
             "-CAfile", str(folder / "ca.crt"), "-alpn", "h2")
    for address in (fleet.coordinator.address, fleet.leader):
        spoken = s_client(address, "-tls1_3", *files)
        assert "New, TLSv1.3, Cipher is TLS_" in spoken.stdout
        assert "Verification: OK" in spoken.stdout
        refused = s_client(address, "-tls1_2", *files)
        assert "New, (NONE), Cipher is (NONE)" in refused.stdout


def started_with(fleet, daemons, name: str, coordinator: str, *words: str):
    """A worker that does not become part of the fleet, and its log."""
    process = daemons.start(
        "muster-worker", "--coordinator", coordinator, "--model", str(MODELS / "llama-mha12"),
        "--tls", str(fleet.of(name)), "--threads", "1", *words)
    logs = daemons.directory.glob("*-muster-worker.log")
    return process, max(logs, key=lambda log: int(log.name.split("-")[0]))


def test_a_daemon_with_files_that_are_not_its_own_says_so_and_ends(fleet, daemons):
    process, log = started_with(fleet, daemons, "scheduler/chat", fleet.coordinator.address)
    assert process.wait(CALL_SECONDS) == 2
    (line,) = log.read_text().splitlines()
    assert line.endswith(f"is that of spiffe://{DOMAIN}/muster/scheduler/chat; "
                         "this daemon needs one of a worker")


def test_a_worker_enlists_with_nobody_but_a_coordinator(fleet, daemons):
    # The leader has a certificate of the authority, and is no coordinator.
    process, log = started_with(fleet, daemons, "worker/w8", fleet.leader)
    await_that(lambda: "not enlisted, trying again" in log.read_text(), "it says so")
    assert f"; expected spiffe://{DOMAIN}/muster/coordinator with any id" in log.read_text()
    process.kill()


def test_a_daemon_says_when_its_files_have_become_useless(fleet, daemons):
    process, log = started_with(fleet, daemons, "worker/w5", fleet.coordinator.address)
    await_that(lambda: "enlisted" in log.read_text(), "it is there")
    (fleet.of("worker/w5") / "tls.key").unlink()
    await_that(lambda: "TLS: new connections fail: " in log.read_text(), "it says so")
    assert "tls.key: No such file or directory" in log.read_text()
    process.kill()


def test_a_unix_socket_stays_plaintext_for_those_who_can_reach_it(fleet, daemons, tmp_path):
    directory = tmp_path / "socket"
    directory.mkdir(mode=0o700)
    _, log = started_with(fleet, daemons, "worker/w6", fleet.coordinator.address,
                          "--unix-socket", str(directory / "s"))
    await_that(lambda: "enlisted" in log.read_text(), "it is there")
    status = Caller(f"unix:{directory}/s", "worker", None).control.GetStatus(
        worker_control_pb2.GetStatusRequest(), timeout=CALL_SECONDS)
    assert status.worker_id == "w6"


def test_certificates_are_replaced_while_a_stream_goes_on(daemons, tmp_path):
    fleet = TlsFleet.start(daemons, tmp_path, cp=1)
    old = fleet.caller_of_leader("scheduler/chat")
    requests: queue.SimpleQueue = queue.SimpleQueue()
    stream = old.inference.ForwardStream(iter(requests.get, None), timeout=CALL_SECONDS)
    requests.put(forward_request(piece("s", [1, 2, 3])))
    assert next(stream).HasField("response")
    leader, address = fleet.leader, fleet.coordinator.address
    stale = credentials(fleet.of("scheduler/chat"))

    # Another authority altogether; nothing that was issued before is worth anything.
    fleet.authority = Authority(tmp_path / "next")
    for name, folder in fleet.folders.items():
        fleet.authority.issue(name, folder)
    fresh = credentials(fleet.of("scheduler/chat"))

    def taken(target: str, role: str, shown: grpc.ChannelCredentials) -> bool:
        caller = Caller(target, role, shown)
        try:
            return health(caller) == SERVING
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            return False
        finally:
            caller.channel.close()

    for target, role in ((leader, "worker"), (address, "coordinator")):
        await_that(lambda target=target, role=role: taken(target, role, fresh), "it is noticed")
        assert not taken(target, role, stale)
    requests.put(forward_request(piece("s", [4], first=3)))
    assert next(stream).response.step > 1
    requests.put(None)
    # The daemons find each other again with the new ones.
    fleet.worker("w1")
    operator = fleet.caller("operator")
    await_that(lambda: len(operator.fleet.ListWorkers(
        fleet_pb2.ListWorkersRequest(), timeout=CALL_SECONDS).workers) == 2, "a new worker enlists")
