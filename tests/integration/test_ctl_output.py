"""`--output`, `bench`, completion and the manual page: what programs and shells get."""

import json
import os
import shutil
import signal
import subprocess

import pytest
import yaml
from fleets import PROMISE, assert_one_line, await_that

BENCH = ("bench", "--repetitions", "5", "--context", "8", "--prompts", "16,64")


@pytest.fixture
def fleet(programs):
    return programs.up("llama-mha12", cp=2).await_event("serving")


def used_blocks(programs) -> int:
    """Of the leader, which frees at once; its followers are told with the next step."""
    workers = json.loads(programs.musterctl("--json", "status").stdout)["workers"]
    return next(worker["kv_blocks_used"] for worker in workers if worker.get("rank") == 0)


@pytest.mark.parametrize("command", [("topology",), ("plan", "--cp", "1"), ("events",),
                                     ("forward", "--prompt-tokens", "1,2")])
def test_yaml_says_what_json_says(programs, fleet, command):
    lines = programs.musterctl(*command, "--output", "json").stdout.splitlines()
    result = programs.musterctl(*command, "--output", "yaml")
    assert result.returncode == 0, result.stderr
    from_json, from_yaml = map(json.loads, lines), yaml.safe_load_all(result.stdout)
    for one, other in zip(from_json, from_yaml, strict=True):
        assert without_times(one) == without_times(other)


def without_times(facts):
    """What two calls say alike."""
    if isinstance(facts, list):
        return [without_times(it) for it in facts]
    if not isinstance(facts, dict):
        return facts
    measured = ("ttft_ms", "tokens_per_second", "predicted_prepare_ms", "predicted_pause_ms")
    return {key: without_times(value) for key, value in facts.items() if key not in measured}


def test_an_unknown_output_is_refused(programs):
    assert_one_line(programs.musterctl("status", "--output", "xml"), "--output", "xml", status=2)


def test_bench_holds_every_step_against_a_limit_and_frees_its_sequences(programs, fleet):
    result = programs.musterctl(*BENCH, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["limits"]["read_bytes_per_second"] > 1e8
    assert report["limits"]["matrix_flops_per_second"] > 1e8
    assert [step["size"] for step in report["decode"]] == sorted(fleet["buckets"])
    assert [step["size"] for step in report["prefill"]] == [16, 64]
    for step in report["decode"] + report["prefill"]:
        assert step["device_ms"] > 0 and step["limit"] in ("bandwidth", "matrix")
        assert step["bucket"] >= step["size"]
        assert step["share_of_limit"] == pytest.approx(step["limit_ms"] / step["device_ms"])
    await_that(lambda: used_blocks(programs) == 0, "the sequences are freed", PROMISE)
    table = programs.musterctl(*BENCH).stdout
    assert "OF LIMIT" in table and max(map(len, table.splitlines())) <= 80


def test_a_size_without_room_is_left_out_with_the_numbers(programs, fleet):
    report = json.loads(programs.musterctl(
        "bench", "--json", "--repetitions", "2", "--context", "480", "--batches", "32",
        "--prompts", "16").stdout)
    (step,) = report["decode"]
    assert "block" in step.get("left_out", "blocks") and "device_ms" in report["prefill"][0]


def test_a_context_that_the_model_does_not_have_is_refused(programs, fleet):
    assert_one_line(programs.musterctl("bench", "--context", "512"), "512", "llama-mha12")


def test_an_interrupted_bench_frees_its_sequences_in_time(programs, fleet):
    child = subprocess.Popen(
        [str(programs.bin / "musterctl"), "bench", "--repetitions", "100000"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    await_that(lambda: used_blocks(programs) > 0, "it holds sequences")
    os.kill(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=PROMISE)
    assert child.returncode == 130
    assert errors.strip() == "musterctl: interrupted; its sequences are freed"
    await_that(lambda: used_blocks(programs) == 0, "the sequences are freed", PROMISE)


def completed(programs, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    script = (
        'source <("$0" completion bash); COMP_WORDS=("${@}"); COMP_CWORD=$(($# - 1));'
        ' _musterctl; printf "%s\\n" "${COMPREPLY[@]}"')
    result = subprocess.run(
        ["bash", "-c", script, str(programs.bin / "musterctl"), "musterctl", *words],
        capture_output=True, text=True, timeout=10, check=True)
    return sorted(result.stdout.split())


def test_bash_offers_commands_options_and_values(programs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "states.npy").touch()
    (tmp_path / "folder").mkdir()
    assert completed(programs, "st") == ["status"]
    assert "forward" in completed(programs, "")
    assert completed(programs, "--output", "y") == ["yaml"]
    assert completed(programs, "status", "--output", "=", "j") == ["json"]
    assert completed(programs, "forward", "--hidden-states-") == [
        "--hidden-states-in", "--hidden-states-out"]
    assert completed(programs, "forward", "--hidden-states-in", "sta") == ["states.npy"]
    assert completed(programs, "up", "--model", "") == ["folder", "runtime"]
    assert completed(programs, "--json", "up", "--dtype", "b") == ["bfloat16"]
    assert completed(programs, "completion", "z") == ["zsh"]
    assert completed(programs, "forward", "--seed", "") == []
    assert completed(programs, "certs", "i") == ["init", "issue"]
    assert completed(programs, "certs", "issue", "w") == ["worker"]
    assert completed(programs, "certs", "issue", "--ca", "fo") == ["folder"]
    assert completed(programs, "status", "--tls", "fo") == ["folder"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_sound_and_name_every_command(programs, tmp_path, shell):
    script = programs.musterctl("completion", shell)
    assert script.returncode == 0
    for command in ("up", "status", "forward", "bench", "top", "certs", "issue", "completion", "man"):
        assert command in script.stdout
    if shutil.which(shell):
        path = tmp_path / "script"
        path.write_text(script.stdout)
        subprocess.run([shell, "-n", str(path)], check=True, timeout=10)


def test_an_unknown_shell_is_refused(programs):
    assert_one_line(programs.musterctl("completion", "csh"), "csh", status=2)


def test_the_manual_page_says_what_help_says(programs):
    page = programs.musterctl("man").stdout
    assert page.splitlines()[1].startswith(".TH MUSTERCTL 1")
    plain = page.replace("\\-", "-").replace("\\(aq", "'").replace("\\fB", "").replace("\\fR", "")
    for command in ("up", "status", "plan", "events", "forward", "bench", "top"):
        assert f".SS musterctl {command}\n" in plain
        for line in programs.musterctl(command, "--help").stdout.splitlines():
            if line.startswith("  --"):
                assert line.split()[0] in plain
    if shutil.which("groff"):
        result = subprocess.run(
            ["groff", "-ww", "-man", "-Tutf8", "-z"], input=page, capture_output=True, text=True,
            timeout=10, check=True)
        assert result.stderr == ""
