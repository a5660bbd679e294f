"""From the command line to the figures."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from muster.aio import Fleet
from muster.bench import plot
from muster.bench.arguments import Arguments, parse
from muster.bench.figures import Figures, Served, Work, sum_of
from muster.bench.resizes import Watcher
from muster.bench.table import print_figures
from muster.bench.workload import (
    Shape, WorkloadError, drawn_shapes, requests_of, traced_shapes)
from muster.coordinator import FleetAddress, find_fleet
from muster.demo_model import DemoModelError, demo_model
from muster.errors import MusterError
from muster.fleet_process import FleetError, FleetProcess
from muster.paper import Paper
from muster.scheduler import Generation, Options, Request, Router, Scheduler
from muster.values import Model, ReplicaStatus


def main(words: list[str]) -> int:
    """Returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    arguments = parse(words)
    paper = Paper(sys.stderr if arguments.json else sys.stdout)
    try:
        if arguments.plot is not None:
            plot.check(arguments.plot)
        shapes = _shapes(arguments)
        paper.title("muster bench")
        with _fleet_process(arguments, paper) as process:
            if process is None:
                address = find_fleet(arguments.coordinator, arguments.tls)
                return asyncio.run(_run(arguments, shapes, address, paper))
            event = process.await_event("serving")
            address = FleetAddress(event["coordinator"], event.get("tls", ""))
            return asyncio.run(
                _while_it_lives(process, _run(arguments, shapes, address, paper)))
    except (DemoModelError, FleetError, MusterError, WorkloadError, plot.PlotError) as error:
        sys.stdout.flush()
        print(f"muster: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("muster: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Nobody reads on. What Python would still flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _shapes(arguments: Arguments) -> list[Shape]:
    if arguments.trace is not None:
        return traced_shapes(arguments.trace, arguments.requests)
    return drawn_shapes(
        arguments.requests or 1, arguments.prompts, arguments.outputs, arguments.seed)


@contextmanager
def _fleet_process(arguments: Arguments, paper: Paper) -> Iterator[FleetProcess | None]:
    """A fleet that lives as long as this; None where one is used that runs already."""
    if not arguments.own_fleet:
        yield None
        return
    model = arguments.model or demo_model(lambda line: paper.line(f"  {line}"))
    with FleetProcess(arguments.fleet(model), paper.stream) as process:
        yield process


async def _while_it_lives(process: FleetProcess, work: Coroutine[Any, Any, int]) -> int:
    """Runs `work`; raises FleetError as soon as a part of the fleet has ended."""
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(work)
    ended: list[str] = []

    def stop(why: str) -> None:
        ended.append(why)
        running.cancel()

    def watch() -> None:
        why = "the fleet has ended"
        while (event := process.next_event()) is not None:
            if event["event"] == "failed":
                why = str(event["message"])
                break
            if event["event"] == "process_ended":
                why = f"{event['name']} {event['message']}"
                break
        with suppress(RuntimeError):  # The loop is closed: all is done.
            loop.call_soon_threadsafe(stop, why)

    # A daemon: nothing waits for it.
    threading.Thread(target=watch, daemon=True).start()
    try:
        return await running
    except asyncio.CancelledError:
        if not ended:
            raise
        raise FleetError(ended[0]) from None


async def _run(arguments: Arguments, shapes: list[Shape], address: FleetAddress, paper: Paper) -> int:
    """Returns the exit status."""
    _cancel_on_signals()
    options = Options(arguments.rows, arguments.keep_prefixes, arguments.lanes)
    # Where nobody listens it says so at once; later on, who was there may be back.
    async with Fleet(address.coordinator, patience=0, tls=address.tls) as fleet:
        serving = [it for it in await fleet.replicas() if it.state == "SERVING"]
    if not serving:
        raise MusterError("no replica of the fleet serves (musterctl status tells why)")
    async with Fleet(address.coordinator, tls=address.tls) as fleet:
        async with Router(fleet, options) as router:
            await router.ready(len(serving))
            model = next(iter(router.schedulers.values())).model
            requests = requests_of(
                shapes, model.vocabulary, arguments.shared_prefix, arguments.seed)
            _introduce(arguments, shapes, model, serving, paper)
            figures = await _measure(arguments, fleet, router, requests)
    print_figures(figures, paper)
    if arguments.plot is not None:
        title = f"{model.name}, {arguments.clients} clients, {_fleet(serving)}"
        plot.draw(figures, title, arguments.plot)
        paper.fact("plot", str(arguments.plot))
    if arguments.json:
        print(json.dumps(_about(arguments, model, serving) | figures.report()), flush=True)
    return 1 if figures.failures else 0


async def _measure(arguments: Arguments, fleet: Fleet, router: Router,
                   requests: list[Request]) -> Figures:
    if not arguments.resizes:
        return await load(router, requests, arguments.clients)
    async with Watcher(fleet) as watcher:
        start = time.perf_counter()
        figures = await load(router, requests, arguments.clients, start)
        return replace(figures, resizes=tuple(await watcher.resizes(start)))


def _cancel_on_signals() -> None:
    """A signal ends the run as a cancellation, so that what is held is given back."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def load(router: Router, requests: list[Request], clients: int,
               start: float | None = None) -> Figures:
    """Has clients send the requests, each its next one when its last one has ended.

    Args:
      router: answers them.
      requests: in their order.
      clients: how many are under way at once.
      start: from which times are counted, of time.perf_counter; None: from now.
    """
    waiting = deque(requests)
    served: list[Served] = []
    failures: list[str] = []
    start = time.perf_counter() if start is None else start

    async def run_client() -> None:
        while waiting:
            generation = router.submit(waiting.popleft())
            try:
                await generation.wait()
                served.append(_served(generation, start))
            except MusterError as error:
                failures.append(str(error))

    await asyncio.gather(*(run_client() for _ in range(min(clients, len(requests)))))
    wall_s = time.perf_counter() - start
    schedulers = [*router.schedulers.values(), *router.retired]
    return Figures(
        tuple(served), tuple(failures), wall_s, sum_of([_work(it) for it in schedulers]))


def _served(generation: Generation, start: float) -> Served:
    return Served(
        generation.submitted - start, generation.first_token - start, generation.ended - start,
        len(generation.job.request.prompt), generation.reused, len(generation.tokens),
        tuple(at - start for at in generation.arrivals))


def _work(scheduler: Scheduler) -> Work:
    statistics, counters = scheduler.statistics, scheduler.counters
    return Work(
        statistics.steps, statistics.busy_s, statistics.device_s, statistics.queue_s,
        statistics.relay_s, counters.prefilled, counters.refusals, counters.preemptions,
        counters.rebuilds)


def _introduce(arguments: Arguments, shapes: list[Shape], model: Model,
               serving: list[ReplicaStatus], paper: Paper) -> None:
    lengths = f"lengths of {arguments.trace.name}" if arguments.trace else (
        f"prompts {arguments.prompts}, outputs {arguments.outputs} tokens")
    if arguments.shared_prefix:
        lengths += f", {arguments.shared_prefix:,} shared"
    paper.line()
    paper.fact("model", f"{model.name}, {model.dtype}, on {_fleet(serving)}")
    paper.fact("load", f"{arguments.clients:,} clients, {len(shapes):,} requests, {lengths}")


def _fleet(serving: list[ReplicaStatus]) -> str:
    config = serving[0].config
    count = len(serving)
    return f"{count} replica{'s' if count > 1 else ''} of tp={config.tp} cp={config.cp}"


def _about(arguments: Arguments, model: Model, serving: list[ReplicaStatus]) -> dict[str, object]:
    config = serving[0].config
    return {
        "model": model.name, "dtype": model.dtype, "replicas": len(serving), "tp": config.tp,
        "cp": config.cp, "clients": arguments.clients, "seed": arguments.seed,
        "shared_prefix_tokens": arguments.shared_prefix}
