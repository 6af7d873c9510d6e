"""Errors in units of their bounds, as a heat map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tiedexport.report.charts import BAD, INK, MUTED, SERIES, finished, require_altair
from tiedexport.report.tables import contender, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.report.charts import Spec
    from tiedexport.results import Comparison

_STEPS = ((0.1, 0.06), (0.25, 0.14), (0.5, 0.26), (0.75, 0.38), (1.0, 0.5))
"""Up to so many bounds, so opaque a blue: ink on it stays legible on light and dark paper."""

_IN_LINES = "split(replace(datum.label, ' (', '\\n('), '\\n')"
"""A remark stands in a line of its own."""

_MIDDLE = {
    "condition": {"test": "indexof(datum.value, ' (') > 0", "value": "bottom"},
    "value": "middle",
}
"""Of one line or two: Vega hangs further lines below the first."""


def error_map(rows: Sequence[Comparison]) -> Spec | None:
    """The worst error of every runtime and precision, a column a stage; None where none ran."""
    ran = [row for row in rows if row.status != "not run" and row.stage]
    if not ran:
        return None
    stages = list(dict.fromkeys(row.stage for row in ran))
    names = list(dict.fromkeys(map(contender, ran)))
    words = "; ".join(f"{contender(row)} {row.stage}: {_said(row)}" for row in ran)
    return _heat_map(
        [_cell(row, row.stage, contender(row)) for row in ran],
        (stages, names),
        f"Worst error in units of its bound; above 1 is a failure. {words}",
    )


def layer_map(rows: Sequence[Comparison]) -> Spec | None:
    """The worst error of each layer of one stage, a column a runtime; None where none ran."""
    ran = [row for row in rows if row.status != "not run" and row.layer]
    if not ran:
        return None
    runners = list(dict.fromkeys(map(contender, ran)))
    layers = list(dict.fromkeys(row.layer for row in ran))
    words = "; ".join(f"{row.layer} in {contender(row)}: {_said(row)}" for row in ran)
    return _heat_map(
        [_cell(row, contender(row), row.layer) for row in ran],
        (runners, layers),
        f"Error of each layer in units of its bound. {words}",
    )


def _cell(row: Comparison, column: str, line: str) -> dict[str, object]:
    error = row.error_in_bounds
    failed = row.status == "failed"
    known = error is not None and math.isfinite(error)
    opacity = next((o for most, o in _STEPS if known and (error or 0.0) <= most), 0.5)
    return {
        "column": column,
        "line": line,
        "who": contender(row),
        "said": _said(row),
        "colour": BAD if failed else SERIES[0],
        "opacity": 0.3 if failed else opacity,
        "stage": row.stage,
        "layer": row.layer or "the output",
        "status": row.status,
        "absolute": number(row.absolute_error, ".2e"),
        "bound": number(row.bound, ".2e"),
        "reason": row.reason or "–",
    }


def _said(row: Comparison) -> str:
    if row.error_in_bounds is None:
        return row.status
    return f"{row.error_in_bounds:.2f}" if row.error_in_bounds < 100 else "> 100"


def _heat_map(
    cells: list[dict[str, object]],
    order: tuple[Sequence[str], Sequence[str]],
    words: str,
) -> Spec:
    require_altair()
    import altair as alt

    columns, lines = order
    remarked = any("(" in name for name in lines)
    tooltip = ["who", "stage", "layer", "said", "absolute", "bound", "status", "reason"]
    titles = {"who": "runtime", "said": "error / bound", "absolute": "absolute error"}
    base = alt.Chart(alt.InlineData(values=cells)).encode(
        x=alt.X("column:N", sort=columns, title=None, axis=_columns_axis(columns)),
        y=alt.Y(
            "line:N",
            sort=lines,
            title=None,
            axis=alt.Axis(
                domain=False, ticks=False, labelColor=INK, labelLimit=170, labelExpr=_IN_LINES,
                labelBaseline=_MIDDLE,
            ),
        ),
        tooltip=[alt.Tooltip(f"{name}:N", title=titles.get(name, name)) for name in tooltip],
    )  # fmt: skip
    filled = base.mark_rect(cornerRadius=3, strokeWidth=0).encode(
        color=alt.Color("colour:N", scale=None),
        opacity=alt.Opacity("opacity:Q", scale=None, legend=None),
    )
    figures = base.mark_text(fontSize=12).encode(
        text="said:N",
        color=alt.condition("datum.status == 'not run'", alt.value(MUTED), alt.value(INK)),
    )
    chart = alt.layer(filled, figures).properties(
        width="container", height=(32 if remarked else 26) * len(lines)
    )
    return finished(chart, words)


def _columns_axis(columns: Sequence[str]) -> Any:
    """Above the map; labels lean where the columns are too narrow for them."""
    import altair as alt

    needed = len(columns) * (4 + 6.2 * max(map(len, columns)))

    def turned(narrow: int, wide: int) -> alt.ExprRef:
        return alt.ExprRef(f"width < {needed} ? {narrow} : {wide}")

    return alt.Axis(
        orient="top", domain=False, ticks=False, labelLimit=120, labelAngle=turned(-25, 0),
        labelAlign="center", labelPadding=turned(17, 4), labelOverlap=False, minExtent=42,
        labelExpr=_IN_LINES,
    )  # fmt: skip
