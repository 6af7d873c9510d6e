"""The figures of a row, from the times of all its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from tiedexport.results.device import Figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.results import Latency
    from tiedexport.results.bench import WarmUp


def filled(
    row: Latency,
    turns_ns: Sequence[np.ndarray],
    percentile: Sequence[float],
    warm_up: WarmUp | None,
) -> Latency:
    """The row with its figures: every call counts, however long it took.

    Args:
        row: what was measured.
        turns_ns: nanoseconds of each call, int64 [calls], turn by turn.
        percentile: which to report, each in (0, 100).
        warm_up: what went before.
    """
    seconds = np.concatenate(turns_ns) / 1e9
    found = figures(seconds, percentile)
    return structs.replace(
        row,
        iterations=len(seconds),
        **structs.asdict(found),
        throughput_per_s=row.batch / found.mean_s,
        cv=float(seconds.std()) / found.mean_s,
        rounds_ns=tuple(round(float(np.median(turn))) for turn in turns_ns),
        warm_up=warm_up,
    )


def figures(seconds: np.ndarray, percentile: Sequence[float]) -> Figures:
    """Of all calls, [calls]; `percentile` as in `filled`."""
    tails_s = np.percentile(seconds, list(percentile)).tolist()
    return Figures(
        min_s=float(seconds.min()),
        mean_s=float(seconds.mean()),
        median_s=float(np.median(seconds)),
        max_s=float(seconds.max()),
        percentiles_s={f"p{p:g}": tail for p, tail in zip(percentile, tails_s, strict=True)},
    )
