"""The benchmark beside changes of shape: which tokens they touch, and what is told of them."""

import asyncio
import json
import signal
import threading
from dataclasses import replace

import pytest
from fake_fleet import FakeFleet
from muster import aio
from muster.bench.figures import Figures, Served, Work
from muster.bench.resizes import Resize, Watcher, resizes_of, split_times
from muster.bench.run import main
from muster.client import Fleet
from muster.values import Event, Operation, ParallelConfig, ReplicaResize

FACTS = ReplicaResize(
    0, "DONE", 1, 2, ParallelConfig(cp=2), ParallelConfig(cp=4), (), 900.0, 200.0, 21, 20, 4096)


@pytest.fixture
def server():
    server = FakeFleet(rows=64, slices=16)
    yield server
    server.go_on.set()
    server.stop()


@pytest.fixture(autouse=True)
def handlers():
    kept = {it: signal.getsignal(it) for it in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def event(kind: str, operation: str = "a", replica: int | None = 0) -> Event:
    return Event(1, kind, replica, 2, None, "", "", "", operation_id=operation)


def operation(*resizes: ReplicaResize) -> Operation:
    return Operation("a", "SCALE_CONTEXT_PARALLEL", "DONE", "cp 2 to 4", resizes, None, 0.0, 1.0)


def test_a_resize_lasts_from_its_operation_to_the_news_of_its_epoch():
    heard = [(event("OPERATION_STARTED", replica=None), 1.0), (event("RESIZE_PROGRESS"), 1.5),
             (event("RESIZED"), 2.0), (event("OPERATION_ENDED", replica=None), 2.1)]
    assert resizes_of(heard, [operation(FACTS)]) == [Resize(1.0, 2.0, 2.0, FACTS)]


def test_replicas_have_their_turns_and_one_may_be_rolled_back():
    heard = [(event("OPERATION_STARTED"), 1.0), (event("RESIZED"), 2.0),
             (event("ROLLED_BACK", replica=1), 3.0)]
    assert resizes_of(heard, []) == [Resize(1.0, 2.0, 2.0, None), Resize(2.0, None, 3.0, None)]


def test_times_between_tokens_are_split_by_what_they_overlap():
    resize = Resize(1.0, 2.0, 2.0, FACTS)
    tokens = [0.5, 0.9, 1.1, 1.5, 1.95, 2.1, 2.5]
    times = split_times([tokens, [3.0, 3.1]], [resize])
    assert {when: len(values) for when, values in times.items()} == {
        "outside": 3, "prepare": 2, "pause": 2}
    assert max(times["pause"]) == pytest.approx(450.0)
    assert split_times([tokens], [])["outside"][-1] == pytest.approx(450.0)


def test_the_report_has_resizes_only_where_they_were_looked_for():
    served = (Served(0.0, 0.5, 2.5, 5, 0, 3, (0.5, 1.2, 2.5)),)
    assert "resizes" not in Figures(served, (), 3.0, Work()).report()
    report = Figures(served, (), 3.0, Work(), (Resize(1.0, 2.0, 2.0, FACTS),)).report()
    assert report["resizes"] == [{
        "begun_s": 1.0, "ended_s": 2.0, "rolled_back": False, "replica": 0, "from_cp": 2,
        "to_cp": 4, "epoch": 2, "prepare_ms": 900.0, "pause_ms": 200.0, "kv_bytes_moved": 4096,
        "kv_blocks_moved": 21, "kv_blocks_kept": 20, "sequences": 0}]
    assert report["token_ms"]["pause"]["max"] == 1300.0
    assert report["token_ms"]["outside"]["p50"] is None


def test_what_the_coordinator_forgets_while_the_benchmark_runs_is_known_in_its_end(server):
    async def watch() -> list[Resize]:
        async with aio.Fleet(server.address) as fleet, Watcher(fleet) as watcher:
            await fleet.scale_context_parallel(4)
            async with asyncio.timeout(20):
                while not server.listed:
                    await asyncio.sleep(0.01)
            server.kept = 0
            return await watcher.resizes(0.0)

    (resize,) = asyncio.run(watch())
    assert resize.facts and resize.facts.kv_blocks_moved == 21


class ResizesWhileAsked:
    """A fleet whose change comes into force just after it has said that it is being prepared."""

    def __init__(self):
        self.news: asyncio.Queue[Event] = asyncio.Queue()

    async def heard(self) -> None:
        while not self.news.empty():
            await asyncio.sleep(0)

    async def events(self, _: int = 1, follow: bool = False):
        while follow:
            yield await self.news.get()

    async def operations(self) -> list[Operation]:
        self.news.put_nowait(event("RESIZED"))
        await self.heard()
        return [operation(replace(FACTS, stage="PREPARING", kv_blocks_moved=0))]


def test_a_change_that_ends_while_the_coordinator_is_asked_is_not_told_half():
    async def ask() -> list[Resize]:
        fleet = ResizesWhileAsked()
        async with Watcher(fleet) as watcher:
            fleet.news.put_nowait(event("OPERATION_STARTED"))
            await fleet.heard()
            return await watcher.resizes(0.0)

    assert asyncio.run(ask()) == []


def bench_with_resize(server: FakeFleet, *words: str) -> int:
    """Runs a benchmark amidst which cp becomes 4."""
    begun = threading.Event()

    def scale_once(request: object) -> None:
        if len(server.forwards) == 10:
            begun.set()

    def scale() -> None:
        begun.wait(20)
        with Fleet(server.address) as fleet:
            fleet.scale_context_parallel(4)

    server.faults = scale_once
    thread = threading.Thread(target=scale)
    thread.start()
    try:
        return main(["--coordinator", server.address, "--prompt-lengths", "2-20",
                     "--output-lengths", "30-40", "--clients", "4", "--requests", "40",
                     "--resizes", *words])
    finally:
        thread.join(20)


def test_a_run_amidst_a_resize_fails_nothing_and_tells_of_it(server, capsys):
    assert bench_with_resize(server) == 0
    output = capsys.readouterr().out
    for part in ("40 ok, 0 failed", "between tokens", "undisturbed", "over a pause", "cp 2 → 4",
                 "21 blocks"):
        assert part in output
    assert max(map(len, output.splitlines())) <= 80


def test_the_json_report_has_the_resize(server, capsys):
    assert bench_with_resize(server, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    (resize,) = report["resizes"]
    assert (report["failed"], resize["from_cp"], resize["to_cp"]) == (0, 2, 4)
    assert set(report["token_ms"]) == {"outside", "prepare", "pause"}


def test_a_run_without_one_says_so(server, capsys):
    assert main(["--coordinator", server.address, "--requests", "3", "--output-lengths", "3",
                 "--resizes"]) == 0
    assert "none during the run" in capsys.readouterr().out
