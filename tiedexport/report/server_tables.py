"""What `bench --server` measured, as tables: closed loops beside this process's own, and open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.report.tables import Table, contender, not_run, number, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.results.load import Load
    from tiedexport.results.server import ServerLoad, ServerResult


def groups(result: ServerResult) -> Iterator[tuple[str, int, list[ServerLoad], list[Load]]]:
    """(stage, batch size, rows of the server, the quickest runtime's rows in this process)."""
    for stage, batch in dict.fromkeys((row.stage, row.batch) for row in result.rows):
        rows = [row for row in result.rows if (row.stage, row.batch) == (stage, batch)]
        loads = [
            row
            for row in result.loads
            if (row.stage, row.batch) == (stage, batch) and row.latencies_s
        ]
        if loads:
            best = min(loads, key=lambda row: row.latencies_s["p50"])
            loads = [row for row in loads if contender(row) == contender(best)]
        yield stage, batch, rows, loads


def tables(result: ServerResult) -> Iterator[Table]:
    """Two for each stage and batch size: against callers, and against the rate of requests."""
    for stage, batch, rows, loads in groups(result):
        closed = [row for row in rows if row.loop == "closed"]
        yield _closed(f"{stage}, batch {batch}", closed, loads)
        yield _open(f"{stage}, batch {batch}", [row for row in rows if row.loop == "open"])


def _closed(of: str, rows: list[ServerLoad], loads: list[Load]) -> Table:
    """The server's figures, the same without it, and the difference of the medians."""
    without = {row.callers: row for row in loads}
    beside = contender(loads[0]) if loads else "not run"
    return Table(
        ("callers", "p50", "p99", "answered/s", "p50 here", "p99 here", "here/s", "adds"),
        tuple(_beside(row, without.get(row.callers)) for row in rows),
        marks=_marks(rows),
        title=f"{of}: {contender(rows[0])}; here: {beside}, without a server",
        first_number=0,
    )


def _beside(row: ServerLoad, load: Load | None) -> tuple[str, ...]:
    own = load.latencies_s if load else {}
    served_s, own_s = row.latencies_s.get("p50"), own.get("p50")
    calls = load.throughput_per_s / load.batch if load and load.throughput_per_s else None
    adds_s = None if served_s is None or own_s is None else served_s - own_s
    return (
        str(row.callers),
        *(seconds(row.latencies_s.get(name)) for name in ("p50", "p99")),
        number(row.achieved_per_s, ",.0f"),
        *(seconds(own.get(name)) for name in ("p50", "p99")),
        number(calls, ",.0f"),
        "–" if adds_s is None or adds_s < 0 else seconds(adds_s),
    )


def _open(of: str, rows: list[ServerLoad]) -> Table:
    """Latencies count from the moment for which a request was scheduled."""
    return Table(
        ("offered/s", "answered/s", "failed", "p50", "p90", "p99", "max", "client late"),
        tuple(
            (
                number(row.offered_per_s, ",.0f"),
                number(row.achieved_per_s, ",.0f"),
                str(row.failed + row.different),
                *(seconds(row.latencies_s.get(name)) for name in ("p50", "p90", "p99", "max")),
                seconds(row.late_p99_s),
            )
            for row in rows
        ),
        marks=_marks(rows),
        title=f"{of}: latency from the scheduled moment, whoever waits",
        first_number=0,
    )


def _marks(rows: list[ServerLoad]) -> tuple[str, ...]:
    """Of failures alone: that the others passed, their figures tell."""
    return tuple("failed" if row.status == "failed" else "" for row in rows)


def reasons(result: ServerResult) -> list[tuple[str, str, str]]:
    """(status, who, why) of what failed, did not run, or may be of the client."""
    warned: dict[tuple[str, str], list[str]] = {}
    for row in result.rows:
        for warning in row.warnings:
            who = f"{row.stage}, batch {row.batch}"
            warned.setdefault((who, warning), []).append(f"{row.offered_per_s:,.0f}")
    return [
        *not_run(result.rows),
        *not_run(result.loads),
        *(("unsteady", f"{who} at {', '.join(at)}/s", why) for (who, why), at in warned.items()),
    ]
