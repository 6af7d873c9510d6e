"""A server under load: latency and throughput against callers, latency against the rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tiedexport.report.charts import SERIES, finished, require_altair
from tiedexport.report.speed_charts import UNIT_LABELS, ticks
from tiedexport.report.tables import contender, number, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.report.charts import Spec
    from tiedexport.results.load import Load
    from tiedexport.results.server import ServerLoad

Point = dict[str, Any]

_SHOWN = ("p50", "p99")
_SECONDS: dict[str, Any] = {"labelExpr": UNIT_LABELS}
_COUNT: dict[str, Any] = {"format": "~s"}


def closed_latency(rows: Sequence[ServerLoad], loads: Sequence[Load]) -> Spec:
    """Median and 99th percentile against callers, with the same in this process, log axes."""
    points = [
        {"x": row.callers, "y": row.latencies_s[name], "line": f"{contender(row)} {name}"}
        for row in _both(rows, loads)
        for name in _SHOWN
        if row.latencies_s
    ]
    words = f"Latency against callers, both on log axes. {_words(points, 'callers', seconds)}"
    return _drawn(points, "callers", "a request", _SECONDS, words)


def closed_throughput(rows: Sequence[ServerLoad], loads: Sequence[Load]) -> Spec:
    """Samples a second against callers, with the same in this process, log axes."""
    points = [
        {"x": row.callers, "y": row.throughput_per_s, "line": contender(row)}
        for row in _both(rows, loads)
        if row.throughput_per_s
    ]
    told = _words(points, "callers", lambda value: number(value, ",.0f"))
    words = f"Samples a second against callers, both on log axes. {told}"
    return _drawn(points, "callers", "samples a second", _COUNT, words)


def open_latency(rows: Sequence[ServerLoad]) -> Spec:
    """Percentiles, from the scheduled moment, against the requests a second that were offered."""
    points = [
        {"x": row.offered_per_s, "y": row.latencies_s[name], "line": name}
        for row in rows
        for name in ("p50", "p90", "p99")
        if row.latencies_s
    ]
    told = _words(points, "requests/s", seconds)
    words = f"Latency from the scheduled moment against the rate of requests, log axes. {told}"
    return _drawn(points, "requests a second, offered", "a request", _SECONDS, words)


def _both(rows: Sequence[ServerLoad], loads: Sequence[Load]) -> tuple[ServerLoad | Load, ...]:
    return (*rows, *loads)


def _words(points: Sequence[Point], unit: str, figure: Any) -> str:
    return "; ".join(f"{p['line']}, {p['x']:.4g} {unit}: {figure(p['y'])}" for p in points)


def _drawn(points: list[Point], x: str, y: str, unit: dict[str, Any], words: str) -> Spec:
    require_altair()
    import altair as alt

    lines = list(dict.fromkeys(point["line"] for point in points))
    scale = alt.Scale(type="log", nice=False, padding=10)
    at = sorted({point["x"] for point in points})
    x_axis = alt.Axis(values=at if x == "callers" else ticks(at), format="~s")
    y_axis = alt.Axis(values=ticks([point["y"] for point in points]), **unit)
    colours = alt.Scale(domain=lines, range=[SERIES[n % len(SERIES)] for n in range(len(lines))])
    short = max(map(len, lines)) < len("p99.9")
    legend = alt.Legend(title=None, orient="bottom", columns=len(lines) if short else 1)
    chart = alt.Chart(alt.InlineData(values=points)).encode(
        x=alt.X("x:Q", title=x, scale=scale, axis=x_axis),
        y=alt.Y("y:Q", title=y, scale=scale, axis=y_axis),
        color=alt.Color("line:N", scale=colours, legend=legend),
        tooltip=["line:N", alt.Tooltip("x:Q", title=x), alt.Tooltip("y:Q", title=y)],
    )
    layers = alt.layer(chart.mark_line(strokeWidth=2), chart.mark_point(size=36, filled=True))
    return finished(layers.properties(width="container", height=190), words)
