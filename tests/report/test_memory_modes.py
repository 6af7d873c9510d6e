"""A contender in packed memory is told from its twin in shared memory wherever both are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import handmade
import msgspec
import pytest
from chart_data import values

from tiedexport.report import report, speed_charts, tables

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.results import BenchResult


pytestmark = pytest.mark.usefixtures("quick_charts")


def packed(result: BenchResult) -> BenchResult:
    rows = tuple(msgspec.structs.replace(row, memory="packed") for row in result.latencies)
    return msgspec.structs.replace(result, latencies=rows)


def both(result: BenchResult) -> BenchResult:
    rows = result.latencies + packed(result).latencies
    return msgspec.structs.replace(result, latencies=rows)


def test_the_table_and_the_chart_have_a_row_and_a_line_for_each_mode():
    shared = handmade.bench_result()
    (table, *_), (plain, *_) = tables.latencies(both(shared)), tables.latencies(shared)
    names = [row[0] for row in plain.rows]
    assert [row[0] for row in table.rows] == names + [f"{name} packed" for name in names]
    chart = speed_charts.latency_chart(both(shared), "autoencoder")
    assert chart is not None
    points = chart["layer"][-1]
    modes = {row["who"]: row["memory"] for row in values(chart, -1)}
    for name in names:
        assert (modes[name], modes[f"{name} packed"]) == ("shared", "packed")
    assert "packed" in points["encoding"]["fill"]["condition"]["test"]


@pytest.mark.parametrize(
    ("change", "option"),
    [(lambda r: r, ""), (packed, " --memory packed"), (both, " --memory both")],
)
def test_the_command_that_repeats_it_names_the_mode(tmp_path: Path, change, option):
    bundle = handmade.bundle(tmp_path / "m.tied")
    result = change(handmade.bench_result())
    page = report(bundle, bench=result, output=tmp_path / "report.html")
    lines = page.with_suffix(".md").read_text("utf-8").splitlines()
    (command,) = [line for line in lines if line.startswith("tiedexport bench")]
    assert ("--memory" in command) == bool(option)
    assert option in command
