"""The figures of a run for people."""

from collections.abc import Sequence

from muster.bench.figures import PERCENTILES, Figures, percentile
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
    odd = [f"{count:,} {what}" for count, what in (
        (work.refusals, "steps refused"), (work.preemptions, "requests put back"),
        (work.rebuilds, "sequences built anew")) if count]
    if odd:
        paper.fact("retries", ", ".join(odd))


def _cells(values: Sequence[float]) -> list[str]:
    if not values:
        return ["-"] * (len(PERCENTILES) + 1)
    return [_milliseconds(percentile(values, percent)) for percent in (*PERCENTILES, 100)]


def _milliseconds(value: float) -> str:
    return f"{value:,.1f} ms" if value < 1000 else _seconds(value / 1e3)


def _seconds(value: float) -> str:
    return f"{value:,.2f} s" if value < 100 else f"{value:,.0f} s"
