"""Tables of what `bench` measures beside latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.report.tables import Table, contender, not_run, number, seconds, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.results import BenchResult
    from tiedexport.results.cold import ColdStart, Footprint
    from tiedexport.results.load import Load
    from tiedexport.results.roofline import Placement, Roofline

_MIB = 1 << 20


def tables(result: BenchResult) -> Iterator[Table]:
    """Of everything that was asked for and ran."""
    if result.roofline is not None:
        yield from _rooflines(result.roofline)
    starts = [row for row in result.cold_starts if row.status == "passed"]
    if starts:
        yield _cold(starts)
    held = [row for row in result.footprints if row.status == "passed"]
    if held:
        yield _memory(held)
    loads = [row for row in result.loads if row.callers and row.calls]
    if loads:
        yield _loads(loads)


def reasons(result: BenchResult) -> list[tuple[str, str, str]]:
    """(status, who, reason) of every row with a reason that no latency has told."""
    told = {(row.runtime, row.precision, row.reason) for row in result.latencies}
    beside: tuple[ColdStart | Footprint | Load, ...]
    beside = (*result.cold_starts, *result.footprints, *result.loads)
    new = [row for row in beside if (row.runtime, row.precision, row.reason) not in told]
    lost = [] if result.roofline is None else result.roofline.kernels
    kernels = [(one.status, f"{one.name} as a limit", one.reason) for one in lost if one.reason]
    return [*not_run(new), *kernels]


def _rooflines(found: Roofline) -> Iterator[Table]:
    """A table a stage and batch size, the nearest to its limit first; then what set the limits."""
    groups: dict[tuple[str, int], list[Placement]] = {}
    for row in found.placements:
        groups.setdefault((row.stage, row.batch), []).append(row)
    for (stage, batch), rows in groups.items():
        rows.sort(key=lambda row: -row.share)
        yield Table(
            ("runtime", "median", "limit", "share", "set by", "op/byte"),
            tuple(
                (
                    contender(row),
                    seconds(row.median_s),
                    seconds(row.limit_s),
                    f"{row.share:.0%}",
                    row.bound_by,
                    number(row.operations_per_byte),
                )
                for row in rows
            ),
            title=f"{stage}, batch {batch}: share of this machine's limit",
        )
    yield Table(
        ("limit", "by", "per second"),
        tuple(dict.fromkeys(row for one in found.placements for row in _limits(one))),
        first_number=2,
        title="Limits as measured: the best kernel, or the best runtime, counts",
    )


def _limits(row: Placement) -> Iterator[tuple[str, str, str]]:
    bandwidth, peak = row.bandwidth_per_s / 1e9, row.peak_per_s / 1e9
    yield f"read {size(row.weight_bytes)} again and again", row.bandwidth_by, f"{bandwidth:.1f} GB"
    yield f"products of {row.precision}", row.peak_by, f"{peak:.1f} Gop"


def _cold(rows: list[ColdStart]) -> Table:
    return Table(
        ("runtime", "total", "start", "import", "open", "session", "first call"),
        tuple(
            (
                contender(row),
                *map(
                    seconds,
                    (
                        row.total_s,
                        row.start_s,
                        row.import_s,
                        row.open_s,
                        row.session_s,
                        row.run_s,
                    ),
                ),
            )
            for row in rows
        ),
        title=f"Cold start, page cache warm: medians of {rows[0].processes} processes",
    )


def _memory(rows: list[Footprint]) -> Table:
    return Table(
        ("runtime", "loaded", "after a run", "private", "peak", "device", "disk"),
        tuple((contender(row), *_held(row)) for row in rows),
        title=f"Memory above an empty process (Pss) in MiB, batch {rows[0].batch}",
    )


def _held(row: Footprint) -> Iterator[str]:
    assert row.base is not None
    assert row.loaded is not None
    assert row.ran is not None
    base = row.base.pss_bytes
    for value, before in (
        (row.loaded.pss_bytes, base),
        (row.ran.pss_bytes, base),
        (row.ran.private_bytes, row.base.private_bytes),
        (row.peak_pss_bytes, base),
        (row.device_bytes, 0),
        (row.disk_bytes, 0),
    ):
        yield "–" if value is None else f"{(value - before) / _MIB:,.1f}"


def _loads(rows: list[Load]) -> Table:
    first = rows[0]
    return Table(
        ("runtime", "callers", "p50", "p90", "p99", "max", "samples/s"),
        tuple(
            (
                contender(row),
                str(row.callers),
                *(seconds(row.latencies_s[name]) for name in ("p50", "p90", "p99", "max")),
                number(row.throughput_per_s, ",.0f"),
            )
            for row in rows
        ),
        marks=tuple(row.status for row in rows),
        title=f"{first.stage}, batch {first.batch}: callers of one session, results compared",
    )
