"""The demo's command line."""

from pathlib import Path

import pytest
from muster.demo.arguments import DEFAULT_PROMPT, FIRST_PROMPT, parse
from muster.demo.scale import Point


def test_the_defaults_are_two_prompts_on_two_workers_that_become_four_and_one():
    arguments = parse([])
    assert (arguments.tp, arguments.cp, arguments.replicas) == (1, 2, 1)
    assert (arguments.prompt, arguments.prompt_tokens) == (DEFAULT_PROMPT, None)
    assert arguments.first_prompt == FIRST_PROMPT
    assert (arguments.model, arguments.dtype, arguments.temperature) == (None, "auto", 0.0)
    assert arguments.scale == (Point(12, 4), Point(40, 1)) and arguments.standbys == 2


@pytest.mark.parametrize("words", [
    ["--scale", "none"], ["--prompt", "Why?"], ["--prompt-tokens", "1"], ["--model", "/m"],
    ["--cp", "2"], ["--tp", "3"], ["--replicas", "2"], ["--max-tokens", "12"]])
def test_a_demo_of_ones_own_keeps_its_size(words):
    assert parse(words).scale == () and parse(words).standbys == 0


def test_a_short_text_comes_to_the_first_change_alone():
    assert parse(["--max-tokens", "20"]).scale == (Point(12, 4),)


def test_every_option_is_read():
    arguments = parse(
        "--model /m --prompt-tokens 1,22,333 --max-tokens 5 --tp 3 --cp 4 --replicas 2 --threads 6"
        " --dtype float32 --top 7 --temperature 0.5 --seed 18446744073709551615 --json"
        " --no-fusion --no-graphs".split())
    assert arguments.model == Path("/m")
    assert arguments.prompt_tokens == [1, 22, 333]
    assert (arguments.max_tokens, arguments.threads, arguments.top) == (5, 6, 7)
    assert (arguments.temperature, arguments.seed) == (0.5, 2**64 - 1)
    assert arguments.json and arguments.no_fusion and arguments.no_graphs


def test_the_device_and_its_memory_are_handed_on():
    arguments = parse("--device cuda:1 --oversubscribe 3 --load-format dummy"
                      " --memory-fraction 0.5".split())
    assert (arguments.device, arguments.oversubscribe) == ("cuda:1", 3)
    assert (arguments.load_format, arguments.memory_fraction) == ("dummy", 0.5)
    plain = parse([])
    assert plain.device is plain.oversubscribe is plain.load_format is None
    assert plain.memory_fraction is None


@pytest.mark.parametrize("words, workers", [
    (["--tp", "3", "--cp", "2"], 6), (["--cp", "1", "--scale", "4:8"], 8),
    (["--cp", "1", "--replicas", "2"], 2), ([], 4)])
def test_oversubscribe_without_a_number_puts_all_workers_on_one_gpu(words, workers):
    assert parse([*words, "--oversubscribe"]).oversubscribe == workers


@pytest.mark.parametrize("words", [["--prompt", "Why?"], ["--prompt-tokens", "1"]])
def test_another_prompt_is_the_only_one(words):
    assert parse(words).first_prompt is None


@pytest.mark.parametrize("words, complaint", [
    (["--frobnicate"], "--frobnicate"),
    (["--max"], "--max"),
    (["--tp", "0"], "from 1 to 1024, not '0'"),
    (["--cp", "two"], "not 'two'"),
    (["--top", "65"], "from 0 to 64"),
    (["--dtype", "int4"], "int4"),
    (["--temperature", "-1"], "from 0 to 100"),
    (["--temperature", "nan"], "from 0 to 100"),
    (["--seed", "-1"], "not '-1'"),
    (["--device", "gpu"], "cuda:N or cuda:UUID, not 'gpu'"),
    (["--device", "cuda:"], "not 'cuda:'"),
    (["--oversubscribe", "0"], "from 1 to 64"),
    (["--load-format", "gguf"], "gguf"),
    (["--memory-fraction", "1.5"], "from 0.05 to 0.98"),
    (["--prompt", " "], "the prompt is empty"),
    (["--prompt-tokens", ""], "wants token ids like 1,2,3, not ''"),
    (["--prompt-tokens", "1,-2"], "-2 is no token id"),
    (["--prompt-tokens", "1,4294967296"], "4294967296 is no token id"),
    (["--prompt", "a", "--prompt-tokens", "1"], "not allowed with"),
])
def test_a_wrong_command_line_is_one_line_and_status_2(words, complaint, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.err.startswith("muster: ") and output.err.count("\n") == 1
    assert complaint in output.err and not output.out


def test_help_teaches_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in ("--model", "--prompt-tokens", "--tp", "--replicas", "--dtype", "--json",
                   "--device", "--oversubscribe", "--load-format", "--memory-fraction"):
        assert option in text
