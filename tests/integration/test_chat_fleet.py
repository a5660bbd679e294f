"""muster.chat with the demo's model, its questions through a pipe."""

import re
import subprocess
import sys

import pytest
from test_demo_model import reason_to_skip


@pytest.fixture(autouse=True)
def model():
    if reason := reason_to_skip():
        pytest.skip(reason)


def test_the_second_turn_runs_only_its_own_tokens(programs):
    questions = "What is the capital of France?\nAnd of Italy?\n"
    result = subprocess.run(
        [sys.executable, "-m", "muster.chat", "--verbose"], input=questions, capture_output=True,
        text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout and "Rome" in result.stdout
    turns = re.findall(r"prefill (\d+) new tokens \((\d+) kept\)", result.stdout + result.stderr)
    (first, nothing), (second, kept) = [tuple(map(int, turn)) for turn in turns]
    assert nothing == 0
    # The first question and its answer of eight tokens; the last of these had not been run.
    assert kept == first + 7
    assert 0 < second < first
