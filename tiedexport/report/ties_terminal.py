"""Audit and retie on a terminal: the table of stages first, the verdict last."""

from __future__ import annotations

import re
import textwrap
from pathlib import PurePath
from typing import TYPE_CHECKING

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

_BROKEN_SHOWN, _HELD_SHOWN, _NAMES_SHOWN = 5, 2, 6
"""Ties told in full a stage, and names in a summary: fifty layers fill no screen after screen."""

_MENDS_SHOWN = 12

_NARROW = 72
"""Below so many columns the table of stages shows ratios and no bytes."""


def print_audit(result: AuditResult, console: Console | None = None) -> None:
    """Stages, tied weights with their copies, mistakes of a module, reasons, and the verdict."""
    console = console or Console(highlight=False)
    print_table(console, _stages(result, console))
    ties = _Ties(console, tie_tables.short_names(result))
    for stage in result.stages:
        ties.tell(stage)
    for finding in tie_tables.findings(result):
        _print_finding(console, finding)
    for status, who, why in tie_tables.reasons(result):
        print_reason(console, status, who, status, why)
    if tie_tables.reasons(result):
        console.print()
    word, sentence, mark = tie_tables.verdict(result)
    colour = COLOURS.get(mark, "default")
    console.print(f"[bold]Does the tie hold?[/] [{colour}]{word}[/]: {escape(sentence)}")


def _stages(result: AuditResult, console: Console) -> Table:
    """A row a stage, its subjects indented below its name: one column less, so that 80 do."""
    headers: tuple[str, ...] = ("ties held", "needed", "stored", "ratio", "status")
    kept = slice(-2 if console.width < _NARROW else None, None)
    headers = headers[kept]
    cells = [tie_tables.figures(stage)[kept] for stage in result.stages]
    columns = zip(headers, *cells, strict=True)
    taken = sum(2 + max(map(len, column)) for column in columns)
    frame = (len(headers) + 2) * console.is_terminal
    room = max(12, console.width - taken - frame)
    rows: list[tuple[str, ...]] = []
    marks = []
    previous = ""
    for stage, figures in zip(result.stages, cells, strict=True):
        what = textwrap.fill(
            _with_ends(tie_tables.subject(stage), room - 5),
            room,
            initial_indent="  ",
            subsequent_indent="    ",
        )
        if what and stage.name != previous:
            rows.append((stage.name, *[""] * len(figures)))
            marks.append("")
        rows.append((what or stage.name, *figures))
        marks.append(tie_tables.mark(stage))
        previous = stage.name
    return Table(("stage", *headers), tuple(rows), marks=tuple(marks))


def _with_ends(subject: str, room: int) -> str:
    """The subject with the middle left out of each path that takes more room: its end tells."""
    return "".join(
        _middle_left_out(part, room) if "/" in part and len(part) > room else part
        for part in re.split(r"([,;] )", subject)
    )


def _middle_left_out(path: str, room: int) -> str:
    """The first part of a path, and as many of the last as there is room for; at least the name."""
    first, *rest = PurePath(path).parts
    if first == "/":
        first, *rest = f"/{rest[0]}", *rest[1:]
    ends = ("/".join((first, "…", *rest[start:])) for start in range(1, len(rest)))
    shorter = f"…/{PurePath(path).name}"
    return next((end for end in ends if len(end) <= room), shorter)


class _Ties:
    """Tells each tie where it first appears: later stages mostly see the same again."""

    def __init__(self, console: Console, files: dict[str, str]) -> None:
        self._console, self._files = console, files
        self._held: set[str] = set()
        self._broken: set[frozenset[tuple[str, int | None, str]]] = set()

    def tell(self, stage: Stage) -> None:
        """Broken ties always, in full the first few times; those that hold once, if not many."""
        broken = tie_tables.by_loss(stage.ties)
        held = [t for t in stage.ties if len(t.copies) <= 1 and t.name not in self._held]
        if not broken and not held:
            return
        self._console.print(f"[bold]{escape(tie_tables.label(stage))}[/]")
        full = [tie for tie in broken if _places(tie) not in self._broken]
        full = full[:_BROKEN_SHOWN] if stage.counts else []
        for tie in full:
            self._in_full(tie)
        self._broken |= set(map(_places, full))
        if rest := [tie for tie in broken if tie not in full]:
            more = "more " if full else ""
            which = tie_tables.count(len(rest), f"{more}tie", f"{more}ties")
            lost = size(sum(map(tie_tables.lost_bytes, rest)))
            self._in_a_line(f"{which} stored more than once, {lost} too much", rest)
        if len(held) > _HELD_SHOWN:
            self._in_a_line(f"{len(held):,} ties, one copy each", held)
        else:
            for tie in held:
                self._in_full(tie)
        self._held |= {tie.name for tie in held}
        self._console.print()

    def _in_a_line(self, text: str, ties: Sequence[TiedWeight]) -> None:
        names = tie_tables.listed([tie.name for tie in ties], _NAMES_SHOWN)
        self._console.print(Padding(escape(f"{text}: {names}"), (0, 0, 0, 2), expand=False))

    def _in_full(self, tie: TiedWeight) -> None:
        colour = "bold red" if len(tie.copies) > 1 else "green"
        head = f"[{colour}]{escape(tie.name)}[/]: {tie_tables.totals(tie)}"
        self._console.print(Padding(head, (0, 0, 0, 2), expand=False))
        grid = RichTable.grid(padding=(0, 2, 0, 0))
        for copy in tie.copies:
            readers = tie_tables.listed(tie_tables.readers(copy, self._files), 4)
            lines = [tie_tables.place(copy, self._files)] + [f"read by {readers}"] * bool(readers)
            if len(tie.copies) == 1:
                grid.add_row(escape("\n".join(lines)))
            else:
                lines = [f"{tie_tables.name(copy)}, {tie_tables.kind(copy)}", *lines]
                grid.add_row(escape(copy.form), escape("\n".join(lines)))
        for column in grid.columns:
            column.overflow = "fold"
        self._console.print(Padding(grid, (0, 0, 0, 4), expand=False))


def _places(tie: TiedWeight) -> frozenset[tuple[str, int | None, str]]:
    """Where the copies lie: stages that look at the same bytes have the same."""
    return frozenset((copy.file, copy.offset, copy.name) for copy in tie.copies)


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
    _print_mends(console, result.mends, ends, f"{_mended(result)}: kept ← removed")
    proposed = "nearly equal: kept ← removed; tied only with --accept"
    _print_mends(console, result.proposals, ends, proposed)
    for reason in dict.fromkeys(left.reason for left in result.left):
        here = [left for left in result.left if left.reason == reason]
        shown = tie_tables.listed([_short(left.copy, ends) for left in here], _NAMES_SHOWN)
        print_reason(console, "not run", shown, "left", reason)
    if result.left:
        console.print()
    _print_summary(console, result)


def _mended(result: RetieResult) -> str:
    """What became of the mends: they are in files, or in none."""
    return "mended" if result.outputs or not result.mends else "would mend"


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
        (_mended(result), mended if result.mends else "nothing"),
        ("bytes", f"{size(before)} → {size(after)}{change}"),
        ("written", "\n".join(result.outputs) or "nothing written"),
        ("proof", detail),
    ]
    if result.proof == "not proven" and not result.outputs:
        rows.append(("next", "--unproven writes it as it is"))
    marks = ("", "", "", "" if result.outputs else "not run", mark, "")[: len(rows)]
    print_table(console, Table(("retie", ""), tuple(rows), 2, marks))
