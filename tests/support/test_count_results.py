"""Every case is counted once, and nothing that went wrong is lost."""

import json
from pathlib import Path

from count_results import count_bazel, count_junit, count_pytest, main

_GOOGLETEST = """<?xml version="1.0"?>
<testsuites><testsuite name="Ring">
  <testcase name="Wraps" status="run" result="completed" classname="Ring" />
  <testcase name="Fills" status="run" result="completed" classname="Ring">
    <failure message="ring_test.cc:7&#x0A;Expected: 1"></failure>
    <failure message="ring_test.cc:9&#x0A;Expected: 2"></failure>
  </testcase>
  <testcase name="Pins" status="run" result="skipped" classname="Ring">
    <skipped message="worker/ring_test.cc:12&#x0A;only one core&#x0A;here"></skipped>
  </testcase>
  <testcase name="DISABLED_Old" status="notrun" result="suppressed" classname="Ring" />
</testsuite></testsuites>"""

_ALL_PASSED = '<testsuites><testsuite><testcase name="A" classname="S" /></testsuite></testsuites>'

_PYTEST_SKIP = """<testsuites><testsuite><testcase classname="test_demo" name="test_paris">
  <skipped type="pytest.skip" message="Skipped: the model cannot be fetched">x</skipped>
</testcase></testsuite></testsuites>"""


def events(tmp_path: Path, *targets: tuple[str, str | None, str | None]) -> str:
    """Build events of test targets: label, status (None: never ran), content of test.xml."""
    lines = [{"id": {"progress": {}}}]
    for label, status, xml in targets:
        lines.append({
            "id": {"targetConfigured": {"label": label}},
            "configured": {"testSize": "SMALL"},
        })
        if status is None:
            continue
        outputs = [{"name": "test.log", "uri": "file:///nowhere"}]
        if xml is not None:
            file = tmp_path / f"{len(lines)} test.xml"
            file.write_text(xml)
            outputs.append({"name": "test.xml", "uri": file.as_uri()})
        lines.append({
            "id": {"testResult": {"label": label}},
            "testResult": {"status": status, "testActionOutput": outputs},
        })
    return "\n".join(map(json.dumps, lines))


def test_googletest_cases_are_counted_one_by_one_with_their_reasons():
    results = count_junit(_GOOGLETEST, "//r:ring_test")
    assert results.passed == 1
    assert results.failed == ["//r:ring_test Ring.Fills"]
    assert dict(results.skipped) == {
        "only one core here": ["//r:ring_test Ring.Pins"],
        "disabled in the source": ["//r:ring_test Ring.DISABLED_Old"],
    }


def test_pytest_skips_keep_their_reason():
    assert list(count_pytest("demo", 0, _PYTEST_SKIP).skipped) == ["the model cannot be fetched"]


def test_pytest_that_wrote_nothing_is_one_failure():
    assert count_pytest("python", 2, None).failed == ["python: pytest ended with status 2"]


def test_a_target_is_counted_by_its_cases(tmp_path):
    results = count_bazel("unit", 0, events(tmp_path, ("//a:t", "PASSED", _ALL_PASSED)))
    assert (results.passed, results.failed) == (1, [])


def test_a_failing_case_is_not_counted_again_for_its_target(tmp_path):
    results = count_bazel("unit", 3, events(tmp_path, ("//a:t", "FAILED", _GOOGLETEST)))
    assert results.failed == ["//a:t (unit) Ring.Fills"]


def test_a_target_that_did_not_build_is_one_failure(tmp_path):
    targets = ("//a:t", "PASSED", _ALL_PASSED), ("//b:t", None, None)
    results = count_bazel("unit", 1, events(tmp_path, *targets))
    assert (results.passed, results.failed) == (1, ["//b:t (unit) did not build"])


def test_a_leak_found_after_the_last_case_is_one_failure(tmp_path):
    results = count_bazel("asan", 3, events(tmp_path, ("//a:t", "FAILED", _ALL_PASSED)))
    assert results.failed == ["//a:t (asan) failed outside of any test case"]


def test_a_timeout_without_results_is_one_failure(tmp_path):
    for xml in (None, "<testsuites><tests"):
        results = count_bazel("unit", 3, events(tmp_path, ("//a:t", "TIMEOUT", xml)))
        assert results.failed == ["//a:t (unit) timeout outside of any test case"]


def test_a_bazel_that_never_came_to_testing_is_one_failure():
    assert count_bazel("unit", 1, "").failed == ["unit: bazel ended with status 1"]


def test_a_run_in_which_nothing_ran_is_one_failure():
    assert count_bazel("tsan", 4, "").failed == ["tsan: bazel ended with status 4"]
    assert count_bazel("tsan", 0, "").failed == ["tsan: no test ran"]
    assert count_pytest("python", 5, None).failed == ["python: pytest ended with status 5"]
    assert count_pytest("python", 0, None).failed == ["python: no test ran"]


def test_the_last_line_is_the_sum_and_the_exit_status_follows(tmp_path, capsys):
    good = tmp_path / "good.xml"
    good.write_text(_ALL_PASSED)
    assert main(["--pytest", "python", "0", str(good), "--step", "build", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"
    assert main(["--pytest", "python", "0", str(good), "--step", "build", "1"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"


def test_nothing_passed_is_a_failure(capsys):
    assert main([]) == 1
    assert capsys.readouterr().out == "0 passed, 0 failed, 0 skipped\n"
