"""How many times as fast one series of rounds is as another, with a bootstrap interval.

What is resampled is rounds, not calls. The calls of one turn follow each other within milliseconds
and share whatever the machine was doing then: as if independent, thousands of them would make an
interval far too narrow. And a round belongs to all contenders that took their turns in it: a pair
of rounds is drawn together, so that a drift that hit both cancels. Rounds in turn may depend on
their neighbours, so they are drawn in blocks, which are as long as that dependence reaches. Few
rounds understate how far that is. So an interval is no narrower than that of a sign test of as many
independent rounds as they are worth, and where that is fewer than 8 there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tiedexport.results.bench import Verdict

CONFIDENCE = 0.99
"""A result has dozens of ratios: at 0.95 one in twenty would claim a difference by chance."""

FEWEST_ROUNDS = 8
"""With fewer there is no interval: not even the extremes enclose a median with `CONFIDENCE`, since
all rounds lie on one side of it once in 2^(rounds - 1) times."""

BOOTSTRAP_ROUNDS = 20
"""With fewer the interval is from extreme to extreme: too few to tell how they scatter."""

RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Interval:
    """A speed, the other's time over one's own, and the ends of its confidence interval.

    Attributes:
        speed: above 1 is faster.
        low, high: None where there are fewer than `FEWEST_ROUNDS` independent ones.
        rounds: how many it rests on.
        independent: how many independent rounds those are worth.
    """

    speed: float
    low: float | None
    high: float | None
    rounds: int
    independent: float

    @property
    def verdict(self) -> Verdict:
        """Faster or slower only where the interval excludes 1."""
        if self.low is not None and self.low > 1:
            return "faster"
        if self.high is not None and self.high < 1:
            return "slower"
        return "no difference shown"


def paired(ours: np.ndarray, theirs: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """The median over rounds of theirs / ours, of two contenders that took turns.

    Args:
        ours: seconds, or any unit, by round: float [n].
        theirs: the same rounds, float [m]; what one has more than the other is left out.
        confidence: of the interval.
    """
    rounds = min(len(ours), len(theirs))
    logs = _logs(theirs[:rounds]) - _logs(ours[:rounds])
    estimate, (low, high) = float(np.median(logs)), _signs(logs, confidence)
    if rounds >= BOOTSTRAP_ROUNDS:
        drawn = _resampled_medians(logs, np.random.default_rng(_SEED))
        low, high = _widened(low, high, drawn, logs, confidence)
    return _interval(estimate, low, high, logs)


def unpaired(ours: np.ndarray, theirs: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """The median of theirs over the median of ours, of two that were measured apart.

    Args:
        ours: seconds, or any unit, by round: float [n].
        theirs: float [m], of another time.
        confidence: of the interval.
    """
    mine, other = _logs(ours), _logs(theirs)
    fewer = min(mine, other, key=independent_rounds)
    median, others = float(np.median(mine)), float(np.median(other))
    (low, high), (others_low, others_high) = (_signs(one, confidence) for one in (mine, other))
    # From the interval of each: G. Y. Zou and A. Donner, "Construction of confidence limits about
    # effect measures", Statistics in Medicine 27 (2008).
    estimate = others - median
    lower = estimate - math.hypot(others - others_low, high - median)
    upper = estimate + math.hypot(others_high - others, median - low)
    if min(len(mine), len(other)) >= BOOTSTRAP_ROUNDS:
        rng = np.random.default_rng(_SEED)
        drawn = _resampled_medians(other, rng) - _resampled_medians(mine, rng)
        lower, upper = _widened(lower, upper, drawn, fewer, confidence)
    return _interval(estimate, lower, upper, fewer)


def independent_rounds(logs: np.ndarray) -> float:
    """How many independent rounds as many are worth, of which each remembers the one before.

    n (1 - ρ) / (1 + ρ): G. V. Bayley and J. M. Hammersley, "The 'effective' number of independent
    observations in an autocorrelated time series", supplement to the Journal of the Royal
    Statistical Society 8 (1946). ρ is the correlation of the ranks of neighbours, which no outlier
    upsets, less its bias (1 + 3 ρ) / n: M. G. Kendall, "Note on bias in the estimation of
    autocorrelation", Biometrika 41 (1954).

    Args:
        logs: float [n].
    """
    count = len(logs)
    _, which, times = np.unique(logs, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(times) - (times - 1) / 2)[which] - (count + 1) / 2
    square = float(ranks @ ranks)
    if count <= 3 or square == 0:
        return count
    found = float(ranks[:-1] @ ranks[1:]) / square
    correlation = min(max((count * found + 1) / (count - 3), 0.0), 1.0)
    return max(count * (1 - correlation) / (1 + correlation), 1.0)


def _logs(times: np.ndarray) -> np.ndarray:
    """Logarithms; where a clock counted nothing between two readings, of a small step of it."""
    return np.log(np.maximum(np.asarray(times, np.float64), 1e-9))


def _interval(estimate: float, low: float, high: float, logs: np.ndarray) -> Interval:
    """Of logarithms; without ends where the rounds are not worth `FEWEST_ROUNDS`."""
    speed, rounds, independent = math.exp(estimate), len(logs), independent_rounds(logs)
    if independent < FEWEST_ROUNDS:
        return Interval(speed, None, None, rounds, independent)
    return Interval(speed, math.exp(low), math.exp(high), rounds, independent)


def _widened(
    low: float, high: float, drawn: np.ndarray, logs: np.ndarray, confidence: float
) -> tuple[float, float]:
    """As far as the quantiles of the resamples, where those reach farther."""
    tail = _tail(_blocks(logs), confidence)
    lowest, highest = np.quantile(drawn, [tail, 1 - tail])
    return min(low, float(lowest)), max(high, float(highest))


def _signs(logs: np.ndarray, confidence: float) -> tuple[float, float]:
    """The interval of a median by the sign test of as many rounds as they are worth.

    A bootstrap of 20 or 30 rounds by itself claims a difference between equals four times as often
    as it should, and eighteen times where neighbours correlate by 0.8.
    """
    rounds, outside, below = int(independent_rounds(logs)), 0, 1
    while below <= 2**rounds // round(2 / (1 - confidence)):
        outside += 1
        below += math.comb(rounds, outside)
    share = max(outside - 1, 0) / max(rounds - 1, 1)
    low, high = np.quantile(logs, [share, 1 - share])
    return float(low), float(high)


def _resampled_medians(series: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Medians of series made of blocks drawn from one, float [RESAMPLES].

    The circular block bootstrap: D. N. Politis and J. P. Romano, "A circular block-resampling
    procedure for stationary data", in Exploring the Limits of Bootstrap (Wiley, 1992).
    """
    length, count = block_length(series), len(series)
    starts = rng.integers(0, count, (RESAMPLES, math.ceil(count / length), 1))
    drawn = (starts + np.arange(length)) % count
    medians: np.ndarray = np.median(series[drawn.reshape(RESAMPLES, -1)[:, :count]], axis=1)
    return medians


def block_length(series: np.ndarray) -> int:
    """How many neighbouring rounds to draw together.

    The rule of D. N. Politis and H. White, "Automatic block-length selection for the dependent
    bootstrap", Econometric Reviews 23 (2004), with the correction of 28 (2009), for circular
    blocks. It looks at whether each round lies above the median, since that is what the spread of a
    median follows from, and since no outlier upsets it.

    Args:
        series: float [n].
    """
    count = len(series)
    above = np.sign(series - np.median(series))
    covariance = np.correlate(above, above, "full")[count - 1 :] / count
    if count < FEWEST_ROUNDS or covariance[0] == 0:
        return 1
    limit = 2 * math.sqrt(math.log10(count) / count)
    matters = np.abs(covariance[1:] / covariance[0]) >= limit
    run = max(5, math.ceil(math.sqrt(math.log10(count))))
    last = next((lag for lag in range(count) if not matters[lag : lag + run].any()), count - 1)
    lags = np.arange(1, min(2 * max(last, 1), count - 1) + 1)
    # A flat-top window: 1 up to half of the lags, then down to 0.
    window = np.clip(2 * (1 - lags / (2 * max(last, 1))), 0, 1)
    spectrum = covariance[0] + 2 * float(np.sum(window * covariance[lags]))
    slope = 2 * float(np.sum(window * lags * covariance[lags]))
    longest = math.ceil(min(3 * math.sqrt(count), count / 3))
    found = (1.5 * slope**2 / spectrum**2) ** (1 / 3) if spectrum > 0 else math.inf
    return math.ceil(min(max(found, 1.0) * math.cbrt(count), longest))


def _blocks(series: np.ndarray) -> float:
    """How many independent figures the series is about worth."""
    return len(series) / block_length(series)


def _tail(blocks: float, confidence: float) -> float:
    """The share of the resamples to leave out on either side.

    Smaller than (1 - confidence) / 2, since few figures understate their own spread: T. C.
    Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69
    (2015), section 3.3.

    Args:
        blocks: how many independent figures there are.
        confidence: of the interval.
    """
    wider = student(max(blocks - 1, 1.0), confidence) * math.sqrt(1 + 1 / max(blocks - 1, 1.0))
    return NormalDist().cdf(-wider)


@cache
def student(freedom: float, confidence: float) -> float:
    """How many standard deviations a two-sided interval of Student's distribution reaches.

    With t = √freedom tan θ the density is cos θ to the power of freedom - 1, summed on a grid.

    Args:
        freedom: degrees of freedom, 1 or more; a fraction too.
        confidence: of the interval.
    """
    angles = np.linspace(0, math.pi / 2, 10_001)
    density = np.cos(angles) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    angle = float(np.interp(confidence, below / below[-1], angles))
    return math.sqrt(freedom) * math.tan(angle)
