"""Text that flows piece by piece."""

import io

import pytest
from muster.paper import Paper


@pytest.fixture
def paper(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    return Paper(io.StringIO())


def flow(paper: Paper, *pieces: str) -> str:
    for piece in pieces:
        paper.flow(piece)
    paper.end_flow()
    return paper.stream.getvalue()


def test_words_cut_between_pieces_stay_whole(paper):
    assert flow(paper, "The cap", "ital", " of", " France") == "  The capital of\n  France\n"


def test_line_breaks_of_the_text_are_kept(paper):
    assert flow(paper, "one\n", "\ntwo") == "  one\n\n  two\n"


def test_indentation_of_the_text_is_kept(paper):
    assert flow(paper, "if x:\n    y = 1") == "  if x:\n      y = 1\n"


def test_a_word_wider_than_the_terminal_is_not_lost(paper):
    word = "x" * 30
    assert flow(paper, "a " + word + " b") == f"  a\n  {word}\n  b\n"


def test_no_color_reaches_what_is_no_terminal(paper):
    paper.title("muster demo")
    assert paper.stream.getvalue() == "muster demo\n"


def test_a_note_stands_between_lines_of_the_text(paper):
    paper.flow("one two ")
    paper.note("scale", ["cp 2", "pause"])
    assert flow(paper, "three four five six") == (
        "  one two three four\n\n  scale      cp 2,\n             pause\n\n  five six\n")


def test_a_note_outside_of_a_text_comes_at_once(paper):
    paper.note("scale", ["cp 2"])
    assert paper.stream.getvalue() == "\n  scale      cp 2\n\n"
    paper.note("scale", ["cp 4"])
    assert flow(paper, "a").endswith("  scale      cp 4\n\n  a\n")


def test_a_note_at_the_end_of_a_text_is_not_lost(paper):
    paper.flow("one two ")
    paper.note("scale", ["cp 2"])
    assert flow(paper) == "  one two\n\n  scale      cp 2\n\n"
