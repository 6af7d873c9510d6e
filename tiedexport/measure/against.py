"""What changed since earlier results: differences that neither the machine nor chance explains.

Between two runs a machine changes its clock or gets a busy neighbour, and no interval of rounds
knows of that, since it is the same all through a run. So every time is first divided by that of the
reference loop, which took turns in the same rounds. What is left differs between runs of the same
code by more than rounds do: memory lies elsewhere, and the loop is not the model. How far is
estimated from several earlier runs, or, of a single one, from how far the rows of each runtime
changed apart. An interval reaches as far as either explains: the rounds, or runs of the same code.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.errors import BadInputError
from tiedexport.measure import intervals
from tiedexport.measure.baseline import ratio_of
from tiedexport.measure.intervals import CONFIDENCE, Interval
from tiedexport.measure.stability import DRIFT_LIMIT
from tiedexport.results.bench import Against, Scatter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tiedexport.results import BenchResult, Latency
    from tiedexport.results.bench import Ratio

    Key = tuple[str, str, str, int, int, str]
    Runs = Mapping[Key, Sequence[np.ndarray]]

PRIOR_DEVIATION, PRIOR_FREEDOM = 0.03, 4.0
"""What is known of the scatter before any run: as measured on shared machines, and how many degrees
of freedom that counts for beside what the results tell."""

_MAD_EFFICIENCY = 0.37
"""Degrees of freedom of a median absolute deviation over those of a standard deviation."""


def refuse_what_cannot_be_compared(earlier: BenchResult, file: str | Path) -> None:
    """See to it before hours of measuring.

    Raises:
        BadInputError: the earlier result has no rounds, which intervals rest on, or no reference
            loop, without which a change of the machine looks like one of the code.
    """
    for lacks, there in (
        ("rounds", any(row.rounds_ns for row in earlier.latencies)),
        ("reference loop", bool(earlier.references)),
    ):
        if not there:
            raise BadInputError(
                f"the earlier result cannot be compared with: it has no {lacks}",
                where=file,
                got=f"schema {earlier.schema}",
                expected="a result of this version in which something was measured",
                hint="measure again: tiedexport bench NAME.tied --json FILE",
            )


def compared(
    result: BenchResult,
    earlier: Mapping[str, BenchResult],
    max_regression_percent: float | None = None,
) -> Against:
    """Set the same stage, precision, batch, threads, runtime and memory side by side.

    Args:
        result: of now.
        earlier: file → its result; all of the same code.
        max_regression_percent: how much more time a call may take; None for any.
    """
    now, then = _measured(result), [_measured(one) for one in earlier.values()]
    before = list(dict.fromkeys(key for rows in then for key in rows))
    logs = {key: _relative(row, result) for key, row in now.items()}
    runs = {
        key: [
            _relative(rows[key], one)
            for rows, one in zip(then, earlier.values(), strict=True)
            if key in rows
        ]
        for key in now
        if key in before
    }
    scatters = scatters_of(logs, runs)
    confidence = 1 - (1 - CONFIDENCE) / max(len(runs), 1)
    changes = tuple(
        ratio_of(now[key], change(logs[key], runs[key], scatters[key], confidence)) for key in runs
    )
    differences = (_differences(result, one, file) for file, one in earlier.items())
    return Against(
        ", ".join(earlier),
        changes,
        gone=_named(key for key in before if key not in now),
        new=_named(key for key in now if key not in before),
        warnings=(*(said for each in differences for said in each), *_alike(changes)),
        max_regression_percent=max_regression_percent,
        machine=tuple(_machine(result, list(earlier.values()))),
        scatters=tuple(dict.fromkeys(scatters.values())),
    )


def change(
    now: np.ndarray, runs: Sequence[np.ndarray], scatter: Scatter, confidence: float = CONFIDENCE
) -> Interval:
    """How many times as fast a row became: over the mean of its earlier runs.

    It is the prediction interval of one more run of the same code, by Student's distribution, and
    no narrower than the rounds of each pair of runs allow.

    Args:
        now: logarithms of its rounds over the reference loop, float [n].
        runs: the same of each earlier run.
        scatter: of runs of the same code.
        confidence: of the interval.
    """
    pairs = [intervals.unpaired(np.exp(now), np.exp(one)) for one in runs]
    speed = math.exp(float(np.mean([math.log(one.speed) for one in pairs])))
    rounds = min(one.rounds for one in pairs)
    independent = min(one.independent for one in pairs)
    ends = [
        (one.speed / one.low, one.high / one.speed)
        for one in pairs
        if one.low is not None and one.high is not None
    ]
    if len(ends) < len(pairs):
        return Interval(speed, None, None, rounds, independent)
    reach = scatter.deviation * math.sqrt(1 + 1 / len(runs))
    apart = math.exp(intervals.student(scatter.freedom, confidence) * reach)
    below, above = (float(np.mean(side)) for side in zip(*ends, strict=True))
    return Interval(
        speed, speed / max(below, apart), speed * max(above, apart), rounds, independent
    )


def scatters_of(now: Mapping[Key, np.ndarray], runs: Runs) -> dict[Key, Scatter]:
    """How far runs of the same code differ, weighed with what is known of that beforehand.

    As in G. K. Smyth, "Linear models and empirical Bayes methods for assessing differential
    expression in microarray experiments", Statistical Applications in Genetics and Molecular
    Biology 3 (2004), with a prior that is given. Several runs tell it for each stage and batch size
    by itself; rows of a runtime may change together from run to run, so that there are as many
    degrees of freedom as runtimes, a run more than one. A single run tells it for all rows at once.

    Args:
        now: row → logarithms of its rounds over the reference loop.
        runs: row → the same of each earlier run.
    """
    medians = {key: np.array([np.median(one) for one in rows]) for key, rows in runs.items()}
    heats: dict[tuple[str, int], list[Key]] = {}
    for key in runs:
        heats.setdefault((key[0], key[3]), []).append(key)
    single = _within_runtimes(
        {key: float(np.median(now[key]) - one.mean()) for key, one in medians.items()}
    )
    found: dict[Key, Scatter] = {}
    for keys in heats.values():
        most = max(len(medians[key]) for key in keys)
        if most > 1:
            found |= dict.fromkeys(keys, _between_runs({key: medians[key] for key in keys}))
        else:
            found |= dict.fromkeys(keys, single)
    return found


def _between_runs(medians: Mapping[Key, np.ndarray]) -> Scatter:
    """From how far the runs of each row lie apart, rows of one stage and batch size together."""
    several = {key: one for key, one in medians.items() if len(one) > 1}
    squares = sum(float(np.sum((one - one.mean()) ** 2)) for one in several.values())
    variance = squares / sum(len(one) - 1 for one in several.values())
    runs = max(map(len, several.values()))
    return _weighed(variance, float((runs - 1) * len({key[1] for key in several})), runs)


def _weighed(variance: float, freedom: float, runs: int) -> Scatter:
    whole = PRIOR_FREEDOM + freedom
    variance = (PRIOR_FREEDOM * PRIOR_DEVIATION**2 + freedom * variance) / whole
    return Scatter(math.sqrt(variance), whole, runs)


def _within_runtimes(changes: Mapping[Key, float]) -> Scatter:
    """From how far rows of one runtime changed apart, of all of them together.

    A runtime that changed as a whole does not widen it, and neither do a few rows of it.
    """
    runtimes: dict[str, list[float]] = {}
    for key, one in changes.items():
        runtimes.setdefault(key[1], []).append(one)
    apart = [abs(one - float(np.median(mine))) for mine in runtimes.values() for one in mine]
    free = len(apart) - len(runtimes)
    if not free:
        return _weighed(0.0, 0.0, 1)
    deviation = 1.4826 * float(np.median(apart)) * math.sqrt(len(apart) / free)
    return _weighed(deviation**2 / 2, _MAD_EFFICIENCY * free, 1)  # a change is of two runs


def _measured(result: BenchResult) -> dict[Key, Latency]:
    return {_key(row): row for row in result.latencies if row.rounds_ns}


def _key(row: Latency) -> Key:
    return (row.stage, row.runtime, row.precision.value, row.batch, row.threads, row.memory)


def _references(result: BenchResult) -> dict[tuple[str, int], float]:
    return {(row.stage, row.batch): float(np.median(row.rounds_ns)) for row in result.references}


def _relative(row: Latency, result: BenchResult) -> np.ndarray:
    """Logarithms of a row's rounds over the median of the reference loop beside it."""
    reference = _references(result)[row.stage, row.batch]
    return np.log(np.maximum(np.array(row.rounds_ns, np.float64), 1e-9) / reference)


def _machine(result: BenchResult, earlier: Sequence[BenchResult]) -> Iterator[float]:
    """Time of the reference loop over the geometric mean of its earlier times, heat by heat."""
    before = [_references(one) for one in earlier]
    for heat, time in _references(result).items():
        if times := [one[heat] for one in before if heat in one]:
            yield time / math.exp(float(np.mean(np.log(times))))


def _named(keys: Iterable[Key]) -> tuple[str, ...]:
    """In words, the batch sizes of a contender together."""
    batches: dict[str, list[str]] = {}
    for stage, runtime, precision, batch, threads, memory in keys:
        name = f"{stage}: {runtime} {precision} {memory}, threads {threads}, batch "
        batches.setdefault(name, []).append(str(batch))
    return tuple(name + " ".join(sizes) for name, sizes in batches.items())


def _differences(result: BenchResult, earlier: BenchResult, file: str) -> Iterator[str]:
    """What besides the code may have changed the times."""
    here, there = result.environment, earlier.environment
    if (here.cpu, here.cores) != (there.cpu, there.cores):
        yield (
            f"{file} is of another machine: {there.cpu}, {there.cores} cores; "
            f"{here.cpu}, {here.cores} cores now"
        )
    if Path(result.bundle).name != Path(earlier.bundle).name:
        yield f"{file} is of another bundle: {earlier.bundle}; {result.bundle} now"
    idle = "idleTime"
    if result.options.get(idle, 0) != earlier.options.get(idle, 0):
        yield f"{file} is of another --{idle}: {earlier.options.get(idle, 0):g} ms"


def _alike(changes: Iterable[Ratio]) -> Iterator[str]:
    """Whether all runtimes changed together, which a change of one of them does not explain."""
    speeds: dict[str, list[float]] = {}
    for row in changes:
        speeds.setdefault(row.runtime, []).append(row.speed)
    more = sorted(1 / float(np.median(mine)) - 1 for mine in speeds.values())
    if len(more) < 2:
        return
    least, word = (more[0], "more") if more[0] > 0 else (-more[-1], "less")
    if least > DRIFT_LIMIT:
        yield (
            f"every runtime takes at least {least:.0%} {word} time than the reference loop "
            "explains: something that all of them share has changed"
        )
