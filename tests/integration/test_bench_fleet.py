"""muster.bench against fleets of its own and of others."""

import json
import subprocess
import sys

from fleets import MODELS

LOAD = ("--clients", "4", "--requests", "8", "--prompt-lengths", "16-64", "--output-lengths", "2-8")


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "muster.bench", *LOAD, *arguments], capture_output=True, text=True,
        timeout=120, check=False)


def test_two_replicas_answer_every_request_and_draw_a_plot(programs, tmp_path):
    plot = tmp_path / "bench.png"
    result = bench("--model", str(MODELS / "llama-mha12"), "--replicas", "2", "--cp", "2",
                   "--plot", str(plot), "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["requests"], report["ok"], report["failed"]) == (8, 8, 0)
    assert report["replicas"] == 2 and report["generated_tokens"] >= 16
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_fleet_that_is_not_there_is_one_line_and_an_exit_code(programs):
    result = bench("--coordinator", "127.0.0.1:1")
    assert result.returncode == 1
    assert "127.0.0.1:1" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
