"""The folder with a client's certificate, and what is said where TLS does not come about."""

import asyncio
import os

import pytest
from fake_fleet import FakeFleet
from muster import aio
from muster.client import Fleet
from muster.command_line import Parser, add_tls_option, check_tls_option
from muster.errors import MusterError
from muster.replica import Replica
from muster.tls import COORDINATOR, PLAINTEXT, WORKER, Tls, find_tls

FAILED = "failed to connect to all addresses; last error: "


def write(folder, certificate: str = "CERTIFICATE", key: str = "EC PRIVATE KEY") -> None:
    folder.mkdir(exist_ok=True)
    for name, kind in (("tls.crt", certificate), ("tls.key", key), ("ca.crt", "CERTIFICATE")):
        (folder / name).write_text(f"-----BEGIN {kind}-----\nAA==\n-----END {kind}-----\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MUSTER_TLS", raising=False)
    write(tmp_path / "tls")
    return tmp_path / "tls"


def test_the_folder_is_the_argument_or_that_of_the_environment(folder, monkeypatch):
    assert find_tls(None) == ""
    assert find_tls(folder) == str(folder)
    monkeypatch.setenv("MUSTER_TLS", "/variable")
    assert find_tls(None) == "/variable"
    assert find_tls("") == ""


def test_a_channel_expects_the_name_of_its_kind_of_daemon(folder):
    assert ("grpc.ssl_target_name_override", "worker.muster") in Tls(str(folder), WORKER).options
    assert not [it for it in PLAINTEXT.options if it[0] == "grpc.ssl_target_name_override"]
    assert PLAINTEXT.credentials() is None


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt"])
def test_a_file_that_is_missing_is_named_with_what_to_do(folder, name):
    (folder / name).unlink()
    for call in (lambda: Fleet("host:1", tls=folder), lambda: Replica("host:1", tls=str(folder))):
        with pytest.raises(MusterError, match=f"{name}: No such file.*musterctl certs") as error:
            call()
        assert error.value.code == "NOT_FOUND"


def test_asyncio_says_the_same(folder):
    (folder / "tls.key").unlink()

    async def run() -> None:
        for client in (aio.Fleet, aio.Replica):
            with pytest.raises(MusterError, match="tls.key"):
                client("host:1", tls=folder)

    asyncio.run(run())


def test_a_file_that_holds_something_else_is_refused(folder):
    write(folder, key="CERTIFICATE")
    with pytest.raises(MusterError, match="tls.key holds no private key in PEM"):
        Fleet("host:1", tls=folder)


def test_files_that_were_replaced_are_noticed(folder):
    tls = Tls(str(folder), COORDINATOR)
    tls.credentials()
    assert not tls.replaced()
    write(folder / ".." / "new")
    os.replace(folder / ".." / "new" / "tls.crt", folder / "tls.crt")
    assert tls.replaced()
    tls.credentials()
    assert not tls.replaced()
    assert not PLAINTEXT.replaced()


def test_a_daemon_without_tls_is_told_apart(folder):
    error = Tls(str(folder), COORDINATOR).explain(
        FAILED + "SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER", "host:1")
    assert error and "host:1 does not speak TLS: leave tls=" in error.message
    assert not error.retriable


@pytest.mark.parametrize("words", [
    "CERTIFICATE_VERIFY_FAILED", "Peer name worker.muster is not in peer certificate",
    "Socket closed"])
def test_certificates_that_do_not_fit_are_told_of(folder, words):
    tls = Tls(str(folder), WORKER)
    tls.credentials()
    error = tls.explain(FAILED + words, "host:1")
    assert error and "do not accept each other" in error.message and str(folder) in error.message
    assert not error.retriable
    (folder / "tls.crt").write_text("new -----BEGIN CERTIFICATE-----")
    retried = tls.explain(FAILED + words, "host:1")
    assert retried and retried.retriable


def test_a_daemon_that_hangs_up_on_plaintext_may_expect_tls():
    error = PLAINTEXT.explain(FAILED + "Socket closed", "host:1")
    assert error and "if it expects TLS, give tls=DIR" in error.message


@pytest.mark.parametrize("details", [FAILED + "Connection refused", "Socket closed", ""])
def test_other_failures_are_no_matter_of_tls(folder, details):
    assert Tls(str(folder), WORKER).explain(details, "host:1") is None
    assert PLAINTEXT.explain(details, "host:1") is None


def test_a_plaintext_fleet_is_no_fleet_of_tls(folder):
    server = FakeFleet()
    try:
        with Fleet(server.address, tls=folder) as fleet, pytest.raises(MusterError):
            fleet.replicas()
        with Fleet(server.address, tls="") as fleet:
            assert fleet.replicas()
    finally:
        server.stop()


def parsed(words: list[str], own_fleet: bool) -> str | None:
    parser = Parser("program", "", "")
    add_tls_option(parser)
    tls = parser.parse_args(words).tls
    check_tls_option(parser, tls, own_fleet)
    return tls


def test_a_fleet_of_ones_own_has_tls_without_a_folder_and_others_with_one(capsys):
    assert parsed([], True) is None and parsed([], False) is None
    assert parsed(["--tls"], True) == ""
    assert parsed(["--tls", "DIR"], False) == "DIR"
    for words, own_fleet, why in ((["--tls"], False, "name the folder"),
                                  (["--tls", "DIR"], True, "it takes no folder")):
        with pytest.raises(SystemExit) as end:
            parsed(words, own_fleet)
        assert end.value.code == 2 and why in capsys.readouterr().err
