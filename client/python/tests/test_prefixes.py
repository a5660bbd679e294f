"""Which sequence begins as another, and which one goes when room is needed."""

import random

import pytest
from muster.history import common_prefix
from muster.scheduler.prefixes import Entry, Prefixes


def entry(name: str, tokens: list[int], held: int | None = None) -> Entry:
    return Entry(name, tokens, len(tokens) if held is None else held)


@pytest.fixture
def prefixes():
    return Prefixes(block_tokens=4)


def test_most_in_common_wins(prefixes):
    short, long = entry("short", [1, 2, 3, 4, 9]), entry("long", [1, 2, 3, 4, 5, 6, 7, 8, 9])
    prefixes.add(short)
    prefixes.add(long)
    assert prefixes.longest([1, 2, 3, 4, 5, 6, 7, 8, 0]) == (long, 8)
    assert prefixes.longest([1, 2, 3, 4, 9, 9]) == (short, 5)


def test_less_than_a_block_is_worth_nothing(prefixes):
    prefixes.add(entry("a", [1, 2, 3, 4]))
    assert prefixes.longest([1, 2, 3, 9, 9]) is None
    assert prefixes.longest([1, 2, 3]) is None


def test_of_equals_it_prefers_what_is_held(prefixes):
    prefixes.add(entry("coming", [1, 2, 3, 4], held=0))
    held = entry("held", [1, 2, 3, 4])
    prefixes.add(held)
    assert prefixes.longest([1, 2, 3, 4, 5]) == (held, 4)


def test_what_was_removed_is_not_found(prefixes):
    gone = entry("gone", [1, 2, 3, 4])
    prefixes.rest(gone)
    prefixes.remove(gone)
    assert prefixes.longest([1, 2, 3, 4, 5]) is None and prefixes.evict() is None


def test_what_was_of_no_use_for_longest_goes_first(prefixes):
    one, two, three = (entry(str(index), [index] * 4) for index in range(3))
    for it in (one, two, three):
        prefixes.rest(it)
    prefixes.touch(one)
    assert prefixes.evict(keep=two) is three
    assert prefixes.evict() is two
    one.pins = 1
    assert prefixes.evict() is None


def test_what_has_grown_is_found_by_its_new_tokens(prefixes):
    growing = entry("growing", [1, 2, 3, 4])
    prefixes.add(growing)
    growing.tokens.extend([5, 6, 7, 8])
    prefixes.rest(growing)
    assert prefixes.longest([1, 2, 3, 4, 5, 6, 7, 8, 9]) == (growing, 8)


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_what_a_search_through_all_would_find(seed):
    dice = random.Random(seed)
    prefixes = Prefixes(block_tokens=2)
    entries = [entry(str(index), [dice.randrange(2) for _ in range(dice.randrange(12))])
               for index in range(30)]
    for it in entries:
        prefixes.add(it)
    wanted = [dice.randrange(2) for _ in range(12)]
    longest = max(common_prefix(it.tokens, wanted) for it in entries)
    found = prefixes.longest(wanted)
    assert (found[1] if found else 0) == (longest if longest >= 2 else 0)
