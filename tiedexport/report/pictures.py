"""Charts, drawn once and written as PNG, or as SVG that takes its colours from the page."""

from __future__ import annotations

import io
import math
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport import atomic
from tiedexport.report.images import mosaic, require_matplotlib
from tiedexport.report.tables import contender, seconds, size, tail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tiedexport.report.storage import Storage
    from tiedexport.results import BenchResult, Latency, VerifyResult

INK, MUTED, GRID, PAPER = "#1b1f24", "#59636e", "#d8dde3", "#fefefe"
SERIES = ("#0b6bcb", "#c4501b", "#0f8a5f", "#8a3ffc", "#b28600", "#c2185b", "#0e7c86", "#6b7078")
CSS_NAMES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)},
}
"""Each colour of a chart and the custom property of the page that replaces it in SVG."""

_LINES = {"fp32": "-", "fp16": "--", "bf16": ":"}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "tiedexport",
    "savefig.facecolor": PAPER,
}


@contextmanager
def canvas(height: float, columns: int = 1, width: float = 4.6) -> Iterator[tuple[Figure, Any]]:
    """A figure of `columns` axes in the house style, in inches; no window, no global state.

    Raises:
        MissingRuntimeError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(1, columns, squeeze=False)[0]


def png(figure: Figure) -> bytes:
    """The figure as PNG on paper white, the same bytes every time."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element for a page that defines the properties of `CSS_NAMES`.

    `name` is unique in the page; it prefixes every id.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in CSS_NAMES.items():
        text = text.replace(colour, f"var({variable})")
    return text.strip()


def storage_chart(accounts: Sequence[Storage]) -> Figure:
    """Bytes stored a precision against bytes needed, and against one copy a use."""
    with canvas(0.75 + 0.62 * len(accounts)) as (figure, (axes,)):
        for row, account in enumerate(accounts):
            axes.barh(row - 0.17, account.stored_bytes, 0.3, color=SERIES[0])
            axes.barh(row + 0.17, account.one_copy_a_use_bytes, 0.3, color=GRID)
            for offset, length, label in (
                (-0.17, account.stored_bytes, f"stored: {account.ratio:.3f} × needed"),
                (0.17, account.one_copy_a_use_bytes, "with one copy a use"),
            ):
                axes.annotate(
                    f"{size(length)} {label}",
                    (length, row + offset),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8.5,
                )
        axes.set_yticks(range(len(accounts)), [str(account.precision) for account in accounts])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.9 * max(account.one_copy_a_use_bytes for account in accounts))
        axes.set_xticks([])
        axes.grid(visible=False)
    return figure


def error_chart(result: VerifyResult) -> Figure | None:
    """The worst error of every row that ran, in units of its derived bound; None if none ran."""
    ran = [row for row in result.comparisons if math.isfinite(row.error_in_bounds or math.nan)]
    if not ran:
        return None
    names = list(dict.fromkeys(map(contender, ran)))
    stages = list(dict.fromkeys(row.stage for row in ran))
    with canvas(1.0 + 0.3 * len(names)) as (figure, (axes,)):
        for index, stage in enumerate(stages):
            here = [row for row in ran if row.stage == stage]
            axes.plot(
                [max(row.error_in_bounds or 0.0, 1e-6) for row in here],
                [names.index(contender(row)) for row in here],
                _MARKERS[index % len(_MARKERS)],
                color=SERIES[index % len(SERIES)],
                label=stage,
                alpha=0.85,
            )
        axes.axvline(1.0, color=SERIES[1], linewidth=1.2)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 0.01), max(high, 3.0))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("worst error / bound")
        _legend(figure, axes)
    return figure


def latency_chart(result: BenchResult, stage: str) -> Figure | None:
    """Median seconds a call against batch size, log axes, whiskers up to the tail percentile."""
    ran = [row for row in result.latencies if row.stage == stage and row.status == "passed"]
    if not ran:
        return None
    runtimes = list(dict.fromkeys(row.runtime for row in ran))
    require_matplotlib()
    from matplotlib import ticker

    with canvas(3.1) as (figure, (axes,)):
        for name in dict.fromkeys(map(contender, ran)):
            line = sorted((r for r in ran if contender(r) == name), key=lambda row: row.batch)
            _latency_line(axes, name, line, runtimes.index(line[0].runtime))
        axes.set(xscale="log", yscale="log", xlabel="batch size")
        batches = sorted({row.batch for row in ran})
        axes.set_xticks(batches, list(map(str, batches)))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        low, high = axes.get_ylim()
        steps = (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=steps))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.yaxis.set_major_formatter(
            lambda value, _: seconds(value).replace(".00", "").replace(".0", "")
        )
        axes.set_title(f"{stage}: seconds a call, median to {tail(ran[0])[0]}")
        _legend(figure, axes)
    return figure


def _latency_line(axes: Axes, name: str, line: Sequence[Latency], runtime: int) -> None:
    colour = SERIES[runtime % len(SERIES)]
    batches = [row.batch for row in line]
    medians = np.array([row.median_s or np.nan for row in line])
    tails = np.array([tail(row)[1] or np.nan for row in line])
    axes.vlines(batches, medians, np.fmax(tails, medians), color=colour, linewidth=1, alpha=0.5)
    style = _LINES.get(str(line[0].precision), "-")
    marker = _MARKERS[runtime % len(_MARKERS)]
    filling = PAPER if line[0].memory == "packed" else colour
    axes.plot(
        batches, medians, style, marker=marker, color=colour, label=name, markerfacecolor=filling
    )


def training_chart(train_loss: Sequence[float], validation_rmse: Sequence[float]) -> Figure:
    """Training loss and validation RMSE by epoch, the best epoch marked."""
    with canvas(2.4, columns=2) as (figure, (left, right)):
        for axes, values, title, colour in (
            (left, train_loss, "training loss", SERIES[0]),
            (right, validation_rmse, "validation RMSE", SERIES[2]),
        ):
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, color=colour, marker="o" if len(values) < 3 else "")
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.locator_params(axis="x", nbins=5, integer=True)
        if finite := [value for value in validation_rmse if value == value]:
            best = list(validation_rmse).index(min(finite))
            right.plot(best + 1, min(finite), "o", color=SERIES[1])
            right.set_xlabel(f"epoch (best: {min(finite):.4f} at {best + 1})")
    return figure


def grid_chart(rows: Mapping[str, np.ndarray]) -> Figure:
    """Rows of images under one another, each with its label."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    strips = {label: mosaic(images) for label, images in rows.items()}
    height = sum(7.0 * strip.shape[0] / strip.shape[1] + 0.25 for strip in strips.values())
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.0, height), layout="constrained")
        for axes, (label, strip) in zip(
            figure.subplots(len(strips), 1, squeeze=False)[:, 0], strips.items(), strict=True
        ):
            axes.imshow(_opaque(strip), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(label)
            axes.set_axis_off()
    return figure


def _opaque(strip: np.ndarray) -> np.ndarray:
    """White gaps: matplotlib draws NaN as transparent in grey images only."""
    return np.where(np.isnan(strip), 1.0, strip)


def training_curves(
    path: Path, train_loss: Sequence[float], validation_rmse: Sequence[float]
) -> None:
    """Write training loss and validation RMSE by epoch as a PNG.

    Raises:
        MissingRuntimeError: matplotlib is not installed.
    """
    atomic.write(path, png(training_chart(train_loss, validation_rmse)))


def reconstruction_grid(path: Path, rows: Mapping[str, np.ndarray]) -> None:
    """Write labelled rows of images as a PNG.

    Args:
        path: the file to write.
        rows: label → [n, height, width] or [n, height, width, 3] in [0, 1].

    Raises:
        MissingRuntimeError: matplotlib is not installed.
    """
    atomic.write(path, png(grid_chart(rows)))


def _legend(figure: Figure, axes: Axes) -> None:
    entries = len(axes.get_legend_handles_labels()[0])
    figure.legend(loc="outside lower left", ncols=min(entries, 3), handlelength=2.4)
