"""What changed since an earlier result: differences that chance does not explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.errors import BadInputError
from tiedexport.measure import intervals
from tiedexport.measure.baseline import ratio_of
from tiedexport.measure.stability import DRIFT_LIMIT
from tiedexport.results.bench import Against

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tiedexport.results import BenchResult, Latency
    from tiedexport.results.bench import Ratio

    Key = tuple[str, str, str, int, int, str]


def refuse_what_cannot_be_compared(earlier: BenchResult, file: str | Path) -> None:
    """See to it before hours of measuring.

    Raises:
        BadInputError: the earlier result has no rounds, which intervals rest on.
    """
    if not any(row.rounds_ns for row in earlier.latencies):
        raise BadInputError(
            "the earlier result cannot be compared with: it has no rounds",
            where=file,
            got=f"schema {earlier.schema}",
            expected="a result of schema 2 or later in which something was measured",
            hint="measure again: tiedexport bench NAME.tied --json FILE",
        )


def compared(
    result: BenchResult,
    earlier: BenchResult,
    file: str | Path,
    max_regression_percent: float | None = None,
) -> Against:
    """Set the same stage, precision, batch, threads, runtime and memory side by side.

    Args:
        result: of now.
        earlier: of `file`.
        file: named in the comparison.
        max_regression_percent: how much more time a call may take; None for any.
    """
    now, then = _measured(result), _measured(earlier)
    changes = tuple(
        ratio_of(row, intervals.unpaired(np.array(row.rounds_ns), np.array(then[key].rounds_ns)))
        for key, row in now.items()
        if key in then
    )
    return Against(
        str(file),
        changes,
        gone=_named(key for key in then if key not in now),
        new=_named(key for key in now if key not in then),
        warnings=(*_differences(result, earlier), *_alike(changes)),
        max_regression_percent=max_regression_percent,
    )


def _measured(result: BenchResult) -> dict[Key, Latency]:
    return {_key(row): row for row in result.latencies if row.rounds_ns}


def _key(row: Latency) -> Key:
    return (row.stage, row.runtime, row.precision.value, row.batch, row.threads, row.memory)


def _named(keys: Iterable[Key]) -> tuple[str, ...]:
    """In words, the batch sizes of a contender together."""
    batches: dict[str, list[str]] = {}
    for stage, runtime, precision, batch, threads, memory in keys:
        name = f"{stage}: {runtime} {precision} {memory}, threads {threads}, batch "
        batches.setdefault(name, []).append(str(batch))
    return tuple(name + " ".join(sizes) for name, sizes in batches.items())


def _differences(result: BenchResult, earlier: BenchResult) -> Iterator[str]:
    """What besides the code may have changed the times."""
    here, there = result.environment, earlier.environment
    if (here.cpu, here.cores) != (there.cpu, there.cores):
        yield (
            f"another machine: {there.cpu}, {there.cores} cores then, "
            f"{here.cpu}, {here.cores} cores now"
        )
    if Path(result.bundle).name != Path(earlier.bundle).name:
        yield f"another bundle: {earlier.bundle} then, {result.bundle} now"
    idle = "idleTime"
    if result.options.get(idle, 0) != earlier.options.get(idle, 0):
        yield f"another --{idle}: {earlier.options.get(idle, 0):g} ms then"


def _alike(changes: Iterable[Ratio]) -> Iterator[str]:
    """Whether all runtimes changed together, which a change of one of them does not explain.

    Between two runs a machine may change its clock or get a busy neighbour. No interval knows of
    that, as it is the same all through a run.
    """
    speeds: dict[str, list[float]] = {}
    for row in changes:
        speeds.setdefault(row.runtime, []).append(row.speed)
    more = sorted(1 / float(np.median(mine)) - 1 for mine in speeds.values())
    if len(more) < 2:
        return
    least, word = (more[0], "more") if more[0] > 0 else (-more[-1], "less")
    if least > DRIFT_LIMIT:
        yield (
            f"every runtime takes at least {least:.0%} {word} time: the machine, or something else "
            "that all of them share, is at another speed"
        )
