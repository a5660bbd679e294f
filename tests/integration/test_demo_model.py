"""The demo's own model, end to end, against the tokens of an independent implementation."""

import functools
import sys

import pytest
from fleets import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))
from fetch_demo_model import DemoModelError, ensure_demo_model  # noqa: E402

QUESTION = "What is the capital of France?"
# Of that prompt in the chat template, greedy, in float32.
PROMPT = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407,
    19712, 8182, 2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531,
    198]
TOKENS = [504, 3575, 282, 4649, 314, 7042, 30, 2]
TEXT = "The capital of France is Paris."


@functools.cache
def reason_to_skip() -> str:
    """Why the model cannot be had; empty when it is there."""
    try:
        ensure_demo_model()
        return ""
    except DemoModelError as error:
        return f"the demo's model cannot be fetched: {str(error).splitlines()[0]}"


@pytest.fixture(autouse=True)
def model():
    if reason := reason_to_skip():
        pytest.skip(reason)


@pytest.mark.parametrize("shape", [
    ("--cp", "1"), ("--cp", "2"), ("--cp", "4"), ("--tp", "3", "--cp", "2")])
def test_every_shape_answers_paris_in_float32_with_the_same_tokens(programs, shape):
    report = programs.demo_json("--prompt", QUESTION, "--dtype", "float32", "--scale", "none",
                                *shape)
    assert report["prompt_tokens"] == PROMPT
    assert (report["tokens"], report["text"]) == (TOKENS, TEXT)


@pytest.mark.parametrize("shape", [("--cp", "1"), ("--tp", "3", "--cp", "2")])
def test_the_default_type_answers_paris(programs, shape):
    assert "Paris" in programs.demo_json("--prompt", QUESTION, *shape)["text"]


def test_a_person_sees_the_answer(programs):
    result = programs.demo()
    assert result.returncode == 0, result.stderr
    assert "> What is the capital of France?" in result.stdout
    assert "Paris" in result.stdout


def test_a_tp_that_does_not_divide_its_nine_heads_is_refused(programs):
    result = programs.demo("--tp", "2")
    assert result.returncode == 1
    assert "9 attention heads" in result.stderr and "1, 3 or 9" in result.stderr
