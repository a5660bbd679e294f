"""`musterctl forward` with files: some of the layers, hidden states and logits."""

import json
import subprocess

import numpy
import pytest
from fleets import assert_one_line, golden, written


@pytest.fixture
def facts(programs) -> dict:
    """A fleet of two workers of llama-gqa6 (2 layers, 96 hidden, 257 tokens), and its golden."""
    programs.up("llama-gqa6", cp=2).await_event("serving")
    return golden("llama-gqa6")


def forward(programs, *words: str) -> dict:
    result = programs.musterctl("forward", "--json", *words)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_two_halves_of_the_layers_give_the_next_token_of_one_call(programs, facts, tmp_path):
    prompt = tmp_path / "prompt"
    prompt.write_text(" ".join(map(str, facts["prompt"])))
    states = tmp_path / "states.npy"
    whole = forward(programs, "--prompt-file", str(prompt))
    first = forward(programs, "--prompt-file", str(prompt), "--layers", "0:1",
                    "--hidden-states-out", str(states))
    assert first["tokens"] == [] and first["layers"] == [0, 1]
    second = forward(programs, "--hidden-states-in", str(states), "--layers", "1:2")
    assert second["tokens"] == whole["tokens"] == facts["tokens"][:1]


def test_a_named_sequence_is_carried_through_its_layers_and_decoded(programs, facts, tmp_path):
    states = tmp_path / "states.npy"
    name = ("--sequence", "s", "--client", "c")
    forward(programs, *name, "--keep", "--prompt-tokens", written(facts["prompt"]), "--layers",
            "0:1", "--hidden-states-out", str(states))
    first = forward(
        programs, *name, "--keep", "--hidden-states-in", str(states), "--layers", "1:2")
    second = forward(programs, *name, "--prompt-tokens", str(first["tokens"][0]), "--position",
                     str(len(facts["prompt"])))
    assert first["tokens"] + second["tokens"] == facts["tokens"][:2]


def test_hidden_states_and_logits_are_files_of_numpy(programs, facts, tmp_path):
    states, logits = tmp_path / "states.npy", tmp_path / "logits.npy"
    report = forward(
        programs, "--prompt-tokens", written(facts["prompt"]), "--hidden-states-out", str(states),
        "--logits-out", str(logits))
    hidden = numpy.load(states, allow_pickle=False)
    assert hidden.dtype == numpy.float32
    assert hidden.shape == (len(facts["prompt"]), 96)
    assert numpy.isfinite(hidden).all()
    values = numpy.load(logits, allow_pickle=False)
    assert values.shape == (257,) and int(values.argmax()) == report["tokens"][0]
    # What NumPy writes is read: here in a later version of the format.
    with open(states, "wb") as file:
        numpy.lib.format.write_array(file, hidden, version=(2, 0))
    for words in (("--layers", "1:2"), ()):
        forward(programs, "--hidden-states-in", str(states), *words)


def test_the_prompt_can_come_through_a_pipe_as_json(programs, facts):
    result = subprocess.run(
        [str(programs.bin / "musterctl"), "forward", "--prompt-file", "-", "--max-tokens", "3"],
        input=json.dumps(facts["prompt"]), capture_output=True, text=True, timeout=30, check=True)
    assert list(map(int, result.stdout.split())) == facts["tokens"][:3]


def test_what_does_not_fit_is_refused_in_one_line_and_leaves_no_file(programs, facts, tmp_path):
    states, bad = tmp_path / "states.npy", tmp_path / "bad.npy"
    prompt = ("--prompt-tokens", written(facts["prompt"]))
    out = ("--hidden-states-out", str(states))
    assert_one_line(
        programs.musterctl("forward", *prompt, *out, "--layers", "0:9"), "0:9", "has 2")
    assert_one_line(
        programs.musterctl("forward", *prompt, "--layers", "1:2"), "layers 1:2", "hidden states")
    numpy.save(bad, numpy.zeros((2, 95), numpy.float32))
    assert_one_line(
        programs.musterctl("forward", "--hidden-states-in", str(bad)), "(2, 95)", "(tokens, 96)")
    numpy.save(bad, numpy.zeros((2, 96)))
    assert_one_line(
        programs.musterctl("forward", "--hidden-states-in", str(bad)), str(bad), "'<f8'")
    assert_one_line(
        programs.musterctl("forward", *prompt, "--logits-out", str(tmp_path / "none" / "l.npy")),
        "cannot write", "none/l.npy")
    assert sorted(path.name for path in tmp_path.glob("*.npy*")) == ["bad.npy"]


@pytest.mark.parametrize("words, part", [
    ((), "one of --prompt-tokens, --prompt-file and --hidden-states-in"),
    (("--prompt-tokens", "1,x"), "not 'x'"),
    (("--prompt-tokens", "1", "--layers", "3"), "BEGIN:END"),
    (("--prompt-tokens", "1", "--keep"), "--sequence"),
    (("--prompt-tokens", "1", "--layers", "0:1", "--max-tokens", "2"), "run once"),
])
def test_a_wrong_command_line_asks_nobody(programs, words, part):
    assert_one_line(programs.musterctl("forward", *words), part, status=2)
