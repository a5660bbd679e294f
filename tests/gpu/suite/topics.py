"""What each topic runs."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from suite import programs
from suite.bundle import Bundle, Program
from suite.mps import multi_process_service
from suite.results import Record, count_gtest, ended, load
from suite.sanitizer import TOOLS, quick_cases, sanitize

# Of one program, unless less of its topic's time is left.
_PROGRAM_SECONDS = 420.0


@dataclass(frozen=True)
class Script:
    """A benchmark in Python.

    Attributes:
      name: of the program, and of what is recorded.
      shares: on one GPU it starts several ranks, which share it under MPS.
      gpus: that it wants, at least and at most.
    """

    name: str
    words: tuple[str, ...] = ()
    shares: bool = False
    gpus: tuple[int, int] = (1, 1024)


_SCRIPTS = (
    Script("muster_benchmark"), Script("resize_benchmark", shares=True),
    Script("transformers_benchmark", gpus=(1, 1)))
_OF_8B = (
    Script("muster_benchmark", ("--all",)), Script("death_benchmark", gpus=(2, 1024)),
    Script("all_reduce_benchmark", gpus=(2, 1024)))
_OF_70B = (
    Script("muster_benchmark", ("--models", "70b", "--all", "--batches", "1"), gpus=(2, 1024)),)


@dataclass
class Run:
    """One topic's run.

    Attributes:
      folder: receives logs and reports.
      left: seconds that the topic has left.
    """

    bundle: Bundle
    topic: str
    gpus: int
    folder: Path
    environment: Mapping[str, str]
    left: Callable[[], float]

    def program(self, name: str, *command: str | Path, limit: float = _PROGRAM_SECONDS,
                environment: Mapping[str, str] | None = None) -> programs.Outcome:
        return programs.run(
            command, self.folder / f"{name}.log", min(self.left(), limit),
            environment or self.environment, self.bundle.root)

    @contextmanager
    def ranks(self, wanted: bool = True) -> Iterator[Mapping[str, str]]:
        """The environment of programs with several ranks, which share a GPU under MPS."""
        if not wanted:
            yield self.environment
            return
        with multi_process_service(dict(self.environment)) as environment:
            yield environment


def _gtest(run: Run, program: Program) -> Record:
    record = Record(run.topic, program.name)
    report = run.folder / f"{program.name}.json"
    report.unlink(missing_ok=True)
    if run.left() <= 0:
        record.failed.append("no time was left for it")
        return record
    with run.ranks(program.ranks) as environment:
        outcome = run.program(
            program.name, run.bundle.root / program.path, f"--gtest_output=json:{report}",
            environment=environment)
    record.seconds = outcome.seconds
    count_gtest(record, report, outcome.text, outcome.status)
    return record


def _tests(run: Run) -> Iterator[Record]:
    """The GoogleTest programs of the topic."""
    found = [it for it in run.bundle.programs if it.topic == run.topic and it.kind == "test"]
    if not found:
        yield Record(run.topic, "programs", failed=["the bundle has no test program of this topic"])
    for program in found:
        yield _gtest(run, program)


def _checks(run: Run, module: str, ranks: bool) -> Iterator[Record]:
    """A Python module of checks, which counts for itself."""
    report = run.folder / f"{module}.json"
    report.unlink(missing_ok=True)
    with run.ranks(ranks) as environment:
        outcome = programs.run(
            [sys.executable, run.bundle.root / "tests/gpu/run_checks.py", module, report],
            run.folder / f"{module}.log", run.left(), environment, run.bundle.root)
    record = Record(run.topic, module)
    if report.is_file():
        (record,) = load(report)
        record.topic = run.topic
    record.seconds = outcome.seconds
    if outcome.status != 0 and not record.failed:
        last = outcome.text.strip().splitlines()[-1:] or ["it printed nothing"]
        record.failed.append(f"{ended(outcome.status)}: {last[0][:300]}")
    yield record


def _models(run: Run) -> Iterator[Record]:
    yield from _tests(run)
    yield from _checks(
        _beside_transformers(run), "compare_transformers", ranks=run.gpus == 1)


def _beside_transformers(run: Run) -> Run:
    """Without the tokenizer of the bundle: transformers wants the one that it came with."""
    paths = run.environment["PYTHONPATH"].split(":")
    kept = [path for path in paths if not path.endswith("packages/tokenizer")]
    return replace(run, environment=dict(run.environment) | {"PYTHONPATH": ":".join(kept)})


def _fleet(run: Run) -> Iterator[Record]:
    yield from _checks(run, "fleet_checks", ranks=run.gpus == 1)


def _faults(run: Run) -> Iterator[Record]:
    """Without MPS: a service need not survive clients that are killed at work."""
    found = [it for it in run.bundle.programs if it.topic == run.topic and it.kind == "test"]
    for program in found:
        yield _gtest(run, program)
    yield from _checks(run, "fault_checks", ranks=False)


def _sanitizer(run: Run) -> Iterator[Record]:
    """The quickest cases of each kernel test under each tool, which slows them a hundredfold."""
    found = [it for it in run.bundle.programs if it.topic == "kernels" and it.kind == "test"]
    if not found:
        yield Record(run.topic, "programs", failed=["the bundle has no kernel test"])
    for program in found:
        cases = quick_cases(run, program)
        for tool in TOOLS:
            yield sanitize(run, program, tool, cases)


def _benchmarks(run: Run) -> Iterator[Record]:
    found = [it for it in run.bundle.programs if it.kind == "benchmark"]
    if not found:
        yield Record(run.topic, "programs", failed=["the bundle has no benchmark"])
    for program in found:
        with run.ranks(program.ranks) as environment:
            outcome = run.program(
                program.name, run.bundle.root / program.path, environment=environment)
        yield figures(run, program.name, outcome)
    yield from _scripts(run, _SCRIPTS)


def _scripts(run: Run, scripts: Iterable[Script]) -> Iterator[Record]:
    beside = _beside_transformers(run)
    for script in scripts:
        least, most = script.gpus
        if not least <= run.gpus <= most:
            reason = f"wants {least} GPUs" if run.gpus < least else "knows one GPU"
            yield Record(run.topic, script.name, skipped={script.name: reason})
            continue
        with beside.ranks(script.shares and run.gpus == 1) as environment:
            outcome = beside.program(
                script.name, sys.executable, run.bundle.root / f"tests/gpu/{script.name}.py",
                *script.words, limit=run.left(), environment=environment)
        yield figures(run, script.name, outcome)


def figures(run: Run, name: str, outcome: programs.Outcome) -> Record:
    """A benchmark passes if it comes to its end and printed its result."""
    printed = outcome.text.strip()
    print(printed, flush=True)
    record = Record(run.topic, name, seconds=outcome.seconds)
    if outcome.status != 0:
        record.failed.append(ended(outcome.status))
    elif not printed:
        record.failed.append("it printed nothing")
    else:
        record.passed = 1
    return record


Topic = Callable[[Run], Iterator[Record]]

TOPICS: dict[str, Topic] = {
    "kernels": _tests,
    "device": _tests,
    "conformance": _tests,
    "nccl": _tests,
    "models": _models,
    "fleet": _fleet,
    "faults": _faults,
    "sanitizer": _sanitizer,
    "benchmarks": _benchmarks,
    "splits-8b": lambda run: _scripts(run, _OF_8B),
    "splits-70b": lambda run: _scripts(run, _OF_70B),
}
