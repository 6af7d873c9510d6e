"""Results as tables on a terminal: 80 columns, plain text in a pipe, NO_COLOR honoured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as RichTable

from tiedexport.report import layers, origin_tables, tables, tie_tables
from tiedexport.report.tables import Table, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tiedexport.manifest import Manifest
    from tiedexport.results import BuildResult, DoctorResult, VerifyResult
    from tiedexport.results.demo import DemoResult
    from tiedexport.spec import Precision

T = TypeVar("T")

COLOURS = {"passed": "green", "failed": "bold red", "not run": "yellow"}


def print_verify(result: VerifyResult, console: Console | None = None) -> None:
    """Errors in units of their bounds, test RMSE, layer by layer, and every reason in full."""
    console = console or Console(highlight=False)
    print_table(console, tables.comparisons(result))
    print_table(console, tables.quality(result))
    for table in layers.layer_tables(result):
        print_table(console, table)
    print_reasons(console, layers.reasons(result))


def print_doctor(result: DoctorResult, console: Console | None = None) -> None:
    """What this machine has; for what it lacks, why and what to do."""
    console = console or Console(highlight=False)
    present = [row for row in result.components if row.availability.available]
    table = Table(
        ("available", "kind", "version"),
        tuple((row.name, row.kind, row.availability.version) for row in present),
        first_number=3,
    )
    print_table(console, table)
    for row in result.components:
        found = row.availability
        if not found.available:
            print_reason(console, "not run", f"{row.name} ({row.kind})", "missing", found.reason)
            if found.remedy:
                console.print(Padding(escape(found.remedy), (0, 0, 0, 4), expand=False))
    for warning in result.warnings:
        print_reason(console, "failed", "warning", "", warning)
    print_table(console, origin_tables.environment(result.environment))


def print_build(result: BuildResult, console: Console | None = None) -> None:
    """What was written, and every engine that was built or why not."""
    console = console or Console(highlight=False)
    ratio = result.file_bytes / result.parameter_bytes
    rows = [
        ("precisions", ", ".join(map(str, result.precisions))),
        ("parameters, each once", size(result.parameter_bytes)),
        ("files without engines", f"{size(result.file_bytes)} ({ratio:.4f} x)"),
        ("engines", size(result.engine_bytes)),
    ]
    print_table(console, Table((result.bundle, ""), tuple(rows), first_number=2))
    print_table(console, _kept(result.kept))
    built = [engine for engine in result.engines if engine.status == "passed"]
    engines = Table(
        ("engine", "target", "size", "took"),
        tuple(
            (
                f"{e.stage} {e.precision}",
                e.target,
                size(e.size_bytes),
                "unchanged" if e.reused else tables.seconds(e.seconds),
            )
            for e in built
        ),
        first_number=2,
    )
    print_table(console, engines)
    notes = ((note, f"{e.stage} {e.precision} for {e.target}") for e in built for note in e.notes)
    for note, who in _said_once(notes):
        console.print(f"[bold]{escape(who)}[/]", soft_wrap=False)
        console.print(Padding(escape(note), (0, 0, 1, 4), expand=False))
    unbuilt = (
        ((e.status, e.reason), " ".join(map(str, filter(None, (e.target, e.stage, e.precision)))))
        for e in result.engines
        if e.status != "passed"
    )
    for (status, reason), who in _said_once(unbuilt):
        print_reason(console, status, who, "not built" if status == "not run" else status, reason)


def _kept(kept: Mapping[Precision, Mapping[str, Precision]]) -> Table:
    """The weights that have another type than the graphs that they are in."""
    return Table(
        ("weight", "in graphs of", "has type"),
        tuple((name, str(p), str(t)) for p, types in kept.items() for name, t in types.items()),
        first_number=3,
    )


def _said_once(pairs: Iterable[tuple[T, str]]) -> Iterator[tuple[T, str]]:
    """What is to be said, each with all of which it is true."""
    said: dict[T, list[str]] = {}
    for what, who in pairs:
        said.setdefault(what, []).append(who)
    return ((what, ", ".join(about)) for what, about in said.items())


def print_manifest(manifest: Manifest, console: Console | None = None) -> None:
    """Stages, shapes, ties, files, engines, versions and training of a bundle."""
    console = console or Console(highlight=False)
    head = Table(
        (manifest.name, ""),
        (
            ("family", manifest.family),
            ("parameters", f"{manifest.parameter_count:,}"),
            ("opset", str(manifest.opset)),
            ("written", f"{manifest.created} by {manifest.generator}"),
        ),
        first_number=2,
    )
    made_with = Table(("made with", ""), tuple(manifest.versions.items()), first_number=2)
    for part in (head, *_interface(manifest), *_contents(manifest), made_with):
        print_table(console, part)
    if manifest.training is not None:
        print_table(console, origin_tables.training(manifest.training))


def print_demo(result: DemoResult, console: Console | None = None) -> None:
    """The whole path in one table, and where the report is."""
    console = console or Console(highlight=False)
    record, built, bench = result.train.record, result.build, result.bench
    ran = [row for row in result.verify.comparisons if row.status != "not run"]
    agreed = sum(row.status == "passed" for row in ran)
    fastest = min(
        (row for row in bench.latencies if row.median_s is not None),
        key=lambda row: (row.batch, row.median_s),
        default=None,
    )
    stored = f"{size(built.file_bytes)}, {built.file_bytes / built.parameter_bytes:.4f} x its"
    rows = [
        ("test RMSE", f"{record.test_rmse:.4f} after {record.epochs} epochs"),
        ("parameters", f"{record.parameters:,} (untied: {record.untied_parameters:,})"),
        ("bundle", f"{stored} parameters"),
        ("ties", tie_tables.verdict(result.audit).sentence),
        ("agreement", f"{agreed} of {len(ran)} within bounds{tables.remarked(ran)}"),
    ]
    if fastest is not None:
        what = f"{tables.contender(fastest)}, batch {fastest.batch}"
        rows.append(("latency", f"{tables.seconds(fastest.median_s)} ({what}, median)"))
    print_table(console, Table(("demo", ""), tuple(rows), first_number=2))
    print_reasons(console, tables.not_run(result.verify.comparisons))
    console.print(f"report: {escape(result.report)}", soft_wrap=True)


def _interface(manifest: Manifest) -> Iterator[Table]:
    """Stages and ties."""
    yield Table(
        ("stage", "input", "output"),
        tuple((s.name, str(s.inputs[0]), str(s.outputs[0])) for s in manifest.stages),
        first_number=3,
    )
    yield Table(
        ("tied weight", "used by"),
        tuple((tie.weight, ", ".join(tie.uses)) for tie in manifest.ties),
        first_number=2,
    )
    yield _kept(manifest.kept)


def _contents(manifest: Manifest) -> Iterator[Table]:
    """Files and engines."""
    yield Table(
        ("file", "size", "SHA-256"),
        tuple(
            (name, size(record.size_bytes), record.sha256[:12])
            for name, record in manifest.files.items()
        ),
    )
    yield Table(
        ("engine", "target", "made by", "weights", "batches"),
        tuple(
            (
                f"{p.stage} {p.precision}",
                p.target,
                f"{p.package} {p.package_version}",
                p.weights,
                ", ".join("-".join(map(str, profile)) for profile in p.profiles),
            )
            for p in manifest.plans
        ),
        first_number=4,
    )


def print_table(console: Console, table: Table) -> None:
    """A table, unless it is empty; lines and colours only on a terminal."""
    if not table.rows:
        return
    grid = RichTable(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )
    if table.title:
        console.print(f"[bold]{escape(table.title)}[/]")
    for column, header in enumerate(table.headers):
        side: Literal["left", "right"] = "right" if column >= table.first_number else "left"
        grid.add_column(escape(header), justify=side, overflow="fold")
    marks = table.marks or ("",) * len(table.rows)
    for row, mark in zip(table.rows, marks, strict=True):
        *cells, last = map(escape, row)
        colour = COLOURS.get(mark)
        grid.add_row(*cells, f"[{colour}]{last}[/]" if colour else last)
    console.print(grid)
    console.print()


def print_reasons(console: Console, reasons: Sequence[tuple[str, str, str]]) -> None:
    """(status, who, reason) of each, if there are any."""
    for status, who, reason in reasons:
        print_reason(console, status, who, status, reason)
    if reasons:
        console.print()


def print_reason(console: Console, mark: str, who: str, word: str, reason: str) -> None:
    """Who, what, and why below it, wrapped but never cut."""
    colour = COLOURS.get(mark, "default")
    console.print(f"[bold]{escape(who)}[/] [{colour}]{word}[/]", soft_wrap=False)
    console.print(Padding(escape(reason), (0, 0, 0, 4), expand=False))
