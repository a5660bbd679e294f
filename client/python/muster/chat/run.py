"""From the command line to the end of the conversation."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muster.chat.arguments import Arguments, parse
from muster.chat.conversation import Conversation
from muster.chat.terminal import Terminal
from muster.client import Fleet
from muster.demo_model import DemoModelError, demo_model
from muster.errors import MusterError
from muster.fleet_process import FleetError, FleetProcess
from muster.replica import Replica
from muster.sequence import Sequence
from muster.tokenizer import ChatTokenizer, TokenizerError
from muster.values import Model, Sampling

# Seconds for which calls of a fleet of its own are retried.
_OWN_PATIENCE = 1.0


def main(words: list[str]) -> int:
    """Returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    arguments = parse(words)
    try:
        model = arguments.model or demo_model(lambda line: print(line, file=sys.stderr))
        tokenizer = ChatTokenizer(model)
        with _fleet(arguments, model) as fleet, fleet.replica(arguments.replica) as replica:
            Chat(replica, tokenizer, arguments, Terminal()).run()
        return 0
    except (DemoModelError, FleetError, MusterError, TokenizerError) as error:
        sys.stdout.flush()
        print(f"muster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmuster: interrupted; the chat is ended", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Nobody reads on. What Python would still flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


@contextmanager
def _fleet(arguments: Arguments, model: Path) -> Iterator[Fleet]:
    """The fleet that was named, or one that lives as long as this."""
    if arguments.coordinator is not None:
        # Where nobody listens it says so at once; later on, who was there may be back.
        with Fleet(arguments.coordinator, patience=0, tls=arguments.tls) as fleet:
            fleet.replicas()
        with Fleet(arguments.coordinator, tls=arguments.tls) as fleet:
            yield fleet
        return
    with FleetProcess(arguments.fleet(model), sys.stderr) as process:
        serving = process.await_event("serving")
        # What has gone of this fleet does not come back.
        with Fleet(serving["coordinator"], patience=_OWN_PATIENCE,
                   tls=serving.get("tls", "")) as fleet:
            yield fleet


class Chat:
    """Turns of a conversation, on one sequence that grows with them."""

    def __init__(self, replica: Replica, tokenizer: ChatTokenizer, arguments: Arguments,
                 terminal: Terminal):
        """Raises MusterError if the tokenizer is not that of the replica's model."""
        self._replica = replica
        self._tokenizer = tokenizer
        self._arguments = arguments
        self._terminal = terminal
        self._model: Model = replica.model()
        self._conversation = Conversation(tokenizer, arguments.system)
        if tokenizer.vocabulary > self._model.vocabulary:
            raise MusterError(
                f"the tokenizer has {tokenizer.vocabulary:,} tokens, and {self._model.name} "
                f"{self._model.vocabulary:,}: --model names the directory of the fleet's model")

    def run(self) -> None:
        """Until the person has no more to say."""
        with self._replica.sequence() as sequence:
            try:
                for question in self._terminal.questions():
                    if question == "/quit":
                        return
                    if question == "/new":
                        self._begin_anew(sequence)
                    else:
                        self._turn(sequence, question)
            except KeyboardInterrupt:
                # At the prompt it is a way to leave.
                self._terminal.paper.line()

    def _begin_anew(self, sequence: Sequence) -> None:
        sequence.free()
        self._conversation = Conversation(self._tokenizer, self._arguments.system)
        self._terminal.paper.line("(a new conversation)")

    def _turn(self, sequence: Sequence, question: str) -> None:
        prompt = self._conversation.ask(question)
        room = self._model.max_positions - len(prompt)
        if room < 1:
            self._conversation.answer([])
            self._say_full(len(prompt))
            return
        kept = sequence.rewind_to_prefix_of(prompt)
        said = self._answer(sequence, prompt[kept:], kept, min(self._arguments.max_tokens, room))
        self._conversation.answer(said)
        if len(prompt) + len(said) >= self._model.max_positions:
            self._say_full(len(prompt) + len(said))

    def _answer(self, sequence: Sequence, prompt: list[int], kept: int,
                max_tokens: int) -> list[int]:
        """Shows the answer as it comes; returns its tokens without the one that ended it."""
        paper, stream = self._terminal.paper, self._tokenizer.stream()
        sampling = Sampling(self._arguments.temperature, seed=self._arguments.seed)
        ends = self._model.eos_token_ids | self._tokenizer.eos_ids
        said: list[int] = []
        times = [time.perf_counter()]
        before, computed = sequence.prefilled, 0
        with self._terminal.answering():
            for token in sequence.generate(prompt, max_tokens, sampling):
                if len(times) == 1:
                    computed = sequence.prefilled - before
                times.append(time.perf_counter())
                if token.id in ends:
                    break
                said.append(token.id)
                paper.flow(stream.push(token.id))
                if self._terminal.interrupted:
                    break
        paper.flow(stream.finish())
        paper.end_flow()
        if self._terminal.interrupted:
            paper.line("(stopped)")
        if self._arguments.verbose:
            self._report(computed, kept + len(prompt) - computed, times)
        return said

    def _report(self, computed: int, kept: int, times: list[float]) -> None:
        first_ms = (times[1] - times[0]) * 1e3
        tokens = len(times) - 1
        text = (f"prefill {computed:,} new tokens ({max(0, kept):,} kept), first token "
                f"{first_ms:,.0f} ms, {tokens:,} tokens")
        if tokens > 1:
            text += f", {(tokens - 1) / (times[-1] - times[1]):,.1f} tokens/s"
        self._terminal.paper.line(f"  ({text})")

    def _say_full(self, tokens: int) -> None:
        self._terminal.paper.line(
            f"(the conversation has {tokens:,} tokens, and the model's longest context is "
            f"{self._model.max_positions:,}: /new begins a new one)")
