"""The layers of a model from top to bottom, those that share a weight joined by an arc."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tiedexport.report.charts import INK, SERIES, finished, require_altair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tiedexport.report.charts import Spec
    from tiedexport.spec import Layer

_MOST_LAYERS = 16
_ROW_PIXELS = 28
_ARC_STEPS = 24
_RIGHT = 0.74
"""Where the layers end and the arcs begin, as a share of the width."""


def layers_chart(layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]]) -> Spec | None:
    """A bar a layer with weights, as wide as its output, and arcs between those of one weight.

    Args:
        layers: of the autoencoder, in order.
        shapes: of every weight, by name.

    Returns:
        None of a model with no such layers, or with too many to be drawn.
    """
    weighted = [layer for layer in layers if layer.weight in shapes]
    if not 0 < len(weighted) <= _MOST_LAYERS:
        return None
    require_altair()
    import altair as alt

    bars = _bars(weighted, shapes)
    arcs = _arcs(weighted)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[len(bars) - 0.5, -0.5], nice=False))
    base = alt.Chart(alt.InlineData(values=bars)).encode(
        x=x, y=y, tooltip=["what:N", "weight:N", "shape:N"]
    )
    drawn = [
        base.mark_bar(height=21, cornerRadius=3, color=SERIES[0], opacity=0.28).encode(x2="x2:Q"),
        base.mark_text(color=INK).encode(x=alt.X("middle:Q", axis=None), text="said:N"),
    ]
    if arcs:
        line = alt.Chart(alt.InlineData(values=arcs)).encode(x=x, y=y, detail="arc:N")
        drawn.append(line.mark_line(color=SERIES[0], strokeWidth=2).encode(order="step:Q"))
        ends = line.transform_filter(f"datum.step == 0 || datum.step == {_ARC_STEPS}")
        drawn.append(ends.mark_point(color=SERIES[0], filled=True, size=36, opacity=1))
    chart = alt.layer(*drawn).properties(width="container", height=_ROW_PIXELS * len(bars))
    told = "; ".join(f"{bar['what']} {bar['said']} with {bar['weight']}" for bar in bars)
    return finished(chart, f"Layers in order, arcs between those that share a weight: {told}")


def _bars(layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, Any]]:
    sizes = [_sizes(layer, shapes[layer.weight or ""]) for layer in layers]
    widest = max(max(size) for size in sizes)
    rows = []
    for index, (layer, (inner, outer)) in enumerate(zip(layers, sizes, strict=True)):
        half = _RIGHT / 2 * max(math.sqrt(outer / widest), 0.3)
        rows.append(
            {
                "y": index,
                "x": _RIGHT / 2 - half,
                "x2": _RIGHT / 2 + half,
                "middle": _RIGHT / 2,
                "said": f"{inner} → {outer}",
                "what": layer.op.replace("_", " "),
                "weight": f"{layer.weight}{', transposed' if layer.transposed else ''}",
                "shape": " × ".join(map(str, shapes[layer.weight or ""])),
            }
        )
    return rows


def _sizes(layer: Layer, shape: tuple[int, ...]) -> tuple[int, int]:
    """Units or channels before and after the layer; a weight is stored [out, in, ...]."""
    outer, inner = shape[:2]
    back = layer.transposed or layer.op == "conv_transpose"
    return (outer, inner) if back else (inner, outer)


def _arcs(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Half an ellipse from each use of a weight to the next, the wider the further apart."""
    uses: dict[str, list[int]] = {}
    for index, layer in enumerate(layers):
        uses.setdefault(layer.weight or "", []).append(index)
    points = []
    for weight, places in uses.items():
        for first, last in pairwise(places):
            depth = (1 - _RIGHT - 0.06) * (last - first) / len(layers)
            for step in range(_ARC_STEPS + 1):
                angle = math.pi * step / _ARC_STEPS
                points.append(
                    {
                        "arc": f"{weight} {first}",
                        "step": step,
                        "x": _RIGHT + 0.03 + depth * math.sin(angle),
                        "y": (first + last) / 2 - (last - first) / 2 * math.cos(angle),
                    }
                )
    return points
