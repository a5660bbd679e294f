"""A fleet that talks by TLS, and clients with and without certificates."""

import asyncio
from pathlib import Path

import pytest
from fleets import MODELS, assert_one_line, golden, written
from muster import aio
from muster.client import Fleet
from muster.errors import MusterError
from muster.fleet_process import FleetProcess


@pytest.fixture
def up(programs, monkeypatch) -> FleetProcess:
    monkeypatch.delenv("MUSTER_TLS", raising=False)
    return programs.up("llama-mha12", tls=True)


def issue(programs, authority: str | Path, out: str | Path, *words: str) -> None:
    result = programs.musterctl("certs", "issue", *words, "--ca", str(authority), "--out", str(out))
    assert result.returncode == 0, result.stderr


def other_authority(programs, tmp_path, role: str = "operator") -> str:
    """A certificate of an authority that the fleet does not know."""
    assert programs.musterctl("certs", "init", str(tmp_path / "ca")).returncode == 0
    issue(programs, tmp_path / "ca", tmp_path / "stranger", role)
    return str(tmp_path / "stranger")


def test_a_python_client_with_a_certificate_generates(up):
    serving = up.await_event("serving")
    facts = golden("llama-mha12")
    with Fleet(serving["coordinator"], tls=serving["tls"]) as fleet, fleet.replica(0) as replica:
        tokens = [token.id for token in replica.generate(facts["prompt"], 8)]
    assert tokens == facts["tokens"][:8]


def test_an_asyncio_client_with_a_certificate_generates(up):
    serving = up.await_event("serving")
    facts = golden("llama-mha12")

    async def run() -> list[int]:
        async with aio.Fleet(serving["coordinator"], tls=serving["tls"]) as fleet, \
                await fleet.replica(0) as replica, await replica.sequence() as sequence:
            return [token.id async for token in sequence.generate(facts["prompt"], 8)]

    assert asyncio.run(run()) == facts["tokens"][:8]


def test_the_environment_names_the_certificate_as_well(up, programs, monkeypatch):
    serving = up.await_event("serving")
    monkeypatch.setenv("MUSTER_TLS", serving["tls"])
    with Fleet(serving["coordinator"]) as fleet:
        assert fleet.replicas()[0].state == "SERVING"
    status = programs.musterctl("status", "--coordinator", serving["coordinator"])
    assert status.returncode == 0, status.stderr


def test_python_clients_without_one_are_refused_clearly(up, programs, tmp_path):
    serving = up.await_event("serving")
    for tls, why in (("", "if it expects TLS, give tls=DIR"),
                     (other_authority(programs, tmp_path), "do not accept each other"),
                     (tmp_path / "none", "tls.crt: No such file")):
        with pytest.raises(MusterError, match=why):
            with Fleet(serving["coordinator"], patience=0, tls=tls) as fleet:
                fleet.replicas()


def test_a_scheduler_may_not_change_the_shape_and_an_operator_may(up, programs):
    serving = up.await_event("serving")
    with Fleet(serving["coordinator"], tls=serving["tls"]) as fleet:
        with pytest.raises(MusterError, match="scheduler may not.*operator.*tls=") as error:
            fleet.scale_context_parallel(1)
        assert error.value.code == "PERMISSION_DENIED"
    with Fleet(serving["coordinator"], tls=serving["tls_operator"]) as fleet:
        assert fleet.scale_context_parallel(1).state == "DONE"


def test_musterctl_finds_the_certificate_of_the_last_fleet(up, programs):
    up.await_event("serving")
    facts = golden("llama-mha12")
    forward = programs.musterctl(
        "forward", "--prompt-tokens", written(facts["prompt"]), "--max-tokens", "8")
    assert list(map(int, forward.stdout.split())) == facts["tokens"][:8]
    for words in (("status",), ("topology",), ("events",), ("operations",),
                  ("bench", "--repetitions", "2", "--batches", "1", "--prompts", "8"),
                  ("plan", "--cp", "1"), ("scale-cp", "1")):
        result = programs.musterctl(*words)
        assert result.returncode == 0, result.stderr


def test_musterctl_without_one_is_refused_clearly(up, programs, tmp_path):
    address = up.await_event("serving")["coordinator"]
    named = ("status", "--coordinator", address)
    assert_one_line(programs.musterctl(*named), f"{address} expects TLS: give --tls DIR")
    assert_one_line(programs.musterctl(*named, "--tls", str(tmp_path)), "tls.crt")
    assert_one_line(programs.musterctl(*named, "--tls", other_authority(programs, tmp_path)),
                    "do not accept each other")


def test_tls_against_plaintext_is_told_to_leave_it_out(programs, tmp_path):
    address = programs.up("llama-mha12").await_event("serving")["coordinator"]
    folder = other_authority(programs, tmp_path)
    assert_one_line(programs.musterctl("status", "--tls", folder),
                    f"{address} does not speak TLS: leave --tls")
    with Fleet(address, patience=0, tls=folder) as fleet:
        with pytest.raises(MusterError, match="does not speak TLS: leave tls="):
            fleet.replicas()


def test_a_certificate_that_was_replaced_serves_the_next_connection(up, programs, tmp_path):
    serving = up.await_event("serving")
    folder = other_authority(programs, tmp_path, "scheduler")
    with Fleet(serving["coordinator"], patience=0, tls=folder) as fleet:
        with pytest.raises(MusterError, match="do not accept each other"):
            fleet.replicas()
        issue(programs, serving["tls_authority"], folder, "scheduler")
        with pytest.raises(MusterError):
            fleet.replicas()  # Of the former connection; it has the files looked at.
        assert fleet.replicas()[0].state == "SERVING"


def test_a_fleet_with_tls_takes_its_certificates_with_it(up):
    folder = Path(up.await_event("started")["tls"])
    assert (folder / "tls.key").exists()
    up.stop()
    assert not folder.parent.exists()


def test_a_client_s_environment_does_not_reach_the_daemons(programs, tmp_path, monkeypatch):
    monkeypatch.setenv("MUSTER_TLS", str(tmp_path / "none"))
    serving = programs.up("llama-mha12").await_event("serving")
    assert "tls" not in serving
    with Fleet(serving["coordinator"], tls="") as fleet:
        assert fleet.replicas()[0].state == "SERVING"


def test_up_takes_no_folder_of_another_fleet(programs, tmp_path):
    result = programs.musterctl(
        "--tls", str(tmp_path), "up", "--model", str(MODELS / "llama-mha12"))
    assert_one_line(result, "up makes certificates of its own", status=2)


def test_the_demo_runs_by_tls(programs):
    facts = golden("llama-mha12")
    report = programs.demo_json(
        "--model", str(MODELS / "llama-mha12"), "--tls", "--prompt-tokens",
        written(facts["prompt"]), "--max-tokens", "8", "--scale", "4:1", "--threads", "1")
    assert report["tokens"] == facts["tokens"][:8]
