"""Texts that end a generation, however they are split into tokens."""

import random

import pytest
from muster.detokenizer import Detokenizer

_LETTERS = "abcde "


def decode(tokens) -> str:
    return "".join(_LETTERS[token] for token in tokens)


def pieces(text: str, *stop: str) -> tuple[list[str], bool]:
    stream = Detokenizer(decode, stop)
    shown = [stream.push(_LETTERS.index(letter)) for letter in text]
    return [*shown, stream.finish()], stream.stopped


def test_without_stop_texts_everything_is_shown_at_once():
    assert pieces("abc") == (["a", "b", "c", ""], False)


def test_what_may_begin_a_stop_text_waits_until_it_is_decided():
    assert pieces("abac", "ac") == (["", "ab", "", "", ""], True)
    assert pieces("abad", "ac") == (["", "ab", "", "ad", ""], False)


def test_what_waits_at_the_end_is_shown():
    assert pieces("da", "abc") == (["d", "", "a"], False)


def test_nothing_is_shown_behind_a_stop_text():
    assert "".join(pieces("ab cab", " ")[0]) == "ab"


def test_the_stop_text_that_comes_first_counts():
    assert "".join(pieces("abcde", "de", "bc")[0]) == "a"


def test_an_empty_stop_text_stops_nothing():
    assert pieces("ab", "") == (["a", "b", ""], False)


@pytest.mark.parametrize("seed", range(50))
def test_the_pieces_are_the_text_before_the_first_stop_text(seed):
    dice = random.Random(seed)
    text = "".join(dice.choice("abc") for _ in range(30))
    stops = ["".join(dice.choice("abc") for _ in range(dice.randint(2, 5))) for _ in range(2)]
    # A stop text is found as soon as it is complete, whatever another one might still become.
    end = min((text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text) \
        if any(stop in text for stop in stops) else (len(text), len(text))
    shown, stopped = pieces(text, *stops)
    assert stopped == any(stop in text for stop in stops)
    assert text.startswith("".join(shown))
    assert len("".join(shown)) <= end[1] or not stopped
    if not stopped:
        assert "".join(shown) == text
