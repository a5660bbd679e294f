"""`musterctl certs`, judged by openssl."""

import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from fleets import assert_one_line

ROLES = [("worker", "gpu-0"), ("coordinator", ""), ("scheduler", ""), ("operator", "anna")]


@pytest.fixture
def authority(programs, tmp_path) -> Path:
    result = programs.musterctl("certs", "init", str(tmp_path / "ca"))
    assert result.returncode == 0, result.stderr
    return tmp_path / "ca"


def issue(programs, authority: Path, out: Path, *words: str) -> Path:
    result = programs.musterctl(
        "certs", "issue", *filter(None, words), "--ca", str(authority), "--out", str(out))
    assert result.returncode == 0, result.stderr
    return out


def openssl(*words: str) -> str:
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl here")
    return subprocess.run(
        ["openssl", *words], capture_output=True, text=True, timeout=10, check=True).stdout


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("role,name", ROLES)
def test_openssl_verifies_what_is_issued(programs, authority, tmp_path, role, name):
    folder = issue(programs, authority, tmp_path / "tls", role, name)
    assert openssl("verify", "-x509_strict", "-CAfile", str(folder / "ca.crt"),
                   "-purpose", "sslclient", str(folder / "tls.crt")).endswith(": OK\n")
    text = openssl("x509", "-in", str(folder / "tls.crt"), "-noout", "-text")
    uri = f"URI:spiffe://muster.local/muster/{role}{name and '/' + name}"
    assert uri in text and "prime256v1" in text and "CA:FALSE" in text
    daemon = role in ("worker", "coordinator")
    assert (f"DNS:{role}.muster" in text) == daemon
    assert ("TLS Web Server Authentication" in text) == daemon
    assert "TLS Web Client Authentication" in text
    assert mode(folder / "tls.key") == 0o600 and mode(folder) == 0o700


def test_the_authority_is_kept_from_others_and_may_sign_no_other_one(authority):
    assert mode(authority) == 0o700 and mode(authority / "ca.key") == 0o600
    text = openssl("x509", "-in", str(authority / "ca.crt"), "-noout", "-text")
    assert "CA:TRUE, pathlen:0" in text and "URI:spiffe://muster.local" in text


def test_further_names_and_days_are_in_the_certificate(programs, authority, tmp_path):
    folder = issue(programs, authority, tmp_path / "tls", "worker", "w", "--days", "3", "--dns",
                   "w.svc", "*.workers.svc", "--ip", "10.0.0.4")
    text = openssl("x509", "-in", str(folder / "tls.crt"), "-noout", "-ext", "subjectAltName")
    for name in ("DNS:worker.muster", "DNS:w.svc", "DNS:*.workers.svc", "IP Address:10.0.0.4"):
        assert name in text
    openssl("x509", "-in", str(folder / "tls.crt"), "-checkend", str(86400 * 3 - 600))
    with pytest.raises(subprocess.CalledProcessError):
        openssl("x509", "-in", str(folder / "tls.crt"), "-checkend", str(86400 * 3 + 600))


def test_issued_again_key_and_certificate_are_new_and_fit(programs, authority, tmp_path):
    folder = issue(programs, authority, tmp_path / "tls", "operator")
    former = (folder / "tls.crt").read_text(), (folder / "tls.key").read_text()
    issue(programs, authority, folder, "operator")
    assert (folder / "tls.crt").read_text() != former[0]
    assert (folder / "tls.key").read_text() != former[1]
    of_key = openssl("pkey", "-in", str(folder / "tls.key"), "-pubout")
    assert of_key == openssl("x509", "-in", str(folder / "tls.crt"), "-noout", "-pubkey")


def test_show_says_to_programs_what_it_says_to_people(programs, authority, tmp_path):
    folder = issue(programs, authority, tmp_path / "tls", "worker", "gpu-0")
    shown = programs.musterctl("certs", "show", str(folder)).stdout
    assert "role       worker gpu-0" in shown
    assert "90 d 0 h left" in shown or "89 d 23 h left" in shown
    facts = json.loads(programs.musterctl("certs", "show", "--json", str(folder)).stdout)
    assert (facts["role"], facts["id"], facts["expired"]) == ("worker", "gpu-0", False)
    assert facts["key_fits"] and facts["chain_fits"] and not facts["problems"]
    assert "authority of muster.local" in programs.musterctl(
        "certs", "show", str(authority / "ca.crt")).stdout


def test_show_fails_where_the_key_is_anothers(programs, authority, tmp_path):
    folder = issue(programs, authority, tmp_path / "tls", "operator")
    other = issue(programs, authority, tmp_path / "other", "operator")
    (folder / "tls.key").unlink()
    shutil.copy(other / "tls.key", folder / "tls.key")
    result = programs.musterctl("certs", "show", str(folder))
    assert "DOES NOT FIT" in result.stdout
    assert_one_line(result, "is the key of another certificate")


@pytest.mark.parametrize("words,why,status", [
    (("init", "{ca}"), "is there and not empty", 1),
    (("init", "{new}", "--trust-domain", "Not One"), "'Not One' is no trust domain", 1),
    (("issue", "king", "--ca", "{ca}", "--out", "{new}"), "king", 2),
    (("issue", "worker", "--ca", "{ca}", "--out", "{new}"), "for one worker", 1),
    (("issue", "worker", "a b", "--ca", "{ca}", "--out", "{new}"), "'a b' is no id", 1),
    (("issue", "operator", "--out", "{new}"), "--ca", 2),
    (("issue", "operator", "--ca", "{new}", "--out", "{new}"), "musterctl certs init", 1),
    (("issue", "operator", "--ca", "{ca}", "--out", "{ca}"), "holds the key of an authority", 1),
    (("issue", "operator", "--ca", "{ca}", "--out", "{new}", "--days", "0"), "--days", 2),
    (("issue", "operator", "--ca", "{ca}", "--out", "{new}", "--days", "3650"),
     "may last 3649 days at most", 1),
    (("issue", "coordinator", "--ca", "{ca}", "--out", "{new}", "--ip", "x"), "no IP address", 1),
    (("issue", "operator", "--ca", "{ca}", "--out", "{new}", "--dns", "x"), "does not listen", 1),
    (("show", "{new}"), "cannot read", 1),
    (("show", "{ca}/ca.key"), "holds no certificate", 1),
    ((), "subcommand", 2),
])
def test_what_cannot_be_is_one_line(programs, authority, tmp_path, words, why, status):
    places = {"ca": authority, "new": tmp_path / "new"}
    result = programs.musterctl("certs", *(word.format(**places) for word in words))
    assert_one_line(result, why, status=status)
    assert not (tmp_path / "new").exists()


def test_an_authority_without_its_key_cannot_issue(programs, authority, tmp_path):
    folder = issue(programs, authority, tmp_path / "tls", "operator")
    assert_one_line(
        programs.musterctl("certs", "issue", "operator", "--ca", str(folder), "--out",
                           str(tmp_path / "new")), "has ca.crt but no ca.key")
