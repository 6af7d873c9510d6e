"""An interval of a ratio covers the truth as often as it says, however the noise hangs together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiedexport.measure import intervals
from tiedexport.measure.intervals import (
    CONFIDENCE,
    FEWEST_ROUNDS,
    block_length,
    independent_rounds,
    paired,
    student,
    unpaired,
)

SPEED = 1.05
WORDS = ("faster", "slower")


def noise(rng: np.random.Generator, rounds: int, correlation: float) -> np.ndarray:
    """Unit noise of which each value remembers a share of the one before."""
    fresh = rng.normal(size=rounds + 50) * np.sqrt(1 - correlation**2)
    value, found = 0.0, []
    for one in fresh:
        value = correlation * value + one
        found.append(value)
    return np.array(found[50:])


def contest(seed: int, rounds: int, correlation: float, drift: float) -> tuple[np.ndarray, ...]:
    """Ours and theirs, which takes `SPEED` times as long; the machine drifts under both."""
    rng = np.random.default_rng(seed)
    walk = drift * np.cumsum(rng.normal(size=rounds))
    ours, theirs = (walk + 0.03 * noise(rng, rounds, correlation) for _ in range(2))
    return 1e5 * np.exp(ours), SPEED * 1e5 * np.exp(theirs)


@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize(("compare", "drift"), [(paired, 0.02), (unpaired, 0.0)])
def test_the_interval_covers_the_truth_also_where_neighbours_are_alike(
    monkeypatch, compare, drift, correlation
):
    monkeypatch.setattr(intervals, "RESAMPLES", 400)
    found = [compare(*contest(seed, 80, correlation, drift)) for seed in range(150)]
    covered = np.mean([one.low <= SPEED <= one.high for one in found])
    assert covered >= CONFIDENCE - 0.04
    assert np.median([one.speed for one in found]) == pytest.approx(SPEED, rel=0.01)
    # It says something, too.
    assert np.median([one.high / one.low for one in found]) < 1.1


def test_between_equals_a_difference_is_claimed_about_as_often_as_chance_allows(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 400)
    claims = 0
    for seed in range(150):
        ours, theirs = contest(seed, 80, 0.0, 0.02)
        claims += paired(ours, theirs / SPEED).verdict != "no difference shown"
    assert claims <= 0.05 * 150


@pytest.mark.parametrize("rounds", [20, 30])
def test_few_rounds_claim_no_more_between_equals_than_many(monkeypatch, rounds):
    monkeypatch.setattr(intervals, "RESAMPLES", 200)
    claims = 0
    for seed in range(200):
        ours, theirs = contest(seed, rounds, 0.0, 0.02)
        claims += paired(ours, theirs / SPEED).verdict != "no difference shown"
    assert claims <= 0.02 * 200


def test_few_rounds_that_hang_together_claim_little_between_equals(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 100)
    claims = {"paired": 0, "unpaired": 0}
    for seed in range(200):
        ours, theirs = contest(seed, 25, 0.8, 0.0)
        for compare in (paired, unpaired):
            claims[compare.__name__] += compare(ours, theirs / SPEED).verdict in WORDS
    # By a block bootstrap alone: 18 and 13 %.
    assert max(claims.values()) <= 0.03 * 200


def test_rounds_of_which_each_is_like_the_one_before_are_worth_fewer():
    rng = np.random.default_rng(0)
    found = [independent_rounds(noise(rng, 2000, rho)) / 2000 for rho in (0.0, 0.5, 0.8)]
    assert found == pytest.approx([1, 1 / 3, 1 / 9], rel=0.15)
    assert independent_rounds(np.linspace(0, 1, 50)) < 2
    assert independent_rounds(np.tile([0.0, 1.0], 25)) == 50
    assert independent_rounds(np.ones(50)) == 50


@pytest.mark.parametrize("compare", [paired, unpaired])
def test_rounds_too_much_alike_have_no_interval(compare):
    ours = np.linspace(1.0, 1.1, 40)
    found = compare(ours, 2 * ours[::-1])
    assert (found.low, found.high, found.rounds) == (None, None, 40)
    assert found.independent < FEWEST_ROUNDS
    assert found.verdict not in WORDS


@pytest.mark.parametrize(
    ("freedom", "confidence", "quantile"),
    [(1, 0.99, 63.657), (4, 0.99, 4.604), (10, 0.99, 3.169), (10, 0.999, 4.587), (1e4, 0.95, 1.96)],
)
def test_student_s_quantiles_are_those_of_the_tables(freedom, confidence, quantile):
    assert student(freedom, confidence) == pytest.approx(quantile, rel=1e-3)


def test_as_many_rounds_as_anyone_keeps_have_an_interval():
    found = paired(*contest(1, 3000, 0.0, 0.0))
    assert 1.04 < found.low < SPEED < found.high < 1.06


def test_rounds_that_hang_together_are_drawn_together_and_widen_the_interval():
    ours, theirs = contest(3, 200, 0.9, 0.0)
    logs = np.log(theirs) - np.log(ours)
    shuffled = np.random.default_rng(0).permutation(200)
    assert block_length(logs) > 2 * block_length(logs[shuffled])
    found, independent = paired(ours, theirs), paired(ours[shuffled], theirs[shuffled])
    assert found.high - found.low > 2 * (independent.high - independent.low)


def test_a_drift_that_hits_both_cancels():
    ours, theirs = contest(1, 80, 0.0, 0.3)
    assert paired(ours, theirs).verdict == "faster"
    assert unpaired(ours, theirs).verdict == "no difference shown"


@pytest.mark.parametrize("compare", [paired, unpaired])
def test_the_verdict_is_that_of_the_interval(compare):
    ours, theirs = contest(0, 60, 0.0, 0.0)
    assert compare(ours, 2 * ours).verdict == "faster"
    assert compare(2 * theirs, theirs).verdict == "slower"
    same = compare(ours, ours)
    assert (same.speed, same.verdict) == (1.0, "no difference shown")
    assert same.low <= 1 <= same.high


@pytest.mark.parametrize("compare", [paired, unpaired])
def test_an_outlier_moves_neither_the_speed_nor_the_interval_far(compare):
    ours, theirs = contest(5, 100, 0.0, 0.0)
    plain = compare(ours, theirs)
    theirs[7] *= 1000
    struck = compare(ours, theirs)
    assert struck.speed == pytest.approx(plain.speed, rel=0.01)
    assert struck.high == pytest.approx(plain.high, rel=0.02)


@pytest.mark.parametrize("compare", [paired, unpaired])
def test_few_rounds_reach_from_extreme_to_extreme_and_too_few_show_nothing(compare):
    ours = np.array([10.0] * FEWEST_ROUNDS)
    theirs = ours * np.linspace(1.1, 1.3, FEWEST_ROUNDS)[[0, 7, 1, 6, 2, 5, 3, 4]]
    found = compare(ours, theirs)
    assert (found.low, found.high) == pytest.approx((1.1, 1.3))
    assert found.verdict == "faster"
    fewer = compare(ours[1:], theirs[1:])
    assert (fewer.low, fewer.high) == (None, None)
    assert fewer.verdict == "no difference shown"
    # All rounds lie on one side of their median once in 2^(rounds - 1) times.
    assert 2.0 ** (1 - FEWEST_ROUNDS) <= 1 - CONFIDENCE < 2.0 ** (2 - FEWEST_ROUNDS)


def test_rounds_that_only_one_of_a_pair_has_are_left_out():
    ours, theirs = contest(2, 60, 0.0, 0.0)
    longer = np.concatenate([theirs, 100 * theirs])
    assert paired(ours, longer) == paired(ours, theirs)


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=60), st.integers(1, 1000))
@settings(max_examples=30, deadline=None)
def test_an_interval_encloses_its_speed_and_units_do_not_matter(rounds, unit):
    ours = np.array(rounds)
    theirs = np.roll(ours, 1) + 5
    for compare in (paired, unpaired):
        found = compare(ours, theirs)
        assert found.rounds == len(rounds)
        if found.low is not None:
            assert found.low <= found.speed * (1 + 1e-9)
            assert found.speed <= found.high * (1 + 1e-9)
        if min(rounds) > 0:
            assert compare(ours * unit, theirs * unit).speed == pytest.approx(found.speed)
