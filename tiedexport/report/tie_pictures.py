"""Pictures of a tie: where its copies lie, how each follows from the first, what reads them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tiedexport.report import tie_tables
from tiedexport.report.charts import INK, MUTED, SERIES, finished, require_altair
from tiedexport.report.tables import size
from tiedexport.report.tie_tables import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.report.charts import Spec
    from tiedexport.results.ties import Stage, StoredCopy, TiedWeight

ORIGINAL, COPY = SERIES[0], SERIES[1]

WIDTH, _BOX, _PILL, _READERS = 760, 275, 350, 425
"""Pixels: the whole, the right edge of the boxes, the pills' centre, the readers' left edge."""

_BOX_HEIGHT, _READER_HEIGHT, _PITCH, _GAP = 64, 28, 36, 20
_COPIES_SHOWN, _READERS_SHOWN = 6, 5
_CURVE_STEPS = 16


@dataclass
class _Drawing:
    """Boxes, curves and texts in pixels from the top left, until they become a chart."""

    boxes: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    heads: list[dict[str, Any]] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)

    def box(self, left: float, middle: float, width: float, height: float, colour: str) -> None:
        """A rounded frame in a colour, with a hint of it inside."""
        edges = {"x": left, "x2": left + width, "y": middle - height / 2, "y2": middle + height / 2}
        self.boxes.append({**edges, "colour": colour})

    def text(self, x: float, y: float, words: str, colour: str = INK, kind: str = "plain") -> None:
        """Words that begin at x, or are centred there."""
        self.texts.append({"x": x, "y": y, "words": words, "colour": colour, "kind": kind})

    def curve(
        self, start: tuple[float, float], end: tuple[float, float], colour: str, *, head: bool
    ) -> None:
        """A line that leaves and arrives level."""
        curve = len(self.points)
        for step in range(_CURVE_STEPS + 1):
            t = step / _CURVE_STEPS
            x = start[0] + t * (end[0] - start[0])
            y = start[1] + t * t * (3 - 2 * t) * (end[1] - start[1])
            self.points.append({"x": x, "y": y, "colour": colour, "curve": curve, "step": step})
        if head:
            self.heads.append({"x": end[0] - 3, "y": end[1], "colour": colour})

    def chart(self, height: float) -> Any:
        """Everything that was drawn."""
        import altair as alt

        def layer(rows: list[dict[str, Any]]) -> alt.Chart:
            x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, WIDTH], nice=False))
            y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[height, 0], nice=False))
            colour = alt.Color("colour:N", scale=None)
            return alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y, color=colour)

        frame = layer(self.boxes).encode(x2="x2:Q", y2="y2:Q")
        texts = layer(self.texts).encode(text="words:N")
        of_kind = {
            kind: texts.transform_filter(alt.datum.kind == kind)
            for kind in ("plain", "bold", "centred")
        }
        return alt.layer(
            frame.mark_rect(cornerRadius=6, opacity=0.1),
            frame.mark_rect(cornerRadius=6, filled=False, strokeWidth=1),
            layer(self.points).mark_line(strokeWidth=1.2).encode(detail="curve:N", order="step:Q"),
            layer(self.heads).mark_point(shape="triangle-right", size=40, filled=True, opacity=1),
            of_kind["plain"].mark_text(align="left", fontSize=11.5),
            of_kind["bold"].mark_text(align="left", fontSize=12, fontWeight="bold"),
            of_kind["centred"].mark_text(fontSize=11.5),
        ).properties(width=WIDTH, height=height)


def tie_chart(stage: Stage, tie: TiedWeight, files: dict[str, str], alt_text: str) -> Spec:
    """Stored copies on the left, how each follows from the original, and its readers right.

    Args:
        stage: where the tie was found.
        tie: the weight to draw.
        files: how to call each file, as `tie_tables.short_names` says.
        alt_text: what it shows, in words.
    """
    require_altair()
    shown = tie.copies[:_COPIES_SHOWN]
    heights = [_row_height(len(_readers(copy, files))) for copy in shown]
    more = len(tie.copies) - len(shown)
    height = 55 + sum(heights) + _GAP * len(heights) + (20 if more else 0)
    drawing = _Drawing()
    drawing.text(0, 12, f"{shortened(tie.name, 44)}: {tie_tables.totals(tie)}", kind="bold")
    drawing.text(0, 34, shortened(tie_tables.label(stage), 96), MUTED)
    top = 55.0
    for copy, row_height in zip(shown, heights, strict=True):
        form = copy.form if len(tie.copies) > 1 else "one copy"
        _draw_copy(drawing, copy, form, files, top + row_height / 2)
        top += row_height + _GAP
    if more:
        drawing.text(0, top, f"and {tie_tables.count(more, 'more copy', 'more copies')}", MUTED)
    return finished(drawing.chart(height), alt_text)


def _row_height(readers: int) -> float:
    return max(_BOX_HEIGHT, readers * _PITCH - (_PITCH - _READER_HEIGHT))


def _readers(copy: StoredCopy, files: dict[str, str]) -> list[str]:
    """The first few uses, and how many more."""
    uses = tie_tables.readers(copy, files)
    more = len(uses) - _READERS_SHOWN
    return uses if more <= 1 else [*uses[:_READERS_SHOWN], f"and {more:,} more"]


def _draw_copy(
    drawing: _Drawing, copy: StoredCopy, form: str, files: dict[str, str], middle: float
) -> None:
    """One stored copy in a row around `middle`: box, pill, readers."""
    colour = ORIGINAL if copy.form == "original" else COPY
    drawing.box(0, middle, _BOX, _BOX_HEIGHT, colour)
    lines = (
        (shortened(tie_tables.name(copy), 32), INK, "bold"),
        (shortened(f"{tie_tables.kind(copy)}, {size(copy.size_bytes)}", 38), INK, "plain"),
        (shortened(tie_tables.place(copy, files), 38), MUTED, "plain"),
    )
    for line, (text, ink, kind) in enumerate(lines):
        drawing.text(12, middle + 18 * (line - 1), text, ink, kind)
    words = textwrap.wrap(form, 14, max_lines=2, placeholder=" …")
    half = 10 + 3.4 * max(map(len, words))
    drawing.curve((_BOX, middle), (_PILL - half, middle), colour, head=False)
    drawing.box(_PILL - half, middle, 2 * half, 9 + 15 * len(words), colour)
    for line, word in enumerate(words):
        drawing.text(_PILL, middle + 15 * (line - (len(words) - 1) / 2), word, colour, "centred")
    _draw_readers(drawing, _readers(copy, files), (_PILL + half, middle), colour)


def _draw_readers(
    drawing: _Drawing, readers: Sequence[str], start: tuple[float, float], colour: str
) -> None:
    for index, reader in enumerate(readers):
        y = start[1] + _PITCH * (index - (len(readers) - 1) / 2)
        drawing.curve(start, (_READERS, y), colour, head=True)
        drawing.box(_READERS, y, WIDTH - _READERS, _READER_HEIGHT, MUTED)
        drawing.text(_READERS + 10, y, shortened(reader, 48))
