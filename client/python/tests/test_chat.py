"""The chat: its tokens, and conversations through pipes with a leader that counts."""

import io
import os
import pty
import signal
import subprocess
import sys

import pytest
from fake_fleet import FakeFleet
from muster.chat.arguments import parse
from muster.chat.conversation import Conversation
from muster.chat.run import main
from muster.tokenizer import ChatTokenizer
from small_models import write_tokenizer


@pytest.fixture
def directory(tmp_path):
    return write_tokenizer(tmp_path)


@pytest.fixture
def server():
    server = FakeFleet(rows=64)
    yield server
    server.stop()


@pytest.fixture
def conversation(directory):
    return Conversation(ChatTokenizer(directory))


def chat(server, directory, monkeypatch, lines: str, *words: str) -> int:
    """Runs a chat in this process, with these lines as its input."""
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    handlers = {it: signal.getsignal(it) for it in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        return main(["--coordinator", server.address, "--model", str(directory), *words])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_turn_adds_to_the_tokens_of_those_before(conversation):
    first = conversation.ask("hi")
    conversation.answer([1, 2])
    second = conversation.ask("so")
    assert second[:len(first) + 2] == [*first, 1, 2]
    assert second[len(first) + 2] == 9, "the template ends the answer"


def test_an_answer_keeps_the_tokens_that_were_chosen(directory, conversation):
    spelled = ChatTokenizer(directory).encode_rendered("one")
    prompt = conversation.ask("hi")
    conversation.answer(spelled)
    assert conversation.ask("so")[len(prompt):len(prompt) + 3] == spelled


def test_a_template_that_rewrites_what_was_said_is_encoded_anew(directory):
    (directory / "chat_template.jinja").write_text(
        "{% for m in messages %}<u>{{ m['content'] | trim }}{% endfor %}<a>")
    tokenizer = ChatTokenizer(directory)
    conversation = Conversation(tokenizer)
    conversation.ask("hi")
    conversation.answer([1])
    assert tokenizer.decode(conversation.ask("so")) == "hioneso"


def test_without_a_template_the_text_just_goes_on(tmp_path):
    conversation = Conversation(ChatTokenizer(write_tokenizer(tmp_path, None)))
    first = conversation.ask("hi")
    conversation.answer([1])
    assert conversation.ask("so")[:3] == [*first, 1]


def test_a_system_message_comes_first(directory):
    tokenizer = ChatTokenizer(directory)
    assert tokenizer.decode(Conversation(tokenizer, "be brief").ask("hi")) == "be briefhi"


def test_the_second_turn_computes_only_what_is_new(server, directory, monkeypatch, capsys):
    assert chat(server, directory, monkeypatch, "hi\nhi\n", "--verbose", "--max-tokens", "3") == 0
    reports = [line for line in capsys.readouterr().out.splitlines() if "prefill" in line]
    assert "prefill 5 new tokens (0 kept), first token" in reports[0]
    held = 5 + 2
    assert f"prefill 7 new tokens ({held} kept), first token" in reports[1]
    positions = [it.slices[0].first_position for it in server.forwards]
    assert positions == [0, 5, 6, 7, 14, 15]
    assert not server.sequences


def test_a_new_conversation_begins_with_nothing(server, directory, monkeypatch, capsys):
    assert chat(server, directory, monkeypatch, "hi\n/new\nhi\n/quit\nhi\n", "--verbose",
                "--max-tokens", "2") == 0
    output = capsys.readouterr().out
    assert output.count("prefill 5 new tokens (0 kept)") == 2
    assert "(a new conversation)" in output


def test_a_conversation_that_is_too_long_is_told_so(server, directory, monkeypatch, capsys):
    assert chat(server, directory, monkeypatch, "a" * 500 + "\n/new\nhi\n") == 0
    output = capsys.readouterr().out
    assert "the model's longest context is 400: /new begins a new one" in " ".join(output.split())
    assert len(server.forwards) > 0


def test_a_strange_tokenizer_is_refused(server, tmp_path, monkeypatch, capsys):
    from tokenizers import Tokenizer, models
    Tokenizer(models.WordLevel({str(index): index for index in range(101)}, "0")).save(
        str(tmp_path / "tokenizer.json"))
    assert chat(server, tmp_path, monkeypatch, "hi\n") == 1
    assert "the tokenizer has 101 tokens, and fake 100" in capsys.readouterr().err


def test_a_fleet_that_is_not_there_is_one_line(directory, monkeypatch, capsys):
    server = FakeFleet()
    server.stop()
    assert chat(server, directory, monkeypatch, "hi\n") == 1
    error = capsys.readouterr().err
    assert error == f"muster: nothing answers at {server.address}\n"


@pytest.mark.parametrize("words, complaint", [
    (["--frobnicate"], "--frobnicate"), (["--max-tokens", "0"], "from 1"),
    (["--temperature", "x"], "from 0 to 100")])
def test_a_wrong_command_line_is_one_line_and_status_2(words, complaint, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("muster: ") and error.count("\n") == 1 and complaint in error


class OnTerminal:
    """A chat on a terminal of its own."""

    def __init__(self, server, directory, *words: str):
        self._terminal, end = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "muster.chat", "--coordinator", server.address, "--model",
             str(directory), *words],
            stdin=end, stdout=end, stderr=end, start_new_session=True,
            env=os.environ | {"TERM": "dumb"})
        os.close(end)
        self.output = self._unread = ""

    def read_to(self, part: str) -> None:
        """Reads on, up to a part that was not read before."""
        while part not in self._unread:
            try:
                text = os.read(self._terminal, 4096).decode()
            except OSError:  # How a terminal says that its last writer is gone.
                raise AssertionError(f"{part!r} is not in {self.output!r}") from None
            self.output += text
            self._unread += text
        self._unread = self._unread.partition(part)[2]

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        status = self.process.wait(timeout=20)
        os.close(self._terminal)
        return status


def test_an_interrupt_stops_the_answer_and_the_next_one_the_chat(server, directory):
    terminal = OnTerminal(server, directory, "--max-tokens", "300")
    terminal.read_to("> ")
    # Each token waits until the test has looked, so that the interrupt falls into the answer.
    answered = []

    def interrupt_the_third(request):
        answered.append(request)
        if len(answered) == 3:
            terminal.interrupt()

    server.faults = interrupt_the_third
    terminal.type("hi\n")
    terminal.read_to("(stopped)")
    server.faults = lambda request: None
    terminal.read_to("> ")
    terminal.interrupt()
    # One that comes just before Python waits for a line is seen with the line.
    terminal.type("\n")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.output
    assert len(answered) < 100
    assert not server.sequences


def test_the_end_of_the_input_ends_the_chat(server, directory):
    terminal = OnTerminal(server, directory)
    terminal.read_to("> ")
    terminal.type("\x04")
    assert terminal.end() == 0
