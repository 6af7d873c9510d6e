"""What `bench` found of calls on a GPU, part by part, in trtexec's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.report.bench_tables import figures
from tiedexport.report.tables import Table, contender, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.results import Latency
    from tiedexport.results.device import DeviceTimes, Part

NAMES: dict[Part, str] = {
    "latency": "Latency",
    "h2d": "H2D Latency",
    "compute": "GPU Compute Time",
    "d2h": "D2H Latency",
    "enqueue": "Enqueue Time",
}
"""trtexec's."""

_SHOWN: dict[Part, str] = {
    "h2d": "H2D",
    "compute": "compute",
    "d2h": "D2H",
    "enqueue": "enqueue",
}


def mode(one: DeviceTimes) -> str:
    """With or without."""
    return f"CUDA graph {'on' if one.graph else 'off'}"


def summary(row: Latency) -> Iterator[str]:
    """Every figure of the parts of a call, or why there is none."""
    for one in row.device:
        if not one.parts:
            yield f"{', '.join(NAMES.values())} ({mode(one)}): {one.status}: {one.reason}"
        for name, part in one.parts.items():
            yield f"{NAMES[name]} ({mode(one)}): {figures(part)}"


def not_run(latencies: Sequence[Latency]) -> dict[str, list[str]]:
    """Runtime → the same of one that did not run at all."""
    absent = _absent(latencies)
    return {row.runtime: list(summary(row)) for row in latencies if row.runtime in absent}


def tables(latencies: Sequence[Latency]) -> Iterator[Table]:
    """Medians of the parts, a table a stage; one row for each runtime that did not run."""
    ran = [row for row in latencies if any(one.parts for one in row.device)]
    absent = _absent(latencies)
    for stage in dict.fromkeys(row.stage for row in ran) or ([""] if absent else []):
        rows = [
            (contender(row), "on" if one.graph else "off", str(row.batch), *_medians(one))
            for row in ran
            if row.stage == stage
            for one in row.device
            if one.parts
        ]
        marks = ["passed"] * len(rows) + ["not run"] * len(absent)
        rows += [(name, "off, on", "", "not run", "", "", "") for name in absent]
        yield Table(
            ("runtime", "graph", "batch", *_SHOWN.values()),
            tuple(rows),
            first_number=2,
            marks=tuple(marks),
            title=f"{stage + ': ' if stage else ''}on the GPU, medians by CUDA events",
        )


def _absent(latencies: Sequence[Latency]) -> list[str]:
    """Runtimes on a GPU of which nothing ran there."""
    ran = {row.runtime for row in latencies if any(one.parts for one in row.device)}
    return [
        name for name in dict.fromkeys(r.runtime for r in latencies if r.device) if name not in ran
    ]


def _medians(one: DeviceTimes) -> Iterator[str]:
    return (seconds(one.parts[name].median_s) for name in _SHOWN)


def reasons(latencies: Sequence[Latency]) -> list[tuple[str, str, str]]:
    """(status, who, reason) of what did not run there, where its row does not say that itself."""
    found = {
        (one.status, f"{contender(row)} on the GPU, {mode(one)}", one.reason)
        for row in latencies
        for one in row.device
        if one.reason and one.reason != row.reason
    }
    return sorted(found)
