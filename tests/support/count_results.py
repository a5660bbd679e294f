#!/usr/bin/env python3
"""Adds up what a run of the tests gave, explains the skips, and ends with one line.

    count_results.py [--bazel TOPIC EXIT EVENTS]... [--pytest TOPIC EXIT JUNIT]...
                     [--step TOPIC EXIT]...

EVENTS is the file that `bazel test --build_event_json_file` wrote, JUNIT the one of
`pytest --junit-xml`, EXIT the exit status of that command. GoogleTest and pytest cases count one
each. What failed without naming a case (a target that did not build, crashed or ran out of time, a
leak found at exit, a step) counts as one failure. Exits 1 if anything failed or nothing passed.
"""

import argparse
import json
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlparse

# Exit statuses of `bazel test` that its events explain: all passed, some failed.
_BAZEL_EXPLAINED = (0, 3)


@dataclass
class Results:
    """Cases of one or several runs.

    Attributes:
      passed: how many cases passed.
      failed: a line for each failure.
      skipped: the reason of each skip to the names of the cases.
    """

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, other: "Results") -> None:
        self.passed += other.passed
        self.failed += other.failed
        for reason, names in other.skipped.items():
            self.skipped[reason] += names

    def skips(self) -> int:
        return sum(map(len, self.skipped.values()))


def count_junit(text: str, owner: str) -> Results:
    """The cases of a JUnit file, as GoogleTest, pytest and Bazel write it.

    Args:
      text: the content of the file.
      owner: what the cases belong to, said before each name.
    """
    results = Results()
    for case in ElementTree.fromstring(text).iter("testcase"):
        name = f"{owner} {_case_name(case)}"
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            results.failed.append(name)
        elif skip is not None:
            results.skipped[_reason(skip)].append(name)
        elif case.get("status") == "notrun":
            results.skipped["disabled in the source"].append(name)
        else:
            results.passed += 1
    return results


def count_bazel(topic: str, status: int, events: str) -> Results:
    """The cases of one `bazel test`.

    Args:
      topic: the name of the run, for what cannot be told more precisely.
      status: the exit status of Bazel.
      events: the content of its build event file, one JSON object a line.
    """
    results = Results()
    tests: set[str] = set()
    counted: set[str] = set()
    for line in filter(None, map(str.strip, events.splitlines())):
        event = json.loads(line)
        identity = event.get("id", {})
        if "targetConfigured" in identity and event.get("configured", {}).get("testSize"):
            tests.add(identity["targetConfigured"]["label"])
        if "testResult" in identity and "testResult" in event:
            label = identity["testResult"]["label"]
            counted.add(label)
            results.add(_count_target(label, topic, event["testResult"]))
    if status != 0:
        results.failed += [f"{label} ({topic}) did not build" for label in sorted(tests - counted)]
    if status not in _BAZEL_EXPLAINED and not results.failed:
        results.failed.append(f"{topic}: bazel ended with status {status}")
    return _unless_empty(topic, results)


def count_pytest(topic: str, status: int, junit: str | None) -> Results:
    """The cases of one pytest run; `junit` is None if it wrote no file."""
    results = count_junit(junit, topic) if junit else Results()
    if status != 0 and not results.failed:
        results.failed.append(f"{topic}: pytest ended with status {status}")
    return _unless_empty(topic, results)


def _unless_empty(topic: str, results: Results) -> Results:
    """A run in which nothing ran has failed: its filter or its path is wrong."""
    if not (results.passed or results.failed or results.skips()):
        results.failed.append(f"{topic}: no test ran")
    return results


def _count_target(label: str, topic: str, result: dict) -> Results:
    """The cases of one target: those of its XML file, if the test lived to write one."""
    status = result["status"]
    owner = f"{label} ({topic})"
    results = Results()
    if text := _test_xml(result):
        try:
            results = count_junit(text, owner)
        except ElementTree.ParseError:
            status = "CRASHED" if status == "PASSED" else status
    if status not in ("PASSED", "FLAKY") and not results.failed:
        results.failed.append(f"{owner} {status.lower()} outside of any test case")
    return results


def _test_xml(result: dict) -> str | None:
    for output in result.get("testActionOutput", []):
        if output["name"] == "test.xml":
            path = Path(unquote(urlparse(output["uri"]).path))
            return path.read_text(errors="replace") if path.is_file() else None
    return None


def _case_name(case: ElementTree.Element) -> str:
    owner = case.get("classname")
    return f"{owner}.{case.get('name')}" if owner else str(case.get("name"))


def _reason(skip: ElementTree.Element) -> str:
    """One line. GoogleTest says 'file:line', then the reason; pytest 'Skipped: reason'."""
    lines = [line.strip() for line in skip.get("message", "").splitlines() if line.strip()]
    if len(lines) > 1 and ":" in lines[0] and lines[0].rsplit(":", 1)[1].isdigit():
        lines = lines[1:]
    return " ".join(lines).removeprefix("Skipped: ") or "no reason given"


def _report(results: Results) -> None:
    for name in results.failed:
        print(f"FAILED   {name}")
    for reason, names in sorted(results.skipped.items()):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"SKIPPED  {reason}  [{names[0]}{more}]")
    print(f"{results.passed} passed, {len(results.failed)} failed, {results.skips()} skipped")


def _read(path: str) -> str | None:
    return Path(path).read_text(errors="replace") if Path(path).is_file() else None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for flag, words in (
        ("--bazel", ("TOPIC", "EXIT", "EVENTS")),
        ("--pytest", ("TOPIC", "EXIT", "JUNIT")),
        ("--step", ("TOPIC", "EXIT")),
    ):
        parser.add_argument(flag, nargs=len(words), action="append", default=[], metavar=words)
    options = parser.parse_args(arguments)
    results = Results()
    for topic, status, path in options.bazel:
        results.add(count_bazel(topic, int(status), _read(path) or ""))
    for topic, status, path in options.pytest:
        results.add(count_pytest(topic, int(status), _read(path)))
    for topic, status in options.step:
        if status != "0":
            results.failed.append(f"{topic}: status {status}")
    _report(results)
    return 1 if results.failed or not results.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
