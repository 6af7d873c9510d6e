"""What a model learned and what it makes of samples: curves, codes, errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tiedexport.report.charts import BAD, MUTED, SERIES, finished, require_altair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.report.charts import Spec

BINS = 40


def training_chart(values: Sequence[float], title: str, *, mark_least: bool = False) -> Spec:
    """A history by epoch; the least of it marked where asked for."""
    require_altair()
    import altair as alt

    rows = [
        {"epoch": epoch, "value": value}
        for epoch, value in enumerate(values, 1)
        if math.isfinite(value)
    ]
    colour = SERIES[2] if mark_least else SERIES[0]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
        tooltip=["epoch:Q", alt.Tooltip("value:Q", title=title, format=".5f")],
    )
    layers = [base.mark_line(strokeWidth=2, color=colour, point=len(rows) < 3)]
    words = f"{title} over {len(values)} epochs"
    if rows:
        words += f", from {rows[0]['value']:.4f} to {rows[-1]['value']:.4f}"
    if mark_least and rows:
        best = min(rows, key=lambda row: row["value"])
        told = f"best: {best['value']:.4f} at {best['epoch']}"
        layers += _point(alt, best, told)
        words += f"; {told}"
    chart = alt.layer(*layers).properties(width="container", height=180)
    return finished(chart, words)


def _point(alt: Any, row: dict[str, float], told: str) -> list[Any]:
    base = alt.Chart(alt.InlineData(values=[row])).encode(x="epoch:Q", y="value:Q")
    return [
        base.mark_point(filled=True, size=70, color=SERIES[1], opacity=1),
        base.mark_text(align="right", dy=-12, text=told),
    ]


def latent_chart(
    points: Sequence[tuple[float, float]], labels: Sequence[int], explained: tuple[float, float]
) -> Spec:
    """Codes on their two principal axes, coloured by label where there is one.

    Args:
        points: [n, 2].
        labels: [n], or empty.
        explained: the share of the codes' variance along each axis.
    """
    require_altair()
    import altair as alt

    rows = [
        {"x": round(x, 4), "y": round(y, 4), "label": str(labels[n]) if labels else "–"}
        for n, (x, y) in enumerate(points)
    ]
    kinds = sorted({int(label) for label in labels})
    axes = [
        alt.Axis(title=f"principal axis {n} ({share:.0%} of the variance)", tickCount=5)
        for n, share in enumerate(explained, 1)
    ]
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(filled=True, size=26, opacity=0.75)
        .encode(
            x=alt.X("x:Q", axis=axes[0], scale=alt.Scale(padding=8)),
            y=alt.Y("y:Q", axis=axes[1], scale=alt.Scale(padding=8)),
        )
    )
    if 0 < len(kinds) <= 2 * len(SERIES):
        chart = _coloured(alt, chart, list(map(str, kinds)))
    else:
        chart = chart.encode(color=alt.value(SERIES[0]))
    told = f", coloured by {len(kinds)} labels" if kinds else ""
    words = (
        f"{len(points)} codes on their two principal axes{told}; the axes hold "
        f"{explained[0]:.0%} and {explained[1]:.0%} of the variance"
    )
    return finished(chart.properties(width="container", height=360, name="latent"), words)


def _coloured(alt: Any, chart: Any, names: list[str]) -> Any:
    """Points in a colour and a shape a label, of which the legend picks one."""
    colours = [SERIES[n % len(SERIES)] for n in range(len(names))]
    shapes = ["circle" if n < len(SERIES) else "triangle-up" for n in range(len(names))]
    legend = alt.Legend(title="label (click to pick)", orient="bottom", columns=10)
    chosen = alt.selection_point(fields=["label"], bind="legend", name="chosen")
    return chart.encode(
        color=alt.Color("label:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
        shape=alt.Shape("label:N", scale=alt.Scale(domain=names, range=shapes), legend=legend),
        opacity=alt.condition(chosen, alt.value(0.8), alt.value(0.06)),
        tooltip=["label:N"],
    ).add_params(chosen)


def error_chart(errors: Sequence[float], who: str) -> Spec:
    """How often each RMSE of a sample occurs, with a line at the mean of all."""
    require_altair()
    import altair as alt
    import numpy as np

    counts, edges = np.histogram(errors, BINS)
    mean = math.sqrt(sum(error**2 for error in errors) / len(errors))
    rows = [
        {"from": float(low), "to": float(high), "samples": int(count)}
        for count, low, high in zip(counts, edges, edges[1:], strict=False)
    ]
    bars = alt.Chart(alt.InlineData(values=rows)).mark_bar(color=SERIES[0]).encode(
        x=alt.X("from:Q", bin="binned", title="RMSE of a sample", axis=alt.Axis(tickCount=6)),
        x2="to:Q",
        # Room above the bars for the label of the line.
        y=alt.Y("samples:Q", scale=alt.Scale(domainMax=1.2 * int(max(counts)))),
        tooltip=[alt.Tooltip(f"{name}:Q", format=".4~f") for name in ("from", "to", "samples")],
    )  # fmt: skip
    line = alt.Chart(alt.InlineData(values=[{"at": mean}])).encode(x="at:Q")
    layers = [
        bars,
        line.mark_rule(color=BAD, strokeWidth=2),
        line.mark_text(align="left", dx=5, color=MUTED, text=f"all: {mean:.4f}", baseline="top")
        .encode(y=alt.value(2)),
    ]  # fmt: skip
    words = (
        f"Histogram of the RMSE of {len(errors)} samples in {who}: from {min(errors):.4f} to "
        f"{max(errors):.4f}, {mean:.4f} over all"
    )
    return finished(alt.layer(*layers).properties(width="container", height=200), words)
