"""The acceptance as Markdown with plots, for a pull request, and as tables on a terminal."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from tiedexport.report import markdown, origin_tables, speed_charts, tables
from tiedexport.report.page import Answer, Block, Chart, Page, Reasons
from tiedexport.report.page import Section as Part
from tiedexport.report.tables import Table
from tiedexport.results import BenchResult

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from tiedexport.results.acceptance import AcceptanceResult, Check, Section

_NO_DEVICE = "no GPU"


def write(result: AcceptanceResult, path: Path) -> None:
    """Write the page, and plots into the folder `<stem>-pictures` where altair is installed."""
    markdown.write(page(result), path)


def page(result: AcceptanceResult) -> Page:
    """Verdicts first, then every section."""
    answers = [
        Answer(section.question, section.status, section.reason, section.status)
        for section in result.sections
    ]
    parts = [
        Part(section.name, section.question, tuple(_blocks(section, result)))
        for section in result.sections
    ]
    machine = Part("environment", "", (origin_tables.environment(result.environment),))
    subtitle = f"{result.device or _NO_DEVICE}; {verdict(result)} after {result.seconds:.0f} s"
    return Page("Acceptance of a GPU", subtitle, tuple(answers), (*parts, machine))


def verdict(result: AcceptanceResult) -> str:
    """One of passed, failed, not run."""
    return "passed" if result.passed else "failed" if result.failed else "not run"


def overview(result: AcceptanceResult) -> Table:
    """A line a section: its verdict, and on how many rows."""
    rows = []
    for section in result.sections:
        statuses = [row.status for row in section.checks]
        statuses += [row.status for row in section.latencies]
        counts = (len(statuses), statuses.count("failed"), statuses.count("not run"))
        rows.append((section.name, section.status, *map(str, counts)))
    return Table(
        ("section", "verdict", "rows", "of them failed", "of them not run"),
        tuple(rows),
        first_number=2,
        marks=tuple(section.status for section in result.sections),
    )


def print_result(result: AcceptanceResult, console: Console | None = None) -> None:
    """For each section what ran, in tables, and why the rest did not pass; verdicts last."""
    from rich.console import Console as RichConsole

    from tiedexport.report import terminal

    console = console or RichConsole(highlight=False)
    for section in result.sections:
        for block in _tables(section, result):
            terminal.print_table(console, block)
        for status, who, why in _reasons(section):
            terminal.print_reason(console, status, who, status, why)
    console.print()
    terminal.print_table(console, overview(result))


def _reasons(section: Section) -> list[tuple[str, str, str]]:
    """(status, who, why) of whatever has something to say; equal reasons in one."""
    groups: dict[tuple[str, str], list[str]] = {}
    for check in section.checks:
        if check.reason:
            groups.setdefault((check.status, check.reason), []).append(check.what)
    found = [(status, ", ".join(names), why) for (status, why), names in groups.items()]
    found += tables.not_run(section.latencies)
    return found + [("note", section.name, note) for note in section.notes]


def _blocks(section: Section, result: AcceptanceResult) -> list[Block]:
    blocks: list[Block] = list(_tables(section, result))
    measured = _measured(section, result)
    if find_spec("altair") is not None:
        for stage in dict.fromkeys(row.stage for row in section.latencies):
            drawn = speed_charts.latency_chart(measured, stage)
            if drawn is not None:
                blocks.append(Chart(f"latency-{stage}", drawn, wide=True))
    reasons = _reasons(section)
    if reasons:
        blocks.append(Reasons(tuple(reasons)))
    return blocks


def _tables(section: Section, result: AcceptanceResult) -> list[Table]:
    """Checks with the same figures in one table, those without any in none, then latencies."""
    groups: dict[tuple[str, ...], list[Check]] = {}
    for check in section.checks:
        if check.reason and not check.figures:
            continue
        groups.setdefault(tuple(check.figures), []).append(check)
    found = [
        Table(
            (section.name, "verdict", *(name.replace("_", " ") for name in names)),
            tuple((c.what, c.status, *map(_figure, c.figures.values())) for c in checks),
            first_number=2,
            marks=tuple(check.status for check in checks),
        )
        for names, checks in groups.items()
    ]
    return [*found, *tables.latencies(_measured(section, result))]


def _measured(section: Section, result: AcceptanceResult) -> BenchResult:
    return BenchResult(section.name, section.latencies, result.environment, section.seconds)


def _figure(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value
