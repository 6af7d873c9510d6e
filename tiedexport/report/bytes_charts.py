"""What is stored against what is needed, a bar a stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiedexport.report import tie_tables
from tiedexport.report.charts import INK, MUTED, SERIES, finished, require_altair
from tiedexport.report.tables import size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tiedexport.report.charts import Spec
    from tiedexport.report.storage import Storage
    from tiedexport.results.ties import AuditResult, Stage

HELD, COPIES = SERIES[0], SERIES[1]
_ROW_PIXELS = 38


@dataclass(frozen=True)
class Bar:
    """A stage of a weight's way, and what lies there.

    Attributes:
        colour: of what is stored.
        counts: whether it decides whether the tie holds; others are drawn pale.
    """

    label: str
    needed_bytes: int
    stored_bytes: int
    colour: str = HELD
    counts: bool = True

    @property
    def ratio(self) -> float:
        """Stored over needed bytes."""
        return self.stored_bytes / self.needed_bytes


def stage_bars(result: AuditResult) -> list[Bar]:
    """A bar of every stage that was measured."""
    return [_stage_bar(s) for s in result.stages if s.needed_bytes and s.status != "not run"]


def _stage_bar(stage: Stage) -> Bar:
    colour = {"copies": COPIES, "not proven": MUTED}.get(stage.status, HELD)
    label = ": ".join(filter(None, (stage.name, stage.subject)))  # pale bars: for comparison
    return Bar(label, stage.needed_bytes, stage.stored_bytes, colour, stage.counts)


def storage_bars(accounts: Iterable[Storage]) -> list[Bar]:
    """For each precision the bundle's files, and for comparison one copy a use."""
    bars = []
    for account in accounts:
        needed = account.needed_bytes
        label, held = f"{account.precision} files", account.holds
        bars.append(Bar(label, needed, account.stored_bytes, HELD if held else COPIES))
        if account.one_copy_a_use_bytes > needed:
            untied = f"{account.precision} with one copy a use"
            bars.append(Bar(untied, needed, account.one_copy_a_use_bytes, COPIES, counts=False))
    return bars


def telling(bars: Sequence[Bar]) -> list[Bar]:
    """What the first screen has room for: all that counts, and what costs most of the rest."""
    rest = [bar for bar in bars if not bar.counts]
    worst = max(rest, key=lambda bar: bar.ratio, default=None)
    return [bar for bar in bars if bar.counts or (bar is worst and bar.ratio > 1.5)]


def bytes_chart(bars: Sequence[Bar], label_length: int = 58) -> Spec:
    """Bars of stored bytes, each with a line where the needed bytes end."""
    require_altair()
    import altair as alt

    rows = [_row(index, bar, label_length) for index, bar in enumerate(bars)]
    longest = max(max(bar.stored_bytes, bar.needed_bytes) for bar in bars)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("row:O", axis=None),
        tooltip=[
            alt.Tooltip("whole:N", title="stage"),
            alt.Tooltip("said:N", title="stored"),
            alt.Tooltip("needs:N", title="needed"),
        ],
    )
    length = alt.Scale(domain=[0, 1.7 * longest], nice=False)
    stored = base.mark_bar(height=14, yOffset=8).encode(
        x=alt.X("stored:Q", axis=None, scale=length),
        color=alt.Color("colour:N", scale=None),
        opacity=alt.Opacity("opacity:Q", scale=None, legend=None),
    )
    needed = base.mark_tick(thickness=2, height=20, yOffset=8, color=INK).encode(x="needed:Q")
    said = base.mark_text(align="left", dx=5, dy=8).encode(x="stored:Q", text="said:N")
    names = base.mark_text(align="left", dy=-8, color=MUTED).encode(x=alt.value(0), text="stage:N")
    chart = alt.layer(stored, needed, said, names).properties(
        width="container", height=_ROW_PIXELS * len(rows)
    )
    words = "; ".join(
        f"{bar.label}: {size(bar.stored_bytes)} stored, {size(bar.needed_bytes)} needed"
        for bar in bars
    )
    return finished(chart, f"Bytes stored, and a mark where the bytes needed end. {words}")


def _row(index: int, bar: Bar, label_length: int) -> dict[str, object]:
    return {
        "row": index,
        "stage": tie_tables.shortened(bar.label, label_length),
        "whole": bar.label,
        "stored": bar.stored_bytes,
        "needed": bar.needed_bytes,
        "said": f"{size(bar.stored_bytes)}: {bar.ratio:.3f} ×",
        "needs": size(bar.needed_bytes),
        "colour": bar.colour,
        "opacity": 1.0 if bar.counts else 0.45,
    }
