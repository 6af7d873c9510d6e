"""Results as rows of text, the same for the terminal, HTML and Markdown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tiedexport.results import BenchResult, Comparison, Latency, VerifyResult
    from tiedexport.spec import Precision


_UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Table:
    """Text in rows; columns from `first_number` on are aligned to the right.

    `marks` has, for each row, "passed", "failed", "not run" or "". A wide one has a row of the page
    to itself.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    first_number: int = 1
    marks: tuple[str, ...] = ()
    title: str = ""
    wide: bool = False


class Contender(Protocol):
    """What every record of something that a runtime did has."""

    @property
    def runtime(self) -> str:
        """Its name."""
        ...

    @property
    def precision(self) -> Precision | None:
        """What it computed in; None for a runtime that cannot run here at all."""
        ...

    @property
    def remark(self) -> str:
        """What must be said beside it; mostly nothing."""
        ...


class Row(Contender, Protocol):
    """What every record with a verdict has."""

    @property
    def status(self) -> str:
        """One of passed, failed, not run."""
        ...

    @property
    def reason(self) -> str:
        """Why it did not pass."""
        ...


def contender(row: Contender) -> str:
    """A runtime and precision in a few characters, and any remark: onnxruntime fp32 packed."""
    mode = "packed" if getattr(row, "memory", "shared") == "packed" else None
    return " ".join(str(part) for part in (row.runtime, row.precision, mode, _remark(row)) if part)


def remarked(rows: Iterable[Contender]) -> str:
    """How many rows there is something to say of: ", 6 of them (network, simulated)"; or ""."""
    remarks = Counter(filter(None, map(_remark, rows)))
    return "".join(f", {count} of them {remark}" for remark, count in remarks.items())


def _remark(row: Contender) -> str:
    return f"({row.remark})" if row.remark else ""


def seconds(value: float | None) -> str:
    """Three significant digits with the unit that suits: 38.2 µs, 1.24 ms, 2.10 s."""
    if value is None:
        return "–"
    unit = next((unit for unit, scale in _UNITS.items() if value >= 0.9995 * scale), "ns")
    return f"{_three_digits(value / _UNITS[unit])} {unit}"


def size(value: int) -> str:
    """Bytes with the binary unit that suits: 512 B, 3.40 MiB."""
    if value < 1024:
        return f"{value} B"
    for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1):
        scaled = value / 1024**power
        if scaled < 999.5 or unit == "TiB":
            break
    return f"{_three_digits(scaled)} {unit}"


def number(value: float | None, form: str = ".3g") -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else format(value, form)


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:#.3g}"


def not_run(rows: Iterable[Row]) -> list[tuple[str, str, str]]:
    """(status, who, reason) of every row that has a reason; equal reasons of a runtime in one."""
    groups: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for row in rows:
        if row.reason:
            key = (row.status, row.runtime, _remark(row), row.reason)
            groups.setdefault(key, {})[str(row.precision or "")] = None
    return [
        (status, " ".join(filter(None, (runtime, ", ".join(precisions), remark))), reason)
        for (status, runtime, remark, reason), precisions in groups.items()
    ]


def comparisons(result: VerifyResult) -> Table:
    """The worst error in units of its bound, by contender and stage, for everything that ran."""
    ran = [row for row in result.comparisons if row.status != "not run"]
    stages = list(dict.fromkeys(row.stage for row in ran if row.stage))
    rows, marks = [], []
    for name in dict.fromkeys(map(contender, ran)):
        here = {row.stage: row for row in ran if contender(row) == name}
        failed = any(row.status == "failed" for row in here.values())
        marks.append("failed" if failed else "passed")
        cells = (_error(here.get(stage)) for stage in stages)
        rows.append((name, *cells, marks[-1]))
    return Table(
        ("runtime", *stages, "status"),
        tuple(rows),
        marks=tuple(marks),
        title="Worst error in units of its bound",
    )


def _error(row: Comparison | None) -> str:
    if row is None:
        return "–"
    return row.status if row.error_in_bounds is None else f"{row.error_in_bounds:.3f}"


def comparison_details(result: VerifyResult) -> Table:
    """Every figure of every comparison that ran."""
    ran = [row for row in result.comparisons if row.status != "not run"]
    headers = (
        *("runtime", "stage", "error / bound", "absolute", "relative", "bound", "at", "sums in"),
        *("NaN", "Inf", "1 - cosine", "PSNR", "status"),
    )
    return Table(
        headers,
        tuple(_comparison_detail(row) for row in ran),
        first_number=2,
        marks=tuple(row.status for row in ran),
    )


def _comparison_detail(row: Comparison) -> tuple[str, ...]:
    return (
        contender(row),
        row.stage,
        number(row.error_in_bounds, ".3f"),
        number(row.absolute_error, ".2e"),
        number(row.relative_error, ".2e"),
        number(row.bound, ".2e"),
        str(list(row.worst_index)),
        str(row.accumulation or "–"),
        str(row.nan_count),
        str(row.inf_count),
        number(None if row.cosine is None else 1 - row.cosine, ".1e"),
        "–" if row.psnr_db is None else f"{row.psnr_db:.1f} dB",
        row.status,
    )


def quality(result: VerifyResult) -> Table:
    """Test RMSE and PSNR of every runtime that ran on the held-back data."""
    ran = [row for row in result.quality if row.status != "not run"]
    return Table(
        ("runtime", "samples", "test RMSE", "PSNR", "status"),
        tuple(
            (
                contender(row),
                str(row.samples),
                number(row.test_rmse, ".5f"),
                "–" if row.test_psnr_db is None else f"{row.test_psnr_db:.2f} dB",
                row.status,
            )
            for row in ran
        ),
        marks=tuple(row.status for row in ran),
    )


def tail(row: Latency) -> tuple[str, float | None]:
    """Name and seconds of the highest percentile that was asked for."""
    if not row.percentiles_s:
        return "p99", None
    name = max(row.percentiles_s, key=lambda key: float(key.lstrip("p")))
    return name, row.percentiles_s[name]


def latencies(result: BenchResult, columns: int = 4) -> list[Table]:
    """Median and tail by contender and batch: a table a stage, `columns` batch sizes in each."""
    ran = [row for row in result.latencies if row.status == "passed"]
    tables = []
    for stage in dict.fromkeys(row.stage for row in ran):
        here = [row for row in ran if row.stage == stage]
        batches = sorted({row.batch for row in here})
        for first in range(0, len(batches), columns):
            tables.append(_latencies(stage, here, batches[first : first + columns]))
    return tables


def _latencies(stage: str, rows: Sequence[Latency], batches: Sequence[int]) -> Table:
    cells = {(contender(row), row.batch): row for row in rows}
    names = dict.fromkeys(name for name, batch in cells if batch in batches)

    def cell(name: str, batch: int) -> str:
        row = cells.get((name, batch))
        return _median_and_tail(row) if row else "–"

    unit = "thread" if rows[0].threads == 1 else "threads"
    return Table(
        ("runtime", *(f"batch {batch}" for batch in batches)),
        tuple((name, *(cell(name, batch) for batch in batches)) for name in names),
        title=f"{stage}: latency, median/{tail(rows[0])[0]}, {rows[0].threads} {unit}",
    )


def _median_and_tail(row: Latency) -> str:
    """110/4500 µs: both in the unit of the median, so that a row of them fits 80 columns."""
    median, unit = seconds(row.median_s).split(" ")
    tail_s = tail(row)[1]
    if tail_s is None:
        return f"{median} {unit}"
    return f"{median}/{_three_digits(tail_s / _UNITS[unit])} {unit}"


def latency_details(result: BenchResult) -> Table:
    """Every figure of every measurement that ran."""
    ran = [row for row in result.latencies if row.status == "passed"]
    names = list(dict.fromkeys(name for row in ran for name in row.percentiles_s))
    headers = (
        "runtime",
        "stage",
        "batch",
        "calls",
        "min",
        "median",
        "mean",
        *names,
        "max",
        "cv",
        "per s",
    )
    return Table(
        headers,
        tuple(
            (
                contender(row),
                row.stage,
                str(row.batch),
                str(row.iterations),
                *map(seconds, (row.min_s, row.median_s, row.mean_s)),
                *(seconds(row.percentiles_s.get(name)) for name in names),
                seconds(row.max_s),
                number(row.cv, ".0%"),
                number(row.throughput_per_s, ",.0f"),
            )
            for row in ran
        ),
        first_number=2,
    )
