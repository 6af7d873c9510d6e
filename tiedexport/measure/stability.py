"""When a row's figures may not repeat, or are of something else than the work: rules with reasons.

A warning changes no figure and drops no call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from tiedexport.contender import LONGEST, SPREAD_LIMIT
from tiedexport.measure.intervals import FEWEST_ROUNDS, unpaired
from tiedexport.results.bench import Instability, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.results import Latency

NOISE_LIMIT = 0.10
"""Coefficient of variation of the medians of the rounds. That of all calls is the row's `cv`: a few
outliers make it large and move no median, and the percentiles tell of them."""

DRIFT_LIMIT = 0.05
"""By which the median of the later half of the rounds may differ from that of the first, where
chance does not explain it."""

TIMER_LIMIT = 0.01
"""Share of a call that timing it may take."""

ENQUEUE_LIMIT = 0.8
"""Share of the device's time that enqueueing its work may take: as in trtexec, beyond that the
device may wait for the host."""

TRANSFER_LIMIT = 1.0
"""The same for a copy, as in trtexec."""


def warned(row: Latency, timer_s: float) -> Latency:
    """The row with the warnings that its figures give rise to.

    Args:
        row: one that passed.
        timer_s: what timing a call adds to it.
    """
    return structs.replace(row, warnings=(*row.warnings, *_unstable(row, timer_s)))


def _unstable(row: Latency, timer_s: float) -> Iterator[Instability]:
    rounds = np.array(row.rounds_ns, np.float64)
    if (warm_up := row.warm_up) and warm_up.spread is not None and not warm_up.stable:
        why = f"windows still differed by {{:.0%}} after {LONGEST} times the time"
        yield _over("warm-up", warm_up.spread, SPREAD_LIMIT, why)
    if (cv := float(rounds.std() / rounds.mean())) > NOISE_LIMIT:
        yield _over("noise", cv, NOISE_LIMIT, "rounds vary by {:.0%}")
    half = len(rounds) // 2
    if half:
        first, second = rounds[:half], rounds[-half:]
        change = float(np.median(second) / np.median(first)) - 1
        found = unpaired(second, first)
        # Rounds too much alike for an interval are what a steady drift looks like.
        alike = half >= FEWEST_ROUNDS and found.low is None
        if abs(change) > DRIFT_LIMIT and (alike or found.verdict != "no difference shown"):
            slower = "slower" if change > 0 else "faster"
            why = f"the second half was {{:.0%}} {slower} than the first"
            yield _over("drift", abs(change), DRIFT_LIMIT, why)
    if row.median_s is not None and (share := timer_s / row.median_s) > TIMER_LIMIT:
        yield _over("timer", share, TIMER_LIMIT, "timing takes {:.1%} of a call")


def _over(kind: Kind, value: float, limit: float, why: str) -> Instability:
    return Instability(kind, value, limit, f"{why.format(value)} (limit {limit:.0%})")


def bound_by(
    device_s: float, enqueue_s: float, to_device_s: float, from_device_s: float, *, graph: bool
) -> tuple[Instability, ...]:
    """What besides the device's own work bounds the throughput of a call on a GPU.

    Args:
        device_s: median seconds that the device computes.
        enqueue_s: median seconds that the host takes to enqueue that.
        to_device_s: median seconds of the copy of the inputs.
        from_device_s: median seconds of the copy of the outputs.
        graph: whether that work is one CUDA graph.
    """
    found = []
    if (share := enqueue_s / device_s) > ENQUEUE_LIMIT:
        why = "enqueueing {} takes {{:.0%}} of the device's time{}"
        why = why.format(
            *(("a graph", "") if graph else ("each kernel", "; a CUDA graph takes less"))
        )
        found.append(_over("enqueue-bound", share, ENQUEUE_LIMIT, why))
    for what, copy_s in (("inputs to", to_device_s), ("outputs from", from_device_s)):
        if (share := copy_s / device_s) > TRANSFER_LIMIT:
            why = f"copying {what} the device takes {{:.0%}} of the time that it computes"
            found.append(_over("transfer-bound", share, TRANSFER_LIMIT, why))
    return tuple(found)
