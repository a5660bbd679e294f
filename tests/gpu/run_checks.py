"""Runs the unittest cases of a module, and writes what they gave for the suite.

    run_checks.py MODULE REPORT
"""

import sys
import time
import unittest
from pathlib import Path
from types import TracebackType

from suite import results
from suite.results import Record

_Error = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class _Counted(unittest.TextTestResult):
    """Keeps a line for each case, and shows and saves each as it ends."""

    def __init__(self, record: Record, report: Path):
        super().__init__(unittest.runner._WritelnDecorator(sys.stdout), True, 2)
        self._record = record
        self._report = report
        self._begun = 0.0
        self._parts = 0

    def startTest(self, test: unittest.TestCase) -> None:
        self._begun = time.monotonic()
        self._parts = 0
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:
        print(f"    {time.monotonic() - self._begun:.1f} s", flush=True)
        super().stopTest(test)
        results.save(self._report, [self._record])

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        # A case of several parts counts as those.
        self._record.passed += not self._parts

    def addFailure(self, test: unittest.TestCase, err: _Error) -> None:
        super().addFailure(test, err)
        self._add(str(test), err)

    def addError(self, test: unittest.TestCase, err: _Error) -> None:
        super().addError(test, err)
        self._add(str(test), err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase,
                   err: _Error | None) -> None:
        super().addSubTest(test, subtest, err)
        self._parts += 1
        print(f"    {dict(subtest.params)}: {'FAILED' if err else 'ok'}", flush=True)
        if err is None:
            self._record.passed += 1
        else:
            self._add(str(subtest), err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._record.skipped[str(test)] = reason

    def _add(self, name: str, err: _Error) -> None:
        lines = " ".join(str(err[1]).split())
        self._record.failed.append(f"{name.splitlines()[0]}: {lines[:400]}")


def main(module: str, report: Path) -> int:
    record = Record("", module)
    result = _Counted(record, report)
    unittest.defaultTestLoader.loadTestsFromName(module).run(result)
    result.printErrors()
    if not result.testsRun and not record.skipped and not record.failed:
        record.failed.append("no case ran")
    results.save(report, [record])
    return 1 if record.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
