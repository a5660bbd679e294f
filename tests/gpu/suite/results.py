"""What programs and checks gave, and how it is told."""

import json
import re
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Record:
    """What one program gave.

    Attributes:
      passed: cases that passed.
      failed: a line for each failure.
      skipped: the reason of each skipped case, by its name.
    """

    topic: str
    name: str
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def total(records: Iterable[Record]) -> str:
    """The last line of a run."""
    rows = list(records)
    return (f"{sum(row.passed for row in rows)} passed, {sum(len(row.failed) for row in rows)} "
            f"failed, {sum(len(row.skipped) for row in rows)} skipped")


def table(records: Iterable[Record]) -> str:
    """In Markdown, a row for each program."""
    rows = [(row.topic, row.name, str(row.passed), str(len(row.failed)), str(len(row.skipped)),
             f"{row.seconds:.1f}") for row in records]
    head = ("topic", "name", "passed", "failed", "skipped", "seconds")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [[*head], ["-" * width for width in widths], *map(list, rows)]
    return "\n".join(
        "| " + " | ".join(word.ljust(width) for word, width in zip(line, widths)) + " |"
        for line in lines)


def explanations(records: Iterable[Record]) -> list[str]:
    """A line for each failure and each reason of a skip."""
    lines = []
    for row in records:
        lines += [f"FAILED   {row.topic}/{row.name}: {text}" for text in row.failed]
        reasons: dict[str, list[str]] = {}
        for case, reason in row.skipped.items():
            reasons.setdefault(reason, []).append(case)
        for reason, cases in reasons.items():
            more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
            lines.append(f"SKIPPED  {row.topic}/{row.name}: {reason} [{cases[0]}{more}]")
    return lines


def save(path: Path, records: Iterable[Record]) -> None:
    path.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n")


def load(path: Path) -> list[Record]:
    return [Record(**fields) for fields in json.loads(path.read_text())]


def archive(folder: Path, target: Path) -> None:
    """All that a run wrote, as one file."""
    with tarfile.open(target, "w:gz") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path != target:
                tar.add(path, arcname=str(path.relative_to(folder.parent)))


_RAN = re.compile(r"^\[ RUN      \] (\S+)", re.MULTILINE)
_PASSED = re.compile(r"^\[       OK \] (\S+)", re.MULTILINE)
_SKIPPED = re.compile(r"^\[ RUN      \] (\S+)\n(.*?)^\[  SKIPPED \] \1", re.MULTILINE | re.DOTALL)


def count_gtest(record: Record, report: Path, log: str, status: int | None) -> None:
    """Adds the cases of a GoogleTest program.

    Args:
      record: that they are added to.
      report: what --gtest_output=json wrote; it is not there if the program broke off.
      log: what the program printed.
      status: its exit status; None: it ran out of time.
    """
    if not report.is_file():
        record.passed += len(_PASSED.findall(log))
        record.failed.append(_broken_off(log, status))
        return
    reasons = {name: _reason(text) for name, text in _SKIPPED.findall(log)}
    for suite in json.loads(report.read_text(errors="replace")).get("testsuites", []):
        for case in suite["testsuite"]:
            name = f"{suite['name']}.{case['name']}"
            if case.get("failures"):
                record.failed.append(f"{name}: {_first_line(case['failures'])}")
            elif case.get("result") == "SKIPPED":
                record.skipped[name] = reasons.get(name, "no reason given")
            elif case.get("status") == "RUN":
                record.passed += 1
    if status != 0 and not record.failed:
        record.failed.append(f"{ended(status)} outside of any case")
    if not (record.passed or record.failed or record.skipped):
        record.failed.append("no case ran")


def ended(status: int | None) -> str:
    if status is None:
        return "ran out of time"
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def _broken_off(log: str, status: int | None) -> str:
    ran = _RAN.findall(log)
    last = log.strip().splitlines()[-1:] or ["it printed nothing"]
    return f"{ended(status)}{' in ' + ran[-1] if ran else ''}: {last[0][:300]}"


def _first_line(failures: list[dict[str, str]]) -> str:
    lines = [line.strip() for line in failures[0]["failure"].splitlines() if line.strip()]
    return " ".join(lines)[:400]


def _reason(text: str) -> str:
    """GoogleTest says 'file:line: Skipped', then the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    while lines and lines[0].endswith("Skipped"):
        lines.pop(0)
    return lines[0] if lines else "no reason given"
