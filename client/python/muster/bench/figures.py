"""What a run of the benchmark measured, and what follows from it."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from muster.bench.resizes import Resize, When, split_times

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Served:
    """A request that was answered. Seconds since the run began.

    Attributes:
      prompt_tokens: of its prompt, `reused_tokens` of which did not run.
      tokens: generated.
      arrivals: when each of them came, where that is wanted.
    """

    submitted: float
    first_token: float
    ended: float
    prompt_tokens: int
    reused_tokens: int
    tokens: int
    arrivals: tuple[float, ...] = ()

    @property
    def ttft_ms(self) -> float:
        """Time to first token."""
        return (self.first_token - self.submitted) * 1e3

    @property
    def tpot_ms(self) -> float | None:
        """Time per output token after the first; None if there was only one."""
        return (self.ended - self.first_token) * 1e3 / (self.tokens - 1) if self.tokens > 1 else None

    @property
    def latency_ms(self) -> float:
        return (self.ended - self.submitted) * 1e3


@dataclass(frozen=True)
class Work:
    """What the schedulers of all replicas did; see muster.scheduler.Statistics."""

    steps: int = 0
    busy_s: float = 0.0
    device_s: float = 0.0
    queue_s: float = 0.0
    relay_s: float = 0.0
    prefilled_tokens: int = 0
    refusals: int = 0
    preemptions: int = 0
    rebuilds: int = 0

    @property
    def device_share(self) -> float:
        """Share of the time with unfinished requests in which the devices ran a step."""
        return self.device_s / self.busy_s if self.busy_s else 0.0


@dataclass(frozen=True)
class Figures:
    """A whole run.

    Attributes:
      resizes: changes of shape meanwhile; None where nobody looked for them.
    """

    served: tuple[Served, ...]
    failures: tuple[str, ...]
    wall_s: float
    work: Work
    resizes: tuple[Resize, ...] | None = None

    @property
    def generated_tokens(self) -> int:
        return sum(it.tokens for it in self.served)

    @property
    def prompt_tokens(self) -> int:
        return sum(it.prompt_tokens for it in self.served)

    @property
    def reused_tokens(self) -> int:
        return sum(it.reused_tokens for it in self.served)

    @property
    def tokens_per_second(self) -> float:
        """Generated."""
        return self.generated_tokens / self.wall_s if self.wall_s else 0.0

    def ttft_ms(self) -> list[float]:
        return sorted(it.ttft_ms for it in self.served)

    def tpot_ms(self) -> list[float]:
        return sorted(it.tpot_ms for it in self.served if it.tpot_ms is not None)

    def token_times(self) -> dict[When, list[float]]:
        """Milliseconds between tokens, by what of a change of shape they overlap."""
        return split_times([it.arrivals for it in self.served], self.resizes or ())

    def latency_ms(self) -> list[float]:
        return sorted(it.latency_ms for it in self.served)

    def report(self) -> dict[str, Any]:
        """Every figure, with its unit in its name; times that were not measured are None."""
        return self._report() | self._resizes()

    def _resizes(self) -> dict[str, Any]:
        if self.resizes is None:
            return {}
        times = {when: summary(values) for when, values in self.token_times().items()}
        return {"resizes": [it.report() for it in self.resizes], "token_ms": times}

    def _report(self) -> dict[str, Any]:
        work = self.work
        return {
            "requests": len(self.served) + len(self.failures),
            "ok": len(self.served),
            "failed": len(self.failures),
            "failures": sorted(set(self.failures)),
            "wall_s": round(self.wall_s, 3),
            "prompt_tokens": self.prompt_tokens,
            "reused_tokens": self.reused_tokens,
            "generated_tokens": self.generated_tokens,
            "tokens_per_second": round(self.tokens_per_second, 3),
            "total_tokens_per_second": round(
                (self.prompt_tokens + self.generated_tokens) / self.wall_s, 3)
            if self.wall_s else 0.0,
            "ttft_ms": summary(self.ttft_ms()),
            "tpot_ms": summary(self.tpot_ms()),
            "latency_ms": summary(self.latency_ms()),
            "steps": work.steps,
            "busy_s": round(work.busy_s, 3),
            "device_s": round(work.device_s, 3),
            "queue_s": round(work.queue_s, 3),
            "relay_s": round(work.relay_s, 3),
            "device_share": round(work.device_share, 4),
            "prefilled_tokens": work.prefilled_tokens,
            "refused_steps": work.refusals,
            "preemptions": work.preemptions,
            "rebuilt_sequences": work.rebuilds,
        }


def percentile(values: Sequence[float], percent: int) -> float:
    """Of sorted values, at least one: the smallest that `percent` % of them do not exceed."""
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Percentiles, mean and largest of sorted values."""
    names = [f"p{percent}" for percent in PERCENTILES]
    if not values:
        return dict.fromkeys([*names, "mean", "max"])
    figures: list[float] = [percentile(values, percent) for percent in PERCENTILES]
    figures += [sum(values) / len(values), values[-1]]
    return {name: round(figure, 3) for name, figure in zip([*names, "mean", "max"], figures)}


def sum_of(works: Iterable[Work]) -> Work:
    return Work(*(sum(column) for column in zip(*map(astuple, works))))
