"""How fast is the machine? The section of a report that shows what `bench --suite` kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tiedexport.report import bench_tables, speed_charts, tables
from tiedexport.report.page import Chart, Reasons, Section
from tiedexport.report.tables import size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.report.page import Block
    from tiedexport.results.suite import SuiteModel, SuiteResult

_TEXT = (
    "Models of standing, the same on every machine, measured on {cpu} on {date}{commit}: they tell "
    "of that machine and of the runtimes on it, not of this bundle. Weights are {weights}."
)


def section(result: SuiteResult) -> Section:
    """A chart and a table of each model, and every reason once."""
    blocks = [block for model in result.models for block in _blocks(model)]
    why = dict.fromkeys(
        (status, who, reason)
        for model in result.models
        for status, who, reason in tables.not_run(model.bench.latencies)
    )
    why |= dict.fromkeys(
        ("unsteady", f"{model.name}: {kind}", reason)
        for model in result.models
        for _, kind, reason in bench_tables.doubts(model.bench)
    )
    if why:
        blocks.append(Reasons(tuple(why)))
    commit = f" at commit {result.commit}" if result.commit else ""
    cpu = f"{result.environment.cpu}, {result.environment.cores} cores,"
    text = _TEXT.format(cpu=cpu, date=result.date, commit=commit, weights=result.weights)
    return Section("The standing suite", text, tuple(blocks))


def _blocks(model: SuiteModel) -> Iterator[Block]:
    """A model under its name, with what its tied weights take in fp32."""
    widths = " - ".join(map(str, model.widths))
    name = f"{model.name} ({widths}; {size(model.weight_bytes)} in fp32)"
    for stage in dict.fromkeys(row.stage for row in model.bench.latencies):
        drawn = speed_charts.latency_chart(model.bench, stage)
        if drawn is not None:
            yield Chart(f"suite-{model.name}-{stage}", drawn, label=name)
    for table in tables.latencies(model.bench):
        yield replace(table, title=f"{name}, {table.title}")
