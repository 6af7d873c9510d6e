"""What `bench` measured, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from tiedexport.report import bench_tables, device_tables, surroundings_tables, tables
from tiedexport.report.terminal import print_reason, print_reasons, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tiedexport.results import BenchResult
    from tiedexport.results.bench import Against
    from tiedexport.results.suite import SuiteResult


def print_bench(
    result: BenchResult, console: Console | None = None, *, details: bool = False
) -> None:
    """Median and tail latency by batch size, ratios and changes, and every reason in full.

    Args:
        result: of `bench`.
        console: where to; by default standard output.
        details: every figure of every row too, in lines like trtexec's.
    """
    console = console or Console(highlight=False)
    for table in (
        *tables.latencies(result),
        *device_tables.tables(result.latencies),
        *bench_tables.ratios(result),
    ):
        print_table(console, table)
    if result.baseline and not result.ratios:
        who = f"speed over {result.baseline}"
        print_reason(console, "not run", who, "not run", "it, or every other row, has no figures")
    for status, who, reason in bench_tables.few_rounds(result.ratios):
        print_reason(console, status, who, "", reason)
    if details:
        _print_summaries(console, result)
    if result.against is not None:
        _print_changes(console, result.against)
    _print_unsteady(console, result)
    for table in surroundings_tables.tables(result):
        print_table(console, table)
    print_reasons(
        console,
        tables.not_run(result.latencies)
        + device_tables.reasons(result.latencies)
        + surroundings_tables.reasons(result),
    )
    console.print(escape(bench_tables.timer(result)))


def print_suite(result: SuiteResult, console: Console | None = None) -> None:
    """The tables of each model, and every reason once."""
    console = console or Console(highlight=False)
    told: dict[tuple[str, str, str], None] = {}
    for model in result.models:
        widths = " - ".join(map(str, model.widths))
        console.print(f"[bold]{model.name}[/]: {widths}, {tables.size(model.weight_bytes)}")
        for table in tables.latencies(model.bench):
            print_table(console, table)
        _print_unsteady(console, model.bench)
        told |= dict.fromkeys(tables.not_run(model.bench.latencies))
    print_reasons(console, list(told))
    console.print(escape(f"weights: {result.weights}"))


def _print_unsteady(console: Console, result: BenchResult) -> None:
    for status, kind, reason in bench_tables.doubts(result):
        print_reason(console, status, kind, "may not repeat", reason)


def _print_summaries(console: Console, result: BenchResult) -> None:
    for row in result.latencies:
        if row.status == "passed":
            who = f"{row.stage}, batch {row.batch}: {tables.contender(row)}"
            console.print(f"[bold]{escape(who)}[/]")
            _print_lines(console, [*bench_tables.summary(row), *device_tables.summary(row)])
    for name, lines in device_tables.not_run(result.latencies).items():
        console.print(f"[bold]{escape(name)}[/]")
        _print_lines(console, lines)
    console.print()


def _print_lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        # In a pipe a line is a line, for whoever looks for it there.
        console.print(f"  {escape(line)}", soft_wrap=not console.is_terminal)


def _print_changes(console: Console, against: Against) -> None:
    print_table(console, bench_tables.changes(against))
    for line in filter(None, (bench_tables.machine(against), bench_tables.outcome(against))):
        console.print(escape(line))
    for status, who, what in bench_tables.against_remarks(against):
        print_reason(console, status, who, "", what)
    console.print()
