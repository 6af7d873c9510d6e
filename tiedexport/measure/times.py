"""Every single time that was taken, as `--exportTimes` writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from tiedexport import atomic
from tiedexport.results import Latency, to_json
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.measure.turns import Row


class Times(Struct, frozen=True):
    """All calls of one row: nanoseconds of each, turn by turn, in order."""

    runtime: str
    stage: str
    precision: Precision
    batch: int
    threads: int
    memory: str
    turns_ns: tuple[tuple[int, ...], ...]


class ExportedTimes(Struct, frozen=True):
    """All rows that were measured."""

    bundle: str
    rows: tuple[Times, ...]
    schema: int = 1


def times_of(row: Row, found: Latency) -> Times:
    """The times that a row's figures are of, until its next heat begins."""
    turns_ns = tuple(tuple(turn.tolist()) for turn in row.samples_ns)
    return Times(
        found.runtime,
        found.stage,
        found.precision,
        found.batch,
        found.threads,
        found.memory,
        turns_ns,
    )


def write(path: Path, bundle: str, rows: list[Times]) -> None:
    """Write them as JSON; the file is whole or not there."""
    atomic.write(path, to_json(ExportedTimes(bundle, tuple(rows))))
