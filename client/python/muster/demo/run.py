"""From the command line to the answer."""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.client import Fleet, serving_leader
from muster.demo_model import DemoModelError, demo_model
from muster.demo.arguments import Arguments, parse
from muster.demo.scale import CountedReplica, Scaled, Scaler
from muster.paper import Paper
from muster.errors import MusterError
from muster.fleet_process import FleetError, FleetOptions, FleetProcess
from muster.replica import Replica
from muster.tokenizer import ChatTokenizer, TokenizerError
from muster.values import Sampling, Token


class DemoError(Exception):
    """The demo cannot go on; the text tells a person why."""


@dataclass
class Answer:
    """What one replica generated, and how fast."""

    tokens: list[Token] = field(default_factory=list)
    text: str = ""
    ttft_s: float = 0.0
    decode_s: float = 0.0
    scaled: list[Scaled] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def tokens_per_second(self) -> float:
        """Of the tokens after the first; 0 if there are none."""
        return (len(self.tokens) - 1) / self.decode_s if self.decode_s > 0 else 0.0


def main(words: list[str]) -> int:
    """Returns the exit status."""
    # Whoever ends the demo by another signal wants the fleet ended as well; nohup wants no end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    arguments = parse(words)
    paper = Paper(sys.stderr if arguments.json else sys.stdout)
    try:
        report = _run(arguments, paper)
        if arguments.json:
            print(json.dumps(report), flush=True)
        return 0
    except (DemoError, DemoModelError, FleetError, MusterError, TokenizerError) as error:
        sys.stdout.flush()
        print(f"muster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("muster: interrupted; the fleet is ended", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Nobody reads on. What Python would still flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(arguments: Arguments, paper: Paper) -> dict[str, Any]:
    paper.title("muster demo")
    model = arguments.model or demo_model(lambda line: paper.line(f"  {line}"))
    tokenizer = _tokenizer(model, arguments)
    options = FleetOptions(
        model, arguments.tp, arguments.cp, arguments.replicas, arguments.threads, arguments.dtype,
        arguments.no_fusion, arguments.no_graphs, _room_to_scale(arguments), arguments.device,
        arguments.oversubscribe, arguments.load_format, arguments.memory_fraction, arguments.tls)
    with FleetProcess(options, paper.stream) as process:
        serving = process.await_event("serving")
        prompt = _prompt(arguments, tokenizer)
        # It changes the fleet's shape, as operators may.
        with Fleet(serving["coordinator"], patience=0,
                   tls=serving.get("tls_operator", "")) as fleet:
            if arguments.first_prompt and tokenizer:
                _greet(fleet, arguments.first_prompt, tokenizer, arguments, paper)
            _show_prompt(_words(prompt) if arguments.prompt_tokens else arguments.prompt, paper)
            answer = _ask_all(fleet, prompt, tokenizer, arguments, paper)
    _advise(serving, arguments, paper)
    return _report(serving, prompt, answer)


def _room_to_scale(arguments: Arguments) -> tuple[str, ...]:
    """Further arguments of `musterctl up`: workers and memory for what --scale wants."""
    words: list[str] = []
    if arguments.standbys:
        words += ["--standby", str(arguments.standbys)]
    sizes = [arguments.cp, *(it.cp for it in arguments.scale)]
    # What a coordinator keeps room for by itself is half to double.
    if min(sizes) < max(1, arguments.cp // 2) or max(sizes) > 2 * arguments.cp:
        words += ["--resize-range", f"{min(sizes)}:{max(sizes)}"]
    return tuple(words)


def _tokenizer(model: Path, arguments: Arguments) -> ChatTokenizer | None:
    """None where there is none and none is needed."""
    # What is wrong with a directory that is no model's is for a worker to tell.
    if not (model / "config.json").is_file():
        return None
    if arguments.prompt_tokens and not (model / "tokenizer.json").is_file():
        return None
    return ChatTokenizer(model)


def _prompt(arguments: Arguments, tokenizer: ChatTokenizer | None) -> list[int]:
    if arguments.prompt_tokens:
        return arguments.prompt_tokens
    if tokenizer is None:
        raise DemoError(f"{arguments.model} has no tokenizer: give --prompt-tokens")
    return tokenizer.encode_chat(arguments.prompt)


def _show_prompt(prompt: str, paper: Paper) -> None:
    paper.line()
    paper.flow(f"> {prompt}")
    paper.end_flow()


def _greet(fleet: Fleet, prompt: str, tokenizer: ChatTokenizer, arguments: Arguments,
           paper: Paper) -> None:
    """A turn before that which counts."""
    _show_prompt(prompt, paper)
    with fleet.replica(0) as replica:
        _ask(replica, tokenizer.encode_chat(prompt), tokenizer, arguments, paper)


def _ask_all(fleet: Fleet, prompt: list[int], tokenizer: ChatTokenizer | None,
             arguments: Arguments, paper: Paper) -> Answer:
    """The answer of replica 0, shown as it comes; the others must give the same."""
    leader = serving_leader(fleet.replicas(), 0)
    with CountedReplica(leader, patience=0, tls=fleet.tls) as replica, Scaler(
            fleet, arguments.scale, arguments.max_tokens, replica) as scaler:
        answer = _ask(replica, prompt, tokenizer, arguments, paper, scaler)
        answer.scaled = scaler.scaled
    paper.line()
    paper.fact("speed", f"first token {answer.ttft_s * 1e3:.0f} ms" + (
        f", then {answer.tokens_per_second:.1f} tokens/s" if answer.tokens_per_second else ""))
    for index in range(1, arguments.replicas):
        with fleet.replica(index) as further:
            other = _ask(further, prompt, None, arguments, None)
        if other.ids != answer.ids:
            raise DemoError(f"replica {index} answers {other.ids}, replica 0 {answer.ids}")
        paper.fact(f"replica {index}", f"the same {len(other.ids)} tokens")
    return answer


def _ask(replica: Replica, prompt: list[int], tokenizer: ChatTokenizer | None,
         arguments: Arguments, paper: Paper | None, scaler: Scaler | None = None) -> Answer:
    """Has a replica answer; with `paper` the text, or else the token ids, flow onto it.

    With a `scaler` the fleet changes its shape meanwhile; the sequence is kept until that is done.
    """
    sampling = Sampling(temperature=arguments.temperature, seed=arguments.seed)
    stream = tokenizer.stream() if tokenizer else None
    answer = Answer()

    def show(piece: str) -> None:
        answer.text += piece if stream else ""
        if paper:
            paper.flow(piece)

    start = time.perf_counter()
    with replica.sequence() as sequence:
        for token in sequence.generate(prompt, arguments.max_tokens, sampling, arguments.top):
            now = time.perf_counter()
            if not answer.tokens:
                answer.ttft_s = now - start
            answer.decode_s = now - start - answer.ttft_s
            answer.tokens.append(token)
            show(stream.push(token.id) if stream else f"{token.id} ")
            if scaler and paper:
                shown = time.perf_counter()
                _show_scaled(scaler.token(len(answer.tokens)), paper)
                # Where the text waits for a change, the model is not slower for it.
                start += time.perf_counter() - shown
        if stream:
            show(stream.finish())
        if paper:
            paper.end_flow()
        if scaler and paper:
            _finish_scaling(scaler, len(answer.tokens), paper)
    if paper:
        _show_top(answer, paper)
    return answer


def _show_scaled(scaled: list[Scaled], paper: Paper) -> None:
    for change in scaled:
        paper.note("scale", change.items())


def _finish_scaling(scaler: Scaler, tokens: int, paper: Paper) -> None:
    """Tells what the text did not wait for, and what it was too short for."""
    if point := scaler.under_way:
        paper.note("scale", [f"to cp={point.cp} at token {point.at_token}",
                             "still under way: the text was faster"])
    _show_scaled(scaler.finish(), paper)
    for point in scaler.missed:
        paper.note("scale", [f"to cp={point.cp} at token {point.at_token}: not done",
                             f"the answer has {tokens} tokens"])


def _show_top(answer: Answer, paper: Paper) -> None:
    for number, token in enumerate(answer.tokens):
        if token.top:
            entries = "  ".join(f"{identity} {logprob:.3f}" for identity, logprob in token.top)
            paper.fact(f"top {number}", entries)


def _advise(serving: dict[str, Any], arguments: Arguments, paper: Paper) -> None:
    heads = serving["model"]["heads"]
    tp = next((size for size in range(2, heads + 1) if heads % size == 0), 1)
    cp = 2 if tp > 1 else 4
    paper.line()
    for lead, command, remark in (
        ("Try:", f"./muster demo --tp {tp} --cp {cp}", f"{tp * cp} workers"),
        ("", "./muster demo --scale 8:3,60:2", "other sizes, at other tokens"),
        ("", "./muster demo --prompt 'What is a fjord?'", ""),
        ("", "./muster demo --model DIR", "any Hugging Face Llama directory"),
        ("", f"out/bin/musterctl up --model {_shorter(arguments.model) or 'DIR'}",
         "a fleet for your own scheduler"),
    ):
        line = f"  {lead:<6}{command:<36}"
        paper.line(f"{line}  {remark}".rstrip() if len(line) <= 44 else line)


def _shorter(path: Path | None) -> str:
    """As a person here would type it; empty for None."""
    return min(str(path), os.path.relpath(path), key=len) if path else ""


def _report(serving: dict[str, Any], prompt: list[int], answer: Answer) -> dict[str, Any]:
    replica = serving["replicas"][0]
    config = replica["topology"]["config"]
    return {
        "model": serving["model"]["name"],
        "topology": config | {"world": config["tp"] * config["cp"] * config["pp"]},
        "epoch": replica["topology"]["epoch"],
        "prompt_tokens": prompt,
        "tokens": answer.ids,
        "text": answer.text,
        "top": [[list(entry) for entry in token.top] for token in answer.tokens],
        "ledger": replica["ledgers"][0]["bytes"],
        "ttft_ms": round(answer.ttft_s * 1e3, 3),
        "tokens_per_second": round(answer.tokens_per_second, 3),
        "phases_ms": replica["phases_ms"],
        "resizes": [change.report() for change in answer.scaled],
    }


def _words(tokens: list[int]) -> str:
    return " ".join(map(str, tokens))
