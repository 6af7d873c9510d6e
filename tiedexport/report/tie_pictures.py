"""Pictures of a tie: where its copies lie and what reads them, and what each stage stores."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tiedexport.report import tie_tables
from tiedexport.report.pictures import GRID, INK, MUTED, SERIES, canvas
from tiedexport.report.tables import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tiedexport.results.ties import AuditResult, Stage, StoredCopy, TiedWeight

ORIGINAL, COPY = SERIES[0], SERIES[1]

_WIDTH, _BOX, _PILL, _READERS = 7.6, 2.75, 3.5, 4.25
"""Inches: the whole, the right edge of the boxes, the pills' centre, the readers' left edge."""

_BOX_HEIGHT, _READER_HEIGHT, _PITCH, _GAP = 0.64, 0.28, 0.36, 0.2
_COPIES_SHOWN, _READERS_SHOWN = 6, 5


def stage_chart(result: AuditResult) -> Figure | None:
    """Bytes stored against bytes needed, a pair of bars a stage; None where none was measured."""
    stages = [stage for stage in result.stages if stage.needed_bytes and stage.status != "not run"]
    if not stages:
        return None
    longest = max(max(stage.stored_bytes, stage.needed_bytes) for stage in stages)
    with canvas(0.3 + 0.66 * len(stages)) as (figure, (axes,)):
        for row, stage in enumerate(stages):
            _bars(axes, row, stage)
        axes.set_xlim(0, 1.75 * longest)
        axes.set_ylim(len(stages) - 0.6, -0.6)
        axes.set_axis_off()
    return figure


def _bars(axes: Axes, row: int, stage: Stage) -> None:
    colour = {"copies": COPY, "not proven": MUTED}.get(stage.status, ORIGINAL)
    times = f"{tie_tables.ratio(stage):.3f} ×"
    label = ": ".join(filter(None, (stage.name, stage.subject)))  # pale bars: for comparison
    axes.text(0, row - 0.32, shortened(label, 66), color=MUTED, fontsize=8.5)
    for y, length, fill, text in (
        (row - 0.13, stage.stored_bytes, colour, f"{size(stage.stored_bytes)} stored: {times}"),
        (row + 0.14, stage.needed_bytes, GRID, f"{size(stage.needed_bytes)} needed"),
    ):
        axes.barh(y, length, 0.24, color=fill, alpha=1.0 if stage.counts else 0.5)
        axes.annotate(
            text,
            (length, y),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )


def tie_chart(stage: Stage, tie: TiedWeight, files: dict[str, str]) -> Figure:
    """Stored copies on the left, how each follows from the original, and its readers right.

    Args:
        stage: where the tie was found.
        tie: the weight to draw.
        files: how to call each file, as `tie_tables.short_names` says.
    """
    shown = tie.copies[:_COPIES_SHOWN]
    heights = [_row_height(len(_readers(copy, files))) for copy in shown]
    more = len(tie.copies) - len(shown)
    height = 0.55 + sum(heights) + _GAP * len(heights) + (0.2 if more else 0)
    with canvas(height, width=_WIDTH) as (figure, (axes,)):
        axes.set_axis_off()
        axes.set_xlim(-0.03, _WIDTH + 0.03)
        axes.set_ylim(height, 0)
        heading = f"{shortened(tie.name, 44)}: {tie_tables.totals(tie)}"
        axes.text(0, 0.12, heading, fontsize=9.5, fontweight="bold", va="center")
        where = shortened(tie_tables.label(stage), 96)
        axes.text(0, 0.34, where, fontsize=8.5, color=MUTED, va="center")
        top = 0.55
        for copy, row_height in zip(shown, heights, strict=True):
            form = copy.form if len(tie.copies) > 1 else "one copy"
            _draw_copy(axes, copy, form, files, top + row_height / 2)
            top += row_height + _GAP
        if more:
            note = f"and {tie_tables.count(more, 'more copy', 'more copies')}"
            axes.text(0, top, note, fontsize=8.5, color=MUTED, va="center")
    return figure


def _row_height(readers: int) -> float:
    return max(_BOX_HEIGHT, readers * _PITCH - (_PITCH - _READER_HEIGHT))


def _readers(copy: StoredCopy, files: dict[str, str]) -> list[str]:
    """The first few uses, and how many more."""
    uses = tie_tables.readers(copy, files)
    more = len(uses) - _READERS_SHOWN
    return uses if more <= 1 else [*uses[:_READERS_SHOWN], f"and {more:,} more"]


def _draw_copy(
    axes: Axes, copy: StoredCopy, form: str, files: dict[str, str], middle: float
) -> None:
    """One stored copy in a row around `middle`: box, pill, readers."""
    colour = ORIGINAL if copy.form == "original" else COPY
    _box(axes, 0, middle, _BOX, _BOX_HEIGHT, colour)
    lines = (
        (shortened(tie_tables.name(copy), 32), "bold", INK),
        (shortened(f"{tie_tables.kind(copy)}, {size(copy.size_bytes)}", 38), "normal", INK),
        (shortened(tie_tables.place(copy, files), 38), "normal", MUTED),
    )
    for line, (text, weight, ink) in enumerate(lines):
        y = middle + 0.18 * (line - 1)
        axes.text(0.12, y, text, fontsize=8, fontweight=weight, color=ink, va="center")
    words = textwrap.wrap(form, 14, max_lines=2, placeholder=" …")
    half = 0.09 + 0.034 * max(map(len, words))
    pill_height = 0.09 + 0.15 * len(words)
    _curve(axes, (_BOX, middle), (_PILL - half, middle), colour, head=False)
    _box(axes, _PILL - half, middle, 2 * half, pill_height, colour, round_by=0.09)
    axes.text(_PILL, middle, "\n".join(words), fontsize=8, color=colour, ha="center", va="center")
    _draw_readers(axes, _readers(copy, files), (_PILL + half, middle), colour)


def _draw_readers(
    axes: Axes, readers: Sequence[str], start: tuple[float, float], colour: str
) -> None:
    for index, reader in enumerate(readers):
        y = start[1] + _PITCH * (index - (len(readers) - 1) / 2)
        _curve(axes, start, (_READERS, y), colour)
        _box(axes, _READERS, y, _WIDTH - _READERS, _READER_HEIGHT, MUTED)
        axes.text(_READERS + 0.1, y, shortened(reader, 48), fontsize=8, va="center")


def _box(
    axes: Axes,
    left: float,
    middle: float,
    width: float,
    height: float,
    colour: str,
    round_by: float = 0.06,
) -> None:
    """A rounded frame in a colour, with a hint of it inside, on light and on dark paper."""
    from matplotlib.colors import to_rgba
    from matplotlib.patches import FancyBboxPatch

    style = f"round,pad=0,rounding_size={round_by}"
    corner = (left, middle - height / 2)
    fill = to_rgba(colour, 0.1)
    axes.add_patch(
        FancyBboxPatch(corner, width, height, style, facecolor=fill, edgecolor=colour, linewidth=1)
    )


def _curve(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str,
    *,
    head: bool = True,
) -> None:
    """A line that leaves and arrives level."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    bend = (start[0] + end[0]) / 2
    path = Path(
        [start, (bend, start[1]), (bend, end[1]), end],
        [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
    )
    style = "-|>,head_length=4,head_width=2" if head else "-"
    axes.add_patch(
        FancyArrowPatch(path=path, arrowstyle=style, color=colour, linewidth=1.1, mutation_scale=1)
    )


def shortened(text: str, most: int) -> str:
    """Text of at most so many characters, its middle left out: both ends tell names apart."""
    if len(text) <= most:
        return text
    front = (most - 1) // 2
    return f"{text[:front]}…{text[len(text) - (most - 1 - front) :]}"
