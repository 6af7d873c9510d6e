"""Audit and retie on a terminal: the table of stages first, the verdict last."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as RichTable

from tiedexport.report import tie_tables
from tiedexport.report.tables import Table, size
from tiedexport.report.terminal import COLOURS, print_reason, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.results.ties import (
        AuditResult,
        Finding,
        Mend,
        RetieResult,
        Stage,
        TiedWeight,
    )

Places: TypeAlias = "frozenset[tuple[str, int | None, str]]"

_BROKEN_SHOWN, _HELD_SHOWN, _NAMES_SHOWN = 5, 2, 6
"""Ties told in full a stage, and names in a summary: fifty layers fill no screen after screen."""

_MENDS_SHOWN = 12

_NARROW = 72
"""Below so many columns the table of stages shows ratios and no bytes."""


def print_audit(result: AuditResult, console: Console | None = None) -> None:
    """Stages, tied weights with their copies, mistakes of a module, reasons, and the verdict."""
    console = console or Console(highlight=False)
    print_table(console, _stages(result, narrow=console.width < _NARROW))
    files = tie_tables.short_names(result)
    told: set[Places] = set()
    for stage in result.stages:
        _print_ties(console, stage, files, told)
    for finding in tie_tables.findings(result):
        _print_finding(console, finding)
    for status, who, why in tie_tables.reasons(result):
        print_reason(console, status, who, status, why)
    if tie_tables.reasons(result):
        console.print()
    word, sentence, mark = tie_tables.verdict(result)
    colour = COLOURS.get(mark, "default")
    console.print(f"[bold]Does the tie hold?[/] [{colour}]{word}[/]: {escape(sentence)}")


def _stages(result: AuditResult, *, narrow: bool) -> Table:
    """A row a stage, its subjects indented below its name: one column less, so that 80 do."""
    headers: tuple[str, ...] = ("ties held", "needed", "stored", "ratio", "status")
    kept = slice(-2, None) if narrow else slice(None)
    rows: list[tuple[str, ...]] = []
    marks = []
    previous = ""
    for stage in result.stages:
        what, cells = tie_tables.subject(stage), tie_tables.figures(stage)[kept]
        if what and stage.name != previous:
            rows.append((stage.name, *[""] * len(cells)))
            marks.append("")
        rows.append((f"  {what}" if what else stage.name, *cells))
        marks.append(tie_tables.mark(stage))
        previous = stage.name
    return Table(("stage", *headers[kept]), tuple(rows), marks=tuple(marks))


def _print_ties(console: Console, stage: Stage, files: dict[str, str], told: set[Places]) -> None:
    """Ties in full that no earlier stage has told, the rest in a line; adds to `told`."""
    if not stage.ties:
        return
    console.print(f"[bold]{escape(tie_tables.label(stage))}[/]")
    broken = tie_tables.by_loss(stage.ties)
    held = [tie for tie in stage.ties if len(tie.copies) <= 1]
    full = [tie for tie in broken if _places(tie) not in told][: _BROKEN_SHOWN * stage.counts]
    more = "more " if full else ""
    if len(held) <= _HELD_SHOWN:
        full += [tie for tie in held if _places(tie) not in told]
    for tie in full:
        _print_tie(console, tie, files)
    told |= {_places(tie) for tie in full}
    if rest := [tie for tie in broken if tie not in full]:
        which = tie_tables.count(len(rest), f"{more}tie", f"{more}ties")
        lost = size(sum(map(tie_tables.lost_bytes, rest)))
        _say(console, f"{which} stored more than once, {lost} too much", rest)
    if rest := [tie for tie in held if tie not in full]:
        holding = tie_tables.count(len(rest), "tie holds", "ties hold")
        _say(console, f"{holding}, one copy each", rest)
    console.print()


def _places(tie: TiedWeight) -> Places:
    """Where the copies lie: two stages that look at the same bytes tell the same."""
    return frozenset((copy.file, copy.offset, copy.name) for copy in tie.copies)


def _say(console: Console, text: str, ties: Sequence[TiedWeight]) -> None:
    names = tie_tables.listed([tie.name for tie in ties], _NAMES_SHOWN)
    console.print(Padding(escape(f"{text}: {names}"), (0, 0, 0, 2), expand=False))


def _print_tie(console: Console, tie: TiedWeight, files: dict[str, str]) -> None:
    colour = "bold red" if len(tie.copies) > 1 else "green"
    head = f"[{colour}]{escape(tie.name)}[/]: {tie_tables.totals(tie)}"
    console.print(Padding(head, (0, 0, 0, 2), expand=False))
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    for copy in tie.copies:
        where, uses = tie_tables.place(copy, files), tie_tables.listed(tie_tables.readers(copy), 4)
        lines = [where] + [f"read by {uses}"] * bool(uses)
        if len(tie.copies) == 1:
            grid.add_row(escape("\n".join(lines)))
        else:
            lines = [f"{tie_tables.name(copy)}, {tie_tables.kind(copy)}", *lines]
            grid.add_row(escape(copy.form), escape("\n".join(lines)))
    for column in grid.columns:
        column.overflow = "fold"
    console.print(Padding(grid, (0, 0, 0, 4), expand=False))


def _print_finding(console: Console, finding: Finding) -> None:
    """What is wrong, what follows, and a line to copy: it is never wrapped."""
    mark = "failed" if finding.breaks_now else "not run"
    word = tie_tables.when(finding.breaks_now)
    print_reason(console, mark, f"{finding.kind}: {finding.where}", word, finding.consequence)
    console.print("    write instead:")
    for line in finding.instead.splitlines():
        console.print(f"      {escape(line)}", soft_wrap=True)
    console.print()


def print_retie(result: RetieResult, console: Console | None = None) -> None:
    """What gave way to what, what stays and why, proposals, the proof, and what was written."""
    console = console or Console(highlight=False)
    ends = tie_tables.shortest_ends(result.inputs)
    _print_mends(console, result.mends, ends, "mended: kept ← removed")
    proposed = "nearly equal: kept ← removed; tied only with --accept"
    _print_mends(console, result.proposals, ends, proposed)
    for reason in dict.fromkeys(left.reason for left in result.left):
        here = [left for left in result.left if left.reason == reason]
        shown = tie_tables.listed([_short(left.copy, ends) for left in here], _NAMES_SHOWN)
        print_reason(console, "not run", shown, "left", reason)
    if result.left:
        console.print()
    _print_summary(console, result)


def _print_mends(console: Console, mends: Sequence[Mend], ends: dict[str, str], title: str) -> None:
    """The largest first, and the rest in one line."""
    if not mends:
        return
    console.print(f"[bold]{escape(title)}[/]")
    ordered = sorted(mends, key=lambda mend: -mend.saved_bytes)
    for mend in ordered[:_MENDS_SHOWN]:
        what = f"{_short(mend.kept, ends)} ← {_short(mend.removed, ends)}"
        console.print(Padding(escape(what), (0, 0, 0, 2), expand=False))
        apart = f", off by at most {mend.difference:.2g}" if mend.difference else ""
        how = f"{mend.form}{apart} → {mend.how}; saves {size(mend.saved_bytes)}"
        console.print(Padding(escape(how), (0, 0, 0, 6), expand=False))
    if rest := ordered[_MENDS_SHOWN:]:
        saved = size(sum(mend.saved_bytes for mend in rest))
        console.print(f"  and {len(rest):,} more, {saved} in all; --json FILE lists them")
    console.print()


def _short(place: str, ends: dict[str, str]) -> str:
    """`file: name` with the file as short as it can be told; the name alone where one was given."""
    for path, end in ends.items():
        if place.startswith(f"{path}: "):
            name = place.removeprefix(f"{path}: ")
            return name if len(ends) == 1 else f"{end}: {name}"
    return place


def _print_summary(console: Console, result: RetieResult) -> None:
    saved = sum(mend.saved_bytes for mend in result.mends)
    mended = f"{tie_tables.count(len(result.mends), 'copy', 'copies')}, {size(saved)}"
    before, after = result.bytes_before, result.bytes_after
    change = f" ({after / before:.3f} x)" if before else ""
    mark = "passed" if result.passed else "failed" if result.failed else "not run"
    detail = ": ".join(filter(None, (result.proof, result.proof_detail)))
    rows = [
        ("given", "\n".join(tie_tables.shortest_ends(result.inputs).values())),
        ("mended", mended if result.mends else "nothing"),
        ("bytes", f"{size(before)} → {size(after)}{change}"),
        ("written", "\n".join(result.outputs) or "nothing written"),
        ("proof", detail),
    ]
    marks = ("", "", "", "" if result.outputs else "not run", mark)
    print_table(console, Table(("retie", ""), tuple(rows), 2, marks))
