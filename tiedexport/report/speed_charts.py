"""Latency and throughput against batch size, beside the limit of the machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from msgspec import structs

from tiedexport.report.charts import MUTED, PAPER, SERIES, finished, require_altair
from tiedexport.report.tables import contender, number, seconds, tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tiedexport.report.charts import Spec
    from tiedexport.results import BenchResult, Latency

_DASHES = {"fp32": [1, 0], "fp16": [6, 3], "bf16": [2, 2]}
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
UNIT_LABELS = (
    "datum.value >= 1 ? format(datum.value, '~g') + ' s' : "
    "datum.value >= 1e-3 ? format(datum.value * 1e3, '~g') + ' ms' : "
    "format(datum.value * 1e6, '~g') + ' µs'"
)


def latency_chart(
    result: BenchResult, stage: str, limits: Mapping[str, Mapping[int, float]] | None = None
) -> Spec | None:
    """Median seconds a call against batch size, log axes, whiskers up to the tail percentile.

    Args:
        result: of `bench`.
        stage: whose rows are shown.
        limits: precision → batch size → the least seconds that a call can take on the machine.

    Returns:
        None where no row of the stage ran.
    """
    ran = _ran(result, stage)
    if not ran:
        return None
    require_altair()
    import altair as alt

    floor = _floor(limits or {}, lambda batch, limit_s: limit_s)
    base = _base(alt, ran)
    shown = [figure for row in ran for figure in (row.median_s, tail(row)[1]) if figure]
    shown_ticks = ticks([*shown, *(row["value"] for row in floor)])
    title, axis = "a call, median", alt.Axis(labelExpr=UNIT_LABELS, values=shown_ticks)
    whiskers = base.mark_rule(opacity=0.35).encode(
        y=_log(alt, "latency_s:Q", title, axis),
        y2="tail_s:Q",
        color=_colour(alt, ran),
    )
    lines = _lines(alt, base, _log(alt, "latency_s:Q", title, axis), ran)
    layers = [*_limit(alt, floor, _log(alt, "value:Q", title, axis), 46), whiskers, *lines]
    words = (
        f"Median latency of the {stage} against batch size, both on log axes, whiskers up to "
        f"{tail(ran[0])[0]}. {_words(ran, lambda row: seconds(row.median_s))}"
    )
    return _drawn(alt, layers, words + _limit_words(floor, seconds))


def throughput_chart(
    result: BenchResult, stage: str, limits: Mapping[str, Mapping[int, float]] | None = None
) -> Spec | None:
    """Samples a second against batch size, log axes; arguments as of `latency_chart`."""
    ran = [row for row in _ran(result, stage) if row.throughput_per_s]
    if not ran:
        return None
    require_altair()
    import altair as alt

    floor = _floor(limits or {}, lambda batch, limit_s: batch / limit_s)
    shown_ticks = ticks(
        [row.throughput_per_s or 0.0 for row in ran] + [row["value"] for row in floor]
    )
    title, axis = "samples a second", alt.Axis(format="~s", values=shown_ticks)
    lines = _lines(alt, _base(alt, ran), _log(alt, "per_s:Q", title, axis), ran)
    layers = [*_limit(alt, floor, _log(alt, "value:Q", title, axis), 13), *lines]
    words = (
        f"Throughput of the {stage} in samples a second against batch size, both on log axes. "
        f"{_words(ran, lambda row: number(row.throughput_per_s, ',.0f'))}"
    )
    return _drawn(alt, layers, words + _limit_words(floor, lambda value: f"{value:,.0f}"))


def _ran(result: BenchResult, stage: str) -> list[Latency]:
    return [row for row in result.latencies if row.stage == stage and row.status == "passed"]


def _words(rows: Sequence[Latency], figure: Any) -> str:
    return "; ".join(f"{contender(row)}, batch {row.batch}: {figure(row)}" for row in rows)


def _limit_words(floor: Sequence[dict[str, Any]], figure: Any) -> str:
    told = (f"{row['limit']}, batch {row['batch']}: {figure(row['value'])}" for row in floor)
    return f". {'; '.join(told)}" if floor else ""


def _floor(limits: Mapping[str, Mapping[int, float]], figure: Any) -> list[dict[str, Any]]:
    return [
        {"batch": batch, "value": figure(batch, limit_s), "limit": f"limit {precision}"}
        for precision, by_batch in limits.items()
        for batch, limit_s in sorted(by_batch.items())
    ]


def _base(alt: Any, rows: Sequence[Latency]) -> Any:
    values = []
    for row in rows:
        name, tail_s = tail(row)
        values.append(
            {
                "who": contender(row),
                "runtime": _runner(row),
                "precision": str(row.precision),
                "memory": row.memory,
                "batch": row.batch,
                "latency_s": row.median_s,
                "tail_s": max(tail_s or 0.0, row.median_s or 0.0),
                "per_s": row.throughput_per_s,
                "median": seconds(row.median_s),
                "tail": f"{name} {seconds(tail_s)}",
                "throughput": number(row.throughput_per_s, ",.0f"),
            }
        )
    batches = sorted({row.batch for row in rows})
    return alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X(
            "batch:Q",
            title="batch size",
            scale=alt.Scale(type="log", nice=False, padding=10),
            axis=alt.Axis(values=batches, format="~d"),
        ),
        tooltip=[f"{name}:N" for name in ("who", "batch", "median", "tail", "throughput")],
    )


def _runner(row: Latency) -> str:
    """The runtime with its remark."""
    return contender(structs.replace(row, precision=None, memory="shared"))


def ticks(values: Sequence[float]) -> list[float]:
    """Powers of ten, and between them 2 and 5 where there are few of them."""
    low, high = min(values), max(values)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [float(f"{step}e{power}") for power in powers for step in steps]
    return [tick for tick in every if low / 2 <= tick <= high * 2]


def _log(alt: Any, field: str, title: str, axis: Any) -> Any:
    scale = alt.Scale(type="log", nice=False, padding=8)
    return alt.Y(field, title=title, scale=scale, axis=axis)


def _colours(alt: Any, rows: Sequence[Latency]) -> Any:
    runtimes = list(dict.fromkeys(map(_runner, rows)))
    colours = [SERIES[n % len(SERIES)] for n in range(len(runtimes))]
    return alt.Scale(domain=runtimes, range=colours)


def _legend(alt: Any) -> Any:
    return alt.Legend(title=None, orient="bottom", columns=3, symbolOpacity=1)


def _colour(alt: Any, rows: Sequence[Latency]) -> Any:
    """Of the runtime, with a legend."""
    return alt.Color("runtime:N", scale=_colours(alt, rows), legend=_legend(alt))


def _lines(alt: Any, base: Any, y: Any, rows: Sequence[Latency]) -> list[Any]:
    """A colour and shape a runtime, a dash a precision; hollow points are of packed memory."""
    precisions = list(dict.fromkeys(str(row.precision) for row in rows))
    dashes = alt.Scale(domain=precisions, range=[_DASHES.get(p, [1, 0]) for p in precisions])
    colours = _colours(alt, rows)
    legend = _legend(alt) if len(precisions) > 1 else None
    lines = base.mark_line(strokeWidth=2).encode(
        y=y,
        detail="who:N",
        color=_colour(alt, rows),
        strokeDash=alt.StrokeDash("precision:N", scale=dashes, legend=legend),
    )
    runtimes = list(dict.fromkeys(map(_runner, rows)))
    shapes = [_SHAPES[n % len(_SHAPES)] for n in range(len(runtimes))]
    points = base.mark_point(size=42, opacity=1).encode(
        y=y,
        shape=alt.Shape(
            "runtime:N", scale=alt.Scale(domain=runtimes, range=shapes), legend=_legend(alt)
        ),
        stroke=alt.Stroke("runtime:N", scale=colours, legend=_legend(alt)),
        fill=alt.condition(
            "datum.memory == 'packed'",
            alt.value(PAPER),
            alt.Fill("runtime:N", scale=colours),
        ),
    )
    return [lines, points]


def _limit(alt: Any, floor: list[dict[str, Any]], y: Any, below: int) -> list[Any]:
    """What the machine admits, a thick pale line a precision, its name pixels below its end."""
    if not floor:
        return []
    base = alt.Chart(alt.InlineData(values=floor)).encode(
        x=alt.X("batch:Q"), y=y, detail="limit:N", tooltip=["limit:N", "batch:N", "value:Q"]
    )
    ends = alt.Chart(alt.InlineData(values=_ends(floor))).encode(x="batch:Q", y=y, text="limit:N")
    return [
        base.mark_line(color=MUTED, strokeWidth=5, opacity=0.35),
        ends.mark_text(align="right", dy=below, color=MUTED),
    ]


def _ends(floor: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last point of each limit; one for those too near each other for a name each."""
    last = max(row["batch"] for row in floor)
    ends: list[dict[str, Any]] = []
    for row in sorted((r for r in floor if r["batch"] == last), key=lambda r: float(r["value"])):
        if ends and row["value"] < 2 * ends[-1]["value"]:
            ends[-1]["limit"] += row["limit"].removeprefix("limit").replace(" ", ", ", 1)
        else:
            ends.append(dict(row))
    return ends


def _drawn(alt: Any, layers: Sequence[Any], words: str) -> Spec:
    chart = alt.layer(*layers).properties(width="container", height=190)
    return finished(chart, words)
