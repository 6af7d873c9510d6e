"""Layer by layer: a table a stage and precision, and the first layer that strays of each runner."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from tiedexport.report import numbers_charts, tables
from tiedexport.report.page import Chart, Fold
from tiedexport.report.tables import Table, contender, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.report.page import Block
    from tiedexport.results import Comparison, VerifyResult
    from tiedexport.spec import Precision

_COLUMNS = 4


def layer_tables(result: VerifyResult) -> Iterator[Table]:
    """Errors in units of their bounds by layer and runner, a few runners to a table."""
    for rows in _by_stage(result).values():
        yield from _tables(rows)


def _tables(rows: Sequence[Comparison]) -> Iterator[Table]:
    """Of one stage and precision."""
    runners = list(dict.fromkeys(map(_runner, rows)))
    for first in range(0, len(runners), _COLUMNS):
        title = f"{rows[0].stage} {rows[0].precision}"
        yield _table(title, rows, runners[first : first + _COLUMNS])


def _table(title: str, rows: Sequence[Comparison], runners: Sequence[str]) -> Table:
    cells = {(row.layer, _runner(row)): row for row in rows}
    lines, marks = [], []
    for layer in dict.fromkeys(row.layer for row in rows):
        here = [cells.get((layer, runner)) for runner in runners]
        statuses = {row.status for row in here if row is not None}
        marks.append(next(s for s in ("failed", "passed", "not run") if s in statuses))
        lines.append((layer, *map(_error, here), marks[-1]))
    return Table(
        ("layer", *runners, "status"),
        tuple(lines),
        marks=tuple(marks),
        title=f"{title}: error of each layer in units of its bound",
    )


def _runner(row: Comparison) -> str:
    return contender(structs.replace(row, precision=None))


def _error(row: Comparison | None) -> str:
    if row is None:
        return "–"
    return row.status if row.error_in_bounds is None else number(row.error_in_bounds, ".3f")


def folds(result: VerifyResult) -> list[Fold]:
    """A heat map of each stage and precision, and its tables, under a title each."""
    found = []
    for (stage, precision), rows in _by_stage(result).items():
        drawn = numbers_charts.layer_map(rows)
        blocks: list[Block] = [Chart(f"layers-{stage}-{precision}", drawn)] if drawn else []
        title = f"{stage} {precision}: error of each layer in units of its bound"
        blocks += [replace(table, title="") for table in _tables(rows)]
        found.append(Fold(title, tuple(blocks)))
    return found


def _by_stage(result: VerifyResult) -> dict[tuple[str, Precision | None], list[Comparison]]:
    groups: dict[tuple[str, Precision | None], list[Comparison]] = {}
    for row in result.layers:
        if row.layer:
            groups.setdefault((row.stage, row.precision), []).append(row)
    return groups


def reasons(result: VerifyResult) -> list[tuple[str, str, str]]:
    """(status, who, why) of all that did not pass: what strays first, and what could not run."""
    unseen = [row for row in result.layers if not row.layer or row.status == "not run"]
    return [
        *((row.status, f"{contender(row)} {row.stage}", _where(row)) for row in result.strays),
        *tables.not_run([*result.comparisons, *unseen, *result.quality]),
    ]


def _where(row: Comparison) -> str:
    by = row.error_in_bounds
    return f"strays at {row.layer}: {row.reason}" + ("" if by is None else f", by up to {by:.3g} x")
