"""When a row's figures may not repeat, or are of something else than the work: rules with reasons.

A warning changes no figure and drops no call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from tiedexport.contender import LONGEST, SPREAD_LIMIT, WINDOWS
from tiedexport.measure.intervals import unpaired
from tiedexport.results.bench import Instability

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
        yield Instability(
            "warm-up",
            f"the last {WINDOWS} windows still differed by {warm_up.spread:.0%} (limit "
            f"{SPREAD_LIMIT:.0%}) after {LONGEST} times the time",
        )
    if (cv := float(rounds.std() / rounds.mean())) > NOISE_LIMIT:
        yield Instability("noise", f"rounds vary by {cv:.0%} (limit {NOISE_LIMIT:.0%})")
    half = len(rounds) // 2
    if half:
        first, second = rounds[:half], rounds[-half:]
        change = float(np.median(second) / np.median(first)) - 1
        by_chance = "no difference shown"
        if abs(change) > DRIFT_LIMIT and unpaired(second, first).verdict != by_chance:
            yield Instability(
                "drift", f"second half {change:+.0%} against the first (limit {DRIFT_LIMIT:.0%})"
            )
    if row.median_s is not None and (share := timer_s / row.median_s) > TIMER_LIMIT:
        yield Instability("timer", f"timing takes {share:.1%} of a call (limit {TIMER_LIMIT:.0%})")


def bound_by(
    device_s: float, enqueue_s: float, to_device_s: float, from_device_s: float
) -> tuple[Instability, ...]:
    """What besides the device's own work bounds the throughput of a call on a GPU.

    The rules are trtexec's: enqueueing above 0.8 of the device's time, a copy above all of it.

    Args:
        device_s: median seconds that the device computes.
        enqueue_s: median seconds that the host takes to enqueue that.
        to_device_s: median seconds of the copy of the inputs.
        from_device_s: median seconds of the copy of the outputs.
    """
    found = []
    if enqueue_s > ENQUEUE_LIMIT * device_s:
        share = enqueue_s / device_s
        found.append(
            Instability(
                "enqueue-bound",
                f"enqueueing takes {share:.0%} of the device's time (limit {ENQUEUE_LIMIT:.0%}): "
                "launch it as a CUDA graph",
            )
        )
    for what, copy_s in (("inputs to", to_device_s), ("outputs from", from_device_s)):
        if copy_s > device_s:
            found.append(
                Instability(
                    "transfer-bound",
                    f"copying {what} the device takes {copy_s / device_s:.1f} times its computing: "
                    "keep them there, or copy during the call before",
                )
            )
    return tuple(found)
