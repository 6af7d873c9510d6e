"""Every row's speed over a named baseline, measured in the same rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, get_args

import numpy as np

from tiedexport.errors import UsageError
from tiedexport.measure import intervals
from tiedexport.results.bench import Ratio
from tiedexport.runtimes import Memory, runtime_named
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tiedexport.measure.intervals import Interval
    from tiedexport.measure.turns import Row
    from tiedexport.results import Latency

_FORM = "RUNTIME, RUNTIME/PRECISION or RUNTIME/PRECISION/MEMORY"


@dataclass(frozen=True)
class Baseline:
    """Whom ratios are over.

    Attributes:
        runtime: its name.
        precision: None for the first of the bundle's in which it ran.
        memory: None for shared, or packed where it only ran so.
    """

    runtime: str
    precision: Precision | None = None
    memory: Memory | None = None

    def among(self, rows: Iterable[Latency]) -> Latency | None:
        """The row of it that was measured, of rows of one stage and batch size."""
        found = [row for row in rows if row.status == "passed" and self.names(row)]
        return min(found, key=lambda row: row.memory == "packed", default=None)

    def names(self, row: Latency | Row) -> bool:
        """Whether a row may be what is meant."""
        return (
            row.runtime == self.runtime
            and self.precision in (None, row.precision)
            and self.memory in (None, row.memory)
        )

    def __str__(self) -> str:
        """As `baseline_from` takes it, without what it would choose by itself."""
        packed = "packed" if self.memory == "packed" else None
        return "/".join(filter(None, (self.runtime, self.precision, packed)))


def baseline_from(text: str) -> Baseline:
    """What `--baseline` names.

    Raises:
        UsageError: there is no such runtime, precision or mode, or it is of another form.
    """
    runtime, *rest = text.split("/")
    precisions, modes = [one.value for one in Precision], get_args(Memory)
    for part, known in zip(rest, (precisions, modes), strict=False):
        if part not in known:
            raise UsageError(
                "unknown baseline", got=repr(text), expected=f"{_FORM}; {', '.join(known)}"
            )
    if len(rest) > 2:
        raise UsageError("unknown baseline", got=repr(text), expected=_FORM)
    precision = Precision(rest[0]) if rest else None
    memory = cast("Memory", rest[1]) if rest[1:] else None
    return Baseline(runtime_named(runtime).name, precision, memory)


def ratios(rows: Iterable[Latency], baseline: Baseline) -> tuple[str, tuple[Ratio, ...]]:
    """The speed of every row over the baseline's at the same stage and batch size.

    Args:
        rows: of one bench; those of one stage and batch size were measured in the same rounds.
        baseline: has no ratio over itself.

    Returns:
        What the baseline turned out to be, as `baseline_from` takes it, and the ratios: none where
        it did not run.
    """
    heats: dict[tuple[str, int], list[Latency]] = {}
    for row in rows:
        heats.setdefault((row.stage, row.batch), []).append(row)
    names: dict[str, None] = {}
    found: list[Ratio] = []
    for heat in heats.values():
        base = baseline.among(heat)
        if base is None:
            continue
        names[str(Baseline(base.runtime, base.precision, base.memory))] = None
        theirs = np.array(base.rounds_ns)
        found += [
            ratio_of(row, intervals.paired(np.array(row.rounds_ns), theirs))
            for row in heat
            if row is not base and row.status == "passed"
        ]
    return next(iter(names)) if len(names) == 1 else str(baseline), tuple(found)


def ratio_of(row: Latency, interval: Interval) -> Ratio:
    """A row's speed over something."""
    return Ratio(
        row.runtime,
        row.stage,
        row.precision,
        row.batch,
        row.threads,
        row.memory,
        row.remark,
        interval.speed,
        interval.low,
        interval.high,
        interval.rounds,
        interval.verdict,
        interval.independent,
    )
