"""compute-sanitizer over the kernel tests."""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from suite.bundle import Program
from suite.results import Record, ended

if TYPE_CHECKING:
    from suite.topics import Run

TOOLS = ("memcheck", "racecheck", "synccheck")

# Of a program's cases together, without a tool and with one.
_PLAIN_SECONDS = 0.4
_SECONDS = 60.0
# Each process that a tool watches ends with one: "ERROR SUMMARY: 0 errors".
_SUMMARY = re.compile(r"SUMMARY: (\d+) ")


def quick_cases(run: "Run", program: Program) -> list[str]:
    """Names of the quickest cases that passed without a tool, at least one if any did."""
    report = run.folder.parent / "kernels" / f"{program.name}.json"
    if not report.is_file():
        report = run.folder / f"{program.name}.plain.json"
        run.program(f"{program.name}.plain", run.bundle.root / program.path,
                    f"--gtest_output=json:{report}")
    if not report.is_file():
        return []
    times = sorted(_times(report))
    quick: list[str] = []
    sum_of_times = 0.0
    for seconds, name in times:
        sum_of_times += seconds
        if quick and sum_of_times > _PLAIN_SECONDS:
            break
        quick.append(name)
    return quick


def _times(report: Path) -> list[tuple[float, str]]:
    suites = json.loads(report.read_text(errors="replace")).get("testsuites", [])
    return [(float(case["time"].rstrip("s")), f"{suite['name']}.{case['name']}")
            for suite in suites for case in suite["testsuite"]
            if case.get("result") == "COMPLETED" and not case.get("failures")]


def sanitize(run: "Run", program: Program, tool: str, cases: list[str]) -> Record:
    """Runs those cases under a tool; it passes if the tool has nothing to say."""
    name = f"{program.name}.{tool}"
    record = Record(run.topic, name)
    checker = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not cases:
        record.failed.append("no case passed in a plain run")
    elif run.left() <= 0:
        record.failed.append("no time was left for it")
    if record.failed:
        return record
    outcome = run.program(
        name, checker, "--tool", tool, "--error-exitcode", "99", "--target-processes", "all",
        run.bundle.root / program.path, f"--gtest_filter={':'.join(cases)}",
        limit=_SECONDS)
    record.seconds = outcome.seconds
    text = outcome.text
    found = _SUMMARY.findall(text)
    if outcome.status == 0 and found and not any(map(int, found)):
        record.passed = 1
    else:
        said = [line for line in text.splitlines() if line.startswith("=========")]
        record.failed.append(f"{ended(outcome.status)}: {' '.join(said[:4])[:400]}")
    return record
