"""The GPU suite itself, with stand-ins for what it runs."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from suite.bundle import Bundle
from suite.mps import multi_process_service
from suite.programs import Outcome
from suite.results import Record, count_gtest, explanations, table, total
from suite.topics import TOPICS, Run, figures

HERE = Path(__file__).resolve().parent
GTEST = """\
[ RUN      ] Sum.Adds
[       OK ] Sum.Adds (1 ms)
[ RUN      ] Sum.Wraps
a/b.cc:7: Skipped
one GPU is too few

[  SKIPPED ] Sum.Wraps (0 ms)
[ RUN      ] Sum.Fails
"""
REPORT = {"testsuites": [{"name": "Sum", "testsuite": [
    {"name": "Adds", "status": "RUN", "result": "COMPLETED", "time": "0.001s"},
    {"name": "Wraps", "status": "RUN", "result": "SKIPPED", "time": "0s"},
    {"name": "Fails", "status": "RUN", "result": "COMPLETED", "time": "0s",
     "failures": [{"failure": "a/b.cc:9\nExpected: 1\n  got: 2"}]},
    {"name": "Off", "status": "NOTRUN", "result": "SUPPRESSED", "time": "0s"}]}]}
# A GoogleTest program of one case, as far as the suite looks.
PASSING = """#!/bin/sh
for word; do case $word in --gtest_output=json:*) report=${word#*json:};; esac; done
cat >"$report" <<'END'
{"testsuites": [{"name": "S", "testsuite": [
  {"name": "T", "status": "RUN", "result": "COMPLETED", "time": "0.1s"}]}]}
END
"""


@pytest.fixture
def bundle(tmp_path):
    """Makes a bundle of programs written in shell."""
    root = tmp_path / "muster-gpu"
    (root / "tests").mkdir(parents=True)
    (root / "tests" / "gpu").symlink_to(HERE)
    for name in ("muster", "run_gpu_suite.sh"):
        (root / name).write_bytes((HERE / name).read_bytes())
        (root / name).chmod(0o755)

    def make(scripts: dict[str, str], **facts: str) -> Path:
        programs = []
        for name, text in scripts.items():
            path = root / "programs" / name
            path.parent.mkdir(exist_ok=True)
            if text:
                path.write_text(text)
                path.chmod(0o755)
            programs.append({"name": name, "topic": facts.get(name, "kernels"), "kind": "test",
                             "path": f"programs/{name}", "ranks": False})
        (root / "manifest.json").write_text(json.dumps({
            "revision": "r1", "model_wheel": "model.whl", "model_parts": [],
            "programs": programs}))
        return root

    return make


def suite(root: Path, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"MUSTER_PYTHON": sys.executable, "OUT": str(root.parent / "out")}
    return subprocess.run(
        [root / "run_gpu_suite.sh", *words], env=environment, cwd=root.parent,
        capture_output=True, text=True, timeout=60, check=False)


def test_cases_are_counted_from_the_report_and_reasons_from_the_log(tmp_path):
    report = tmp_path / "report.json"
    report.write_text(json.dumps(REPORT))
    record = Record("kernels", "sum_test")
    count_gtest(record, report, GTEST, 1)
    assert (record.passed, record.skipped) == (1, {"Sum.Wraps": "one GPU is too few"})
    assert record.failed == ["Sum.Fails: a/b.cc:9 Expected: 1 got: 2"]


@pytest.mark.parametrize("status, words", [
    (-11, "was killed by signal 11 in Sum.Fails"), (None, "ran out of time in Sum.Fails"),
    (3, "ended with status 3 in Sum.Fails")])
def test_a_program_that_breaks_off_fails_where_it_was(tmp_path, status, words):
    record = Record("kernels", "sum_test")
    count_gtest(record, tmp_path / "absent.json", GTEST, status)
    assert record.passed == 1 and len(record.failed) == 1 and record.failed[0].startswith(words)


def test_a_failure_outside_of_any_case_counts(tmp_path):
    report = tmp_path / "report.json"
    report.write_text('{"testsuites": []}')
    record = Record("kernels", "sum_test")
    count_gtest(record, report, "", 0)
    assert record.failed == ["no case ran"]


def test_the_table_has_a_row_for_each_program_and_the_sum_all_cases():
    records = [Record("kernels", "a", 3, [], {}, 1.0), Record("fleet", "b", 0, ["x"], {"c": "why"})]
    assert total(records) == "3 passed, 1 failed, 1 skipped"
    assert "| kernels | a    | 3      | 0      | 0       | 1.0     |" in table(records)
    assert explanations(records) == ["FAILED   fleet/b: x", "SKIPPED  fleet/b: why [c]"]


def test_a_run_ends_with_the_sum_and_leaves_an_archive(bundle):
    root = bundle({"a_test": PASSING, "b_test": PASSING})
    result = suite(root, "--topics", "kernels")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "2 passed, 0 failed, 0 skipped"
    with tarfile.open(root.parent / "out" / "gpu-suite.tar.gz") as tar:
        assert {"results/kernels/a_test.log", "results/results.md"} <= set(tar.getnames())


def test_topics_that_ran_apart_are_added_up(bundle):
    root = bundle({"a_test": PASSING, "b_test": PASSING}, b_test="device")
    for topic in ("kernels", "device"):
        assert suite(root, "--topics", topic).stdout.endswith("1 passed, 0 failed, 0 skipped\n")
    result = suite(root, "--collect")
    assert result.returncode == 0
    assert result.stdout.endswith("2 passed, 0 failed, 0 skipped\n")


@pytest.mark.parametrize("scripts, topic, words", [
    ({"a_test": ""}, "kernels", "cannot run"),
    ({"a_test": PASSING}, "device", "no test program"),
    ({"a_test": "#!/bin/sh\nexit 3\n"}, "kernels", "ended with status 3"),
    ({"a_test": "#!/bin/sh\nsleep 1000\n"}, "kernels", "ran out of time")])
def test_what_is_missing_breaks_or_hangs_is_a_failure(bundle, scripts, topic, words):
    result = suite(bundle(scripts), "--topics", topic, "--limit", "1")
    assert result.returncode == 1
    assert result.stdout.endswith("0 passed, 1 failed, 0 skipped\n")
    assert words in result.stdout


@pytest.mark.parametrize("printed, passed, failed", [
    ("3 us\n", 1, []), ("\n", 0, ["it printed nothing"])])
def test_a_benchmark_has_to_print_its_figures(tmp_path, printed, passed, failed):
    log = tmp_path / "a_benchmark.log"
    log.write_text(printed)
    run = Run(Bundle.__new__(Bundle), "benchmarks", 1, tmp_path, {}, lambda: 1.0)
    record = figures(run, "a_benchmark", Outcome(0, 0.1, log))
    assert (record.passed, record.failed) == (passed, failed)


def test_a_benchmark_that_wants_more_gpus_is_skipped_by_name(tmp_path):
    run = Run(Bundle.__new__(Bundle), "splits-70b", 1, tmp_path, {"PYTHONPATH": ""}, lambda: 1.0)
    (record,) = TOPICS["splits-70b"](run)
    assert (record.passed, record.failed) == (0, [])
    assert record.skipped == {"muster_benchmark": "wants 2 GPUs"}


def test_an_unknown_topic_is_refused(bundle):
    result = suite(bundle({}), "--topics", "cooking")
    assert result.returncode == 2 and "'cooking' is none of kernels," in result.stderr


def test_the_model_is_put_together_when_all_its_parts_are_there(bundle, tmp_path):
    root = bundle({})
    parts = [{"name": f"model-part-{index}", "sha256": hashlib.sha256(text).hexdigest()}
             for index, text in ((1, b"abc"), (2, b"de"))]
    manifest = json.loads((root / "manifest.json").read_text()) | {"model_parts": parts}
    (root / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "model-part-1").write_bytes(b"abc")
    assert "no model-part-2" in Bundle(root).join_model([tmp_path])
    (tmp_path / "model-part-2").write_bytes(b"dx")
    assert "damaged" in Bundle(root).join_model([tmp_path])
    (tmp_path / "model-part-2").write_bytes(b"de")
    assert "put together" in Bundle(root).join_model([tmp_path])
    assert (root / "wheels" / "model.whl").read_bytes() == b"abcde"
    assert "is here" in Bundle(root).join_model([])


def test_checks_count_parts_skips_and_failures(tmp_path):
    (tmp_path / "some_checks.py").write_text("""\
import unittest
class Some(unittest.TestCase):
    def test_passes(self): pass
    def test_is_skipped(self): self.skipTest('no model')
    def test_fails(self): self.assertEqual(1, 2)
    def test_has_parts(self):
        for index in range(3):
            with self.subTest(index=index): self.assertNotEqual(index, 2)
""")
    report = tmp_path / "report.json"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, HERE / "run_checks.py", "some_checks", report], env=environment,
        capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    (record,) = json.loads(report.read_text())
    assert (record["passed"], len(record["failed"])) == (3, 2), record
    assert list(record["skipped"].values()) == ["no model"]


def test_without_mps_ranks_take_turns(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("suite.mps._FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with multi_process_service({"A": "1"}) as environment:
        assert environment == {"A": "1"}
    assert "ranks take turns" in capsys.readouterr().err


def test_mps_is_started_for_its_clients_alone_and_ended(monkeypatch, tmp_path):
    control = tmp_path / "nvidia-cuda-mps-control"
    control.write_text(
        '#!/bin/sh\nif [ "$1" = -d ]; then\n'
        '  echo "on $CUDA_VISIBLE_DEVICES $CUDA_MPS_PIPE_DIRECTORY" >>"$LOG"; exit\nfi\n'
        'read word; echo "$word" >>"$LOG"\n')
    control.chmod(0o755)
    log = tmp_path / "log"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ValueError):
        given = os.environ | {"LOG": str(log), "CUDA_VISIBLE_DEVICES": "3,GPU-5"}
        with multi_process_service(given) as environment:
            assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"
            pipe = environment["CUDA_MPS_PIPE_DIRECTORY"]
            raise ValueError
    assert log.read_text().splitlines() == [f"on 3,GPU-5 {pipe}", "quit"]
    assert not Path(pipe).exists()
