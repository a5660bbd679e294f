"""The demo on small models: its tokens, its JSON, and how it ends."""

import json
import os
import pty
import signal
import subprocess
import time

import numpy
import pytest
from fleets import MODELS, PROMISE, await_that, golden, written
from safetensors.numpy import load_file

KEYS = [
    "model", "topology", "epoch", "prompt_tokens", "tokens", "text", "top", "ledger", "ttft_ms",
    "tokens_per_second", "phases_ms", "resizes"]


def words(name: str, *more: str) -> list[str]:
    """The golden prompt of a model, and as many tokens as its golden answer has."""
    facts = golden(name)
    return ["--model", str(MODELS / name), "--prompt-tokens", written(facts["prompt"]),
            "--max-tokens", str(len(facts["tokens"])), "--dtype", "float32", *more]


@pytest.mark.parametrize("tp, cp", [(1, 1), (1, 2), (3, 1), (3, 2), (1, 4)])
def test_every_shape_gives_the_golden_tokens(programs, tp, cp):
    report = programs.demo_json(*words("llama-gqa6", "--tp", str(tp), "--cp", str(cp)))
    assert report["tokens"] == golden("llama-gqa6")["tokens"]
    assert report["topology"] == {"tp": tp, "cp": cp, "pp": 1, "replicas": 1, "world": tp * cp}


@pytest.mark.parametrize("flag", ["--no-fusion", "--no-graphs"])
def test_the_plain_paths_give_the_golden_tokens(programs, flag):
    report = programs.demo_json(*words("llama-mqa12", flag))
    assert report["tokens"] == golden("llama-mqa12")["tokens"]


def test_the_json_report_has_its_keys_and_the_models_log_probabilities(programs):
    facts = golden("llama-gqa8")
    report = programs.demo_json(*words("llama-gqa8", "--top", "3", "--tp", "2"))
    assert list(report) == KEYS
    assert (report["model"], report["epoch"], report["text"]) == ("llama-gqa8", 1, "")
    assert (report["prompt_tokens"], report["tokens"]) == (facts["prompt"], facts["tokens"])
    logits = load_file(MODELS / "llama-gqa8" / "golden.safetensors")["logits"].astype("float64")
    expected = logits - numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))
    for row, top in zip(expected, report["top"], strict=True):
        best = numpy.argsort(-row, kind="stable")[:3]
        assert [identity for identity, _ in top] == best.tolist()
        numpy.testing.assert_allclose([logprob for _, logprob in top], row[best], atol=1e-2)
    assert all(size > 0 for size in report["ledger"].values()) and "weights" in report["ledger"]
    assert {"load", "warmup", "capture"} <= set(report["phases_ms"])
    assert report["ttft_ms"] > 0 and report["tokens_per_second"] > 0


def test_replicas_answer_alike(programs):
    result = programs.demo(*words("llama-mha12", "--replicas", "2", "--cp", "1"))
    assert result.returncode == 0, result.stderr
    assert "replica 1  the same 24 tokens" in result.stdout


def test_a_seed_draws_the_same_tokens_on_every_shape(programs):
    drawn = ["--temperature", "1.5", "--seed", "7"]
    one = programs.demo_json(*words("llama-mha12", "--cp", "1", *drawn))
    two = programs.demo_json(*words("llama-mha12", "--tp", "2", "--cp", "2", *drawn))
    other = programs.demo_json(*words("llama-mha12", "--cp", "1", *drawn[:-1], "8"))
    assert one["tokens"] == two["tokens"]
    assert one["tokens"] != other["tokens"]


def test_a_redirected_run_tells_its_facts_in_plain_lines(programs):
    result = programs.demo(*words("llama-mha12"))
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    assert "\033" not in result.stdout and "\r" not in result.stdout and "█" not in result.stdout
    for fact in ("coordinator 127.0.0.1:", "epoch 1   tp=1 cp=2", "rank 1  w1", "load", "warmup",
                 "capture", "KV cache", written(golden("llama-mha12")["tokens"][:3]).replace(
                     ",", " "), "tokens/s", "Try:"):
        assert fact in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def on_a_terminal(command: list[str]) -> str:
    """Runs a command on a terminal of its own, and returns all that it wrote there."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end)
    os.close(end)
    output = b""
    try:
        while chunk := os.read(terminal, 4096):
            output += chunk
    except OSError:  # How a terminal says that its last writer is gone.
        pass
    os.close(terminal)
    assert process.wait() == 0, output
    return output.decode()


def test_a_terminal_gets_color_unless_no_color_is_set(programs, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    command = programs.demo_command(*words("llama-mha12"))
    assert "\033[1m" in on_a_terminal(command)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033[1m" not in on_a_terminal(command)


class RunningDemo:
    """A demo that generates until it is stopped."""

    def __init__(self, programs):
        self._programs = programs
        self.process = subprocess.Popen(
            programs.demo_command(
                "--model", str(MODELS / "llama-mha12"), "--prompt-tokens", "1", "--max-tokens",
                "400", "--temperature", "2"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def read_to(self, part: str) -> None:
        for line in self.process.stdout:
            if part in line:
                return
        raise AssertionError(self.process.stderr.read())


@pytest.mark.parametrize("moment", ["fleet", "topology", "> 1"])
def test_an_interrupt_ends_all_of_it_in_time(programs, moment):
    demo = RunningDemo(programs)
    demo.read_to(moment)
    start = time.monotonic()
    demo.process.send_signal(signal.SIGINT)
    _, complaint = demo.process.communicate()
    assert time.monotonic() - start < PROMISE
    assert demo.process.returncode in (0, 130)
    if demo.process.returncode:
        assert complaint == "muster: interrupted; the fleet is ended\n"
    assert not programs.running()


@pytest.mark.parametrize("moment", ["fleet", "> 1"])
def test_kill_9_of_the_demo_leaves_nothing(programs, moment):
    demo = RunningDemo(programs)
    demo.read_to(moment)
    demo.process.kill()
    demo.process.communicate()
    await_that(lambda: not programs.running(), "all processes are gone", PROMISE)


def test_a_reader_that_leaves_ends_the_demo_quietly(programs):
    demo = RunningDemo(programs)
    demo.read_to("fleet")
    demo.process.stdout.close()
    assert demo.process.wait() in (0, 1)
    assert "Traceback" not in demo.process.stderr.read()
    demo.process.stderr.close()


def test_a_tokenizer_is_wanted_only_for_text(programs, model_copy):
    result = programs.demo("--model", str(model_copy()), "--prompt", "Hello")
    assert result.returncode == 1
    assert "tokenizer.json" in result.stderr and "token ids" in result.stderr


def test_generation_stops_at_the_end_token(programs, model_copy):
    directory = model_copy("llama-mha12")
    facts = golden("llama-mha12")
    config = json.loads((directory / "config.json").read_text())
    config["eos_token_id"] = facts["tokens"][3]
    (directory / "config.json").write_text(json.dumps(config))
    report = programs.demo_json(
        "--model", str(directory), "--prompt-tokens", written(facts["prompt"]))
    assert report["tokens"] == facts["tokens"][:4]
