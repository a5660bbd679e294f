"""The figures of a run as a picture."""

import os
from pathlib import Path

from muster.bench.figures import Figures

_SUFFIXES = (".png", ".svg", ".pdf")


class PlotError(Exception):
    """There can be no such picture; the text tells a person why."""


def check(path: Path) -> None:
    """Raises PlotError if `draw` could not write there; better known before a long run."""
    if path.suffix not in _SUFFIXES:
        raise PlotError(f"cannot draw {path}: its name must end in {', '.join(_SUFFIXES)}")
    folder = path.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PlotError(f"cannot draw {path}: {folder} is no directory that can be written")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise PlotError("drawing needs matplotlib: client/python/requirements.txt has it") from None


def draw(figures: Figures, title: str, path: Path) -> None:
    """Shares of requests over their times, and generated tokens over the run."""
    # It takes a second to load, and only those who want a picture need it.
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 3.6), layout="constrained")
    picture.suptitle(title)
    axes = picture.subplots(1, 4)
    for place, (name, values) in enumerate((
            ("first token", figures.ttft_ms()), ("per token", figures.tpot_ms()),
            ("whole request", figures.latency_ms()))):
        shares = [(index + 1) / len(values) for index in range(len(values))]
        axes[place].step(values, shares, where="post")
        axes[place].set(title=name, xlabel="ms", ylim=(0, 1.02))
        axes[place].set_xlim(left=0)
        for share in (0.5, 0.9, 0.99):
            axes[place].axhline(share, linewidth=0.5, color="gray")
    axes[0].set_ylabel("share of requests")
    ends = sorted((it.ended, it.tokens) for it in figures.served)
    done, totals = 0, []
    for _, tokens in ends:
        done += tokens
        totals.append(done)
    axes[3].step([end for end, _ in ends], totals, where="post")
    axes[3].set(title=f"{figures.tokens_per_second:,.0f} tokens/s", xlabel="s",
                ylabel="tokens of ended requests")
    for axis in axes:
        axis.grid(alpha=0.3)
    try:
        picture.savefig(path)
    except OSError as error:
        raise PlotError(f"cannot write {path}: {error.strerror}") from None
