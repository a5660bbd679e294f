"""The benchmark: its workloads, its figures, and a run against a leader that answers."""

import json
import signal
from pathlib import Path

import pytest
from fake_fleet import VOCABULARY, FakeFleet, Refused
from grpc import StatusCode
from muster.bench.arguments import parse
from muster.bench.figures import Figures, Served, Work, percentile, sum_of, summary
from muster.bench.run import main
from muster.bench.workload import (
    Lengths, Shape, WorkloadError, drawn_shapes, requests_of, traced_shapes)


@pytest.fixture
def server():
    server = FakeFleet(rows=64, slices=16)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """No fleet of this user is found, and signals are as they were."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("MUSTER_COORDINATOR", raising=False)
    handlers = {it: signal.getsignal(it) for it in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def bench(server: FakeFleet, *words: str) -> int:
    return main(["--coordinator", server.address, "--prompt-lengths", "2-20", "--output-lengths",
                 "3-9", *words])


def test_lengths_are_drawn_from_their_ranges_by_the_seed():
    shapes = drawn_shapes(200, Lengths(3, 5), Lengths(1, 2), seed=7)
    assert {shape.prompt_tokens for shape in shapes} == {3, 4, 5}
    assert {shape.output_tokens for shape in shapes} == {1, 2}
    assert shapes == drawn_shapes(200, Lengths(3, 5), Lengths(1, 2), seed=7)


@pytest.mark.parametrize("text", [
    "prompt_tokens,output_tokens\n5,2\n7,3\n",
    '{"prompt_tokens": 5, "output_tokens": 2}\n\n{"prompt_tokens": 7, "output_tokens": 3}\n'])
def test_a_trace_is_csv_or_lines_of_json_and_is_repeated(tmp_path, text):
    trace = tmp_path / "trace"
    trace.write_text(text)
    assert traced_shapes(trace, None) == [Shape(5, 2), Shape(7, 3)]
    assert traced_shapes(trace, 3) == [Shape(5, 2), Shape(7, 3), Shape(5, 2)]


@pytest.mark.parametrize("text, complaint", [
    ("", "is empty"), ("a,b\n1,2\n", "in its row 1"),
    ("prompt_tokens,output_tokens\n1,1\n0,2\n", "in its row 2"), ("{\n", "in its row 1"),
    ("[1]\n", "is empty"), ("{}\n[]\n", "in its row 1")])
def test_a_bad_trace_is_told_with_its_row(tmp_path, text, complaint):
    trace = tmp_path / "trace"
    trace.write_text(text)
    with pytest.raises(WorkloadError, match=complaint):
        traced_shapes(trace, None)


def test_prompts_share_their_prefix_and_differ_behind_it():
    one, two = requests_of([Shape(4, 2), Shape(6, 3)], 1000, shared_prefix=5, seed=1)
    assert one.prompt[:5] == two.prompt[:5] and one.prompt[5:] != two.prompt[5:9]
    assert (len(one.prompt), len(two.prompt), two.max_tokens) == (9, 11, 3)
    assert one.stop_ids == frozenset()


def test_a_percentile_is_a_value_that_was_measured():
    values = [float(index) for index in range(1, 101)]
    assert [percentile(values, it) for it in (50, 90, 99, 100)] == [50.0, 90.0, 99.0, 100.0]
    assert percentile([3.0], 50) == 3.0
    assert summary([]) == {"p50": None, "p90": None, "p99": None, "mean": None, "max": None}


def test_times_are_counted_from_the_request_and_from_its_first_token():
    served = Served(1.0, 1.5, 3.5, 10, 4, 5)
    assert (served.ttft_ms, served.tpot_ms, served.latency_ms) == (500.0, 500.0, 2500.0)
    assert Served(1.0, 1.5, 1.5, 10, 0, 1).tpot_ms is None


def test_the_work_of_replicas_adds_up():
    work = sum_of([Work(steps=2, busy_s=1.0, device_s=0.5), Work(steps=3, busy_s=3.0, device_s=3.0)])
    assert (work.steps, work.device_share) == (5, 0.875)
    assert sum_of([]) == Work() and Work().device_share == 0.0


def test_a_run_without_any_answer_has_figures_too():
    report = Figures((), ("no", "no"), 1.0, Work()).report()
    assert (report["ok"], report["failed"], report["failures"]) == (0, 2, ["no"])
    assert report["ttft_ms"]["p50"] is None


def test_a_run_prints_a_table_of_80_columns(server, capsys):
    assert bench(server, "--clients", "4", "--requests", "12") == 0
    output = capsys.readouterr().out
    for part in ("12 ok, 0 failed", "first token", "per token", "whole request", "p99",
                 "tokens/s generated", "device"):
        assert part in output
    assert max(map(len, output.splitlines())) <= 80
    assert "\033" not in output
    assert not server.sequences


def test_the_json_report_has_every_figure_and_stands_alone(server, capsys):
    assert bench(server, "--requests", "5", "--json") == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["ok"], report["failed"], report["replicas"]) == (5, 0, 1)
    assert report["generated_tokens"] == sum(
        shape.output_tokens for shape in drawn_shapes(5, Lengths(2, 20), Lengths(3, 9), 0))
    assert report["steps"] > 0 and 0 < report["device_share"] < 1
    assert "first token" in captured.err


def test_a_shared_prefix_is_computed_once(server, capsys):
    assert bench(server, "--clients", "1", "--requests", "4", "--shared-prefix", "40",
                 "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["reused_tokens"] >= 3 * 40
    assert report["prefilled_tokens"] == report["prompt_tokens"] - report["reused_tokens"]


def test_failed_requests_are_counted_and_told_and_the_status_is_1(server, capsys):
    def refuse(request):
        raise Refused(StatusCode.INTERNAL, "rank 1 is broken", "RANK_FAILED")

    server.faults = refuse
    assert bench(server, "--requests", "3") == 1
    assert "0 ok, 3 failed" in (output := capsys.readouterr().out)
    assert "3 x rank 1 is broken" in output


def test_a_resize_in_the_middle_fails_nothing(server, capsys):
    steps = []

    def change_epoch(request):
        steps.append(request)
        if len(steps) in (5, 15):
            server.epoch += 1
            if len(steps) == 15:
                server.sequences.clear()

    server.faults = change_epoch
    assert bench(server, "--clients", "4", "--requests", "16") == 0
    assert "16 ok, 0 failed" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib")
def test_a_plot_is_written(server, tmp_path, capsys):
    picture = tmp_path / "figures.png"
    assert bench(server, "--requests", "5", "--plot", str(picture)) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name, complaint", [
    ("x.txt", "must end in .png"), ("nowhere/x.png", "is no directory that can be written")])
def test_a_plot_that_cannot_be_is_told_before_the_run(server, tmp_path, capsys, name, complaint):
    assert bench(server, "--plot", str(tmp_path / name)) == 1
    error = capsys.readouterr().err
    assert error.startswith("muster: ") and complaint in error and error.count("\n") == 1
    assert not server.forwards


def test_without_a_fleet_it_says_what_to_do(capsys):
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("muster: no fleet is known here: start one")


def test_a_model_or_a_size_asks_for_a_fleet_of_its_own():
    assert not parse([]).own_fleet
    assert parse(["--replicas", "2"]).own_fleet and parse(["--model", "m"]).own_fleet
    options = parse(["--replicas", "2", "--cp", "4"]).fleet(Path("m"))
    assert (options.replicas, options.cp, options.tp, options.dtype) == (2, 4, 1, "auto")


@pytest.mark.parametrize("words, complaint", [
    (["--clients", "0"], "from 1"), (["--prompt-lengths", "9-3"], "like 32-256"),
    (["--output-lengths", "x"], "like 32-256"),
    (["--coordinator", "a:1", "--cp", "2"], "--coordinator names a fleet that runs")])
def test_a_wrong_command_line_is_one_line_and_status_2(words, complaint, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("muster: ") and error.count("\n") == 1 and complaint in error


def test_the_fakes_vocabulary_holds_what_is_drawn():
    (request,) = requests_of([Shape(50, 1)], VOCABULARY, 0, 0)
    assert max(request.prompt) < VOCABULARY
