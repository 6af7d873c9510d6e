"""One definition of a chart, drawn three ways: live on a page, still beside it, and as PNG."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tiedexport.errors import MissingRuntimeError

if TYPE_CHECKING:
    import altair as alt

Spec = dict[str, Any]
"""A Vega-Lite specification."""

INK, MUTED, GRID, PAPER = "#1b1f24", "#59636e", "#d8dde3", "#fefefe"
BAD = "#b3261e"
SERIES = ("#0b6bcb", "#c4501b", "#0f8a5f", "#8a3ffc", "#8f6c00", "#c2185b", "#0e7c86", "#6b7078")
CSS_NAMES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    BAD: "--bad",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)},
}
"""Each colour of a chart and the custom property of the page that replaces it there."""

STILL_WIDTH = 400
"""Pixels of a still drawing whose live one is as wide as its place on the page."""

CONFIG: Spec = {
    "background": None,
    "font": "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, sans-serif",
    "padding": 2,
    "view": {"stroke": None},
    "title": {"color": INK, "anchor": "start", "fontSize": 13, "fontWeight": 600, "offset": 8},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": GRID,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "labelLimit": 220,
    },
    "legend": {
        "labelColor": INK,
        "titleColor": MUTED,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 220,
        "symbolStrokeWidth": 2,
        "layout": {"bottom": {"anchor": "start", "direction": "vertical", "margin": 4}},
    },
    "text": {"color": INK, "fontSize": 12},
    "range": {"category": list(SERIES)},
}
"""The house style of every chart."""


def finished(chart: alt.TopLevelMixin, alt_text: str) -> Spec:
    """The specification of a chart, with what it says in words for who cannot see it."""
    spec: Spec = chart.to_dict(validate=False)
    spec.pop("config", None)
    spec.pop("$schema", None)
    return {**spec, "description": alt_text}


def png(spec: Spec) -> bytes:
    """The chart as PNG on paper white, at twice its size: the same bytes every time."""
    drawn: bytes = _converter().vegalite_to_png(
        _still(spec), config={**CONFIG, "background": PAPER, "padding": 8}, scale=2
    )
    return drawn


def svg(spec: Spec, name: str) -> str:
    """The chart as an `<svg>` that takes its colours from the page and its width from its place.

    Args:
        spec: of the chart.
        name: unique in the page; it prefixes every id.
    """
    text: str = _converter().vegalite_to_svg(_still(spec), config=CONFIG)
    text = re.sub(r' (?:width|height)="\d+"', "", text, count=2)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return _in_colours_of_page(text)


def live(spec: Spec) -> str:
    """The specification as JSON for a script of the page, its colours those of the page."""
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
    return _in_colours_of_page(text).replace("<", "\\u003c")


def live_config() -> str:
    """The house style as JSON, its colours those of the page."""
    return _in_colours_of_page(json.dumps(CONFIG, separators=(",", ":")))


@cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script without imports, licence first; 0.9 MB."""
    licence = (files("tiedexport.report") / "vega-licence.txt").read_text("utf-8")
    script = _converter().javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return f"/*!\n{licence}*/\n{script}"


def require_altair() -> None:
    """Import what draws, or say how to install it.

    Raises:
        MissingRuntimeError: altair, vl-convert-python or Pillow is not installed.
    """
    try:
        import altair
        import PIL.Image
        import vl_convert

        del altair, PIL, vl_convert
    except ImportError as error:
        raise MissingRuntimeError(
            "pictures need altair, vl-convert-python and Pillow",
            got=str(error),
            hint="pip install 'tiedexport[report]'",
        ) from error


def _converter() -> Any:
    require_altair()
    import vl_convert

    return vl_convert


def _still(spec: Spec) -> Spec:
    if spec.get("width") != "container":
        return spec
    return {**spec, "width": STILL_WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}}


def _in_colours_of_page(text: str) -> str:
    for colour, variable in CSS_NAMES.items():
        text = text.replace(colour, f"var({variable})")
    return text
