"""The figures of a run for people."""

from collections.abc import Sequence

from muster.bench.figures import PERCENTILES, Figures, percentile
from muster.bench.resizes import Resize
from muster.paper import Paper


def print_figures(figures: Figures, paper: Paper) -> None:
    """A table that fits 80 columns."""
    paper.fact("requests", f"{len(figures.served):,} ok, {len(figures.failures):,} failed in "
                           f"{_seconds(figures.wall_s)}")
    for why in sorted(set(figures.failures))[:3]:
        paper.fact("", f"{figures.failures.count(why):,} x {why}")
    if not figures.served:
        return
    paper.fact("tokens", f"{figures.prompt_tokens:,} of prompts ({figures.reused_tokens:,} reused), "
                         f"{figures.generated_tokens:,} generated")
    paper.line()
    heads = [f"p{percent}" for percent in PERCENTILES] + ["max"]
    paper.line("  " + f"{'':<16}" + "".join(f"{head:>13}" for head in heads))
    for label, values in (("first token", figures.ttft_ms()), ("per token", figures.tpot_ms()),
                          ("whole request", figures.latency_ms())):
        paper.line("  " + f"{label:<16}" + "".join(f"{cell:>13}" for cell in _cells(values)))
    paper.line()
    work = figures.work
    total = (figures.prompt_tokens + figures.generated_tokens) / figures.wall_s
    paper.fact("speed", f"{figures.tokens_per_second:,.1f} tokens/s generated, {total:,.1f} with "
                        "prompts")
    if work.steps:
        rows = (work.prefilled_tokens + figures.generated_tokens) / work.steps
        paper.fact("steps", f"{work.steps:,} of {rows:,.1f} tokens and "
                            f"{_milliseconds(work.device_s / work.steps * 1e3)} each")
        paper.fact("device", f"at work {work.device_share:.1%} of the time with requests: so much "
                             "of the")
        paper.fact("", "tokens/s that its steps allow was reached")
    _print_resizes(figures, paper)
    odd = [f"{count:,} {what}" for count, what in (
        (work.refusals, "steps refused"), (work.preemptions, "requests put back"),
        (work.rebuilds, "sequences built anew")) if count]
    if odd:
        paper.fact("retries", ", ".join(odd))


def _print_resizes(figures: Figures, paper: Paper) -> None:
    if figures.resizes is None:
        return
    if not figures.resizes:
        paper.fact("resizes", "none during the run")
        return
    paper.line()
    heads = [f"p{percent}" for percent in PERCENTILES] + ["max"]
    paper.line("  " + f"{'between tokens':<16}" + "".join(f"{head:>13}" for head in heads))
    times = figures.token_times()
    for label, values in (("  undisturbed", times["outside"]), ("  preparing", times["prepare"]),
                          ("  over a pause", times["pause"])):
        paper.line("  " + f"{label:<16}" + "".join(f"{cell:>13}" for cell in _cells(values)))
    paper.line()
    paper.line(f"  {'resize':<14}{'at':>10}{'prepare':>12}{'pause':>12}{'moved':>14}{'kept':>12}")
    for resize in figures.resizes:
        paper.line(_resize_row(resize))


def _resize_row(resize: Resize) -> str:
    facts = resize.facts
    at = _seconds(resize.ended)
    if facts is None or resize.in_force is None:
        return f"  {'rolled back' if resize.in_force is None else 'cp ?':<14}{at:>10}"
    change = f"cp {facts.from_config.cp} → {facts.to_config.cp}"
    return (f"  {change:<14}{at:>10}{_milliseconds(facts.prepare_ms):>12}"
            f"{_milliseconds(facts.pause_ms):>12}{f'{facts.kv_blocks_moved:,} blocks':>14}"
            f"{f'{facts.kv_blocks_kept:,}':>12}")


def _cells(values: Sequence[float]) -> list[str]:
    if not values:
        return ["-"] * (len(PERCENTILES) + 1)
    return [_milliseconds(percentile(values, percent)) for percent in (*PERCENTILES, 100)]


def _milliseconds(value: float) -> str:
    return f"{value:,.1f} ms" if value < 1000 else _seconds(value / 1e3)


def _seconds(value: float) -> str:
    return f"{value:,.2f} s" if value < 100 else f"{value:,.0f} s"
