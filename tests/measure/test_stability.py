"""What may not repeat is said with its figure and limit; no call is dropped for it."""

from __future__ import annotations

import numpy as np
import pytest

from tiedexport.measure.stability import bound_by, warned
from tiedexport.measure.statistics import filled
from tiedexport.results import Latency
from tiedexport.results.bench import WarmUp
from tiedexport.spec import Precision

STEADY = WarmUp(1e-4, 0.2, 2000, spread=0.01, stable=True)


def row(turns, warm_up=STEADY) -> Latency:
    empty = Latency("r", "autoencoder", Precision.FP32, 4, 1, "passed")
    arrays = [np.asarray(turn, np.int64) for turn in turns]
    return filled(empty, arrays, (90, 99.9), warm_up)


def kinds(found: Latency, timer_s: float = 1e-7) -> list[str]:
    return [warning.kind for warning in warned(found, timer_s).warnings]


def test_the_figures_are_of_every_call_and_the_rounds_of_every_turn():
    found = row([[100, 200, 300], [100, 100, 10_000]])
    every = np.array([100, 200, 300, 100, 100, 10_000]) / 1e9
    assert found.iterations == 6
    assert (found.min_s, found.max_s) == (1e-7, 1e-5)
    assert found.mean_s == pytest.approx(every.mean())
    assert found.median_s == pytest.approx(1.5e-7)
    assert found.cv == pytest.approx(every.std() / every.mean())
    assert found.rounds_ns == (200, 100)
    assert list(found.percentiles_s) == ["p90", "p99.9"]
    assert found.percentiles_s["p90"] == pytest.approx(np.quantile(every, 0.9))
    assert found.throughput_per_s == pytest.approx(4 * 6 / every.sum())
    assert found.warm_up == STEADY


def test_steady_rounds_give_no_warning_even_with_an_outlier_in_each():
    found = row([[100_000] * 20 + [5_000_000]] * 30)
    assert found.cv > 1
    assert kinds(found) == []


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ([100_000, 140_000] * 15, ["noise"]),
        ([100_000] * 15 + [108_000] * 15, ["drift"]),
        ([100_000] * 15 + [150_000] * 15, ["noise", "drift"]),
        ([100_000 + 400 * n for n in range(30)], ["drift"]),
        ([100_000] * 15 + [104_000] * 15, []),
        ([100_000, 109_000] * 15, []),
        ([100_000], []),
    ],
)
def test_noise_and_drift_of_the_rounds_have_limits(rounds, expected):
    assert kinds(row([[one] for one in rounds])) == expected


def test_a_warm_up_that_did_not_settle_is_told_unless_none_was_asked_for():
    turns = [[100_000]] * 10
    assert kinds(row(turns, WarmUp(1e-4, 1.0, 9, spread=0.2, stable=False))) == ["warm-up"]
    assert kinds(row(turns, WarmUp(1e-4, 0.0, 1))) == []


def test_timing_that_is_not_small_beside_a_call_is_told():
    turns = [[10_000]] * 10
    assert kinds(row(turns), timer_s=0.9e-7) == []
    assert kinds(row(turns), timer_s=1.1e-7) == ["timer"]


def test_a_reason_has_the_figure_and_its_limit():
    (warning,) = warned(row([[100_000]] * 15 + [[108_000]] * 15), 0.0).warnings
    assert "8% slower" in warning.reason
    assert "limit 5%" in warning.reason
    assert warning.value == pytest.approx(0.08)
    assert warning.limit == 0.05


@pytest.mark.parametrize(
    ("device_s", "enqueue_s", "in_s", "out_s", "expected"),
    [
        (1e-3, 1e-4, 1e-4, 1e-4, []),
        (1e-3, 0.79e-3, 0.99e-3, 0.99e-3, []),
        (1e-3, 0.81e-3, 0.0, 0.0, ["enqueue-bound"]),
        (1e-3, 0.0, 1.01e-3, 0.0, ["transfer-bound"]),
        (1e-3, 0.0, 0.0, 1.01e-3, ["transfer-bound"]),
        (1e-4, 1e-3, 1e-3, 1e-3, ["enqueue-bound", "transfer-bound", "transfer-bound"]),
    ],
)
def test_what_bounds_a_gpu_besides_its_work(device_s, enqueue_s, in_s, out_s, expected):
    found = bound_by(device_s, enqueue_s, in_s, out_s, graph=False)
    assert [warning.kind for warning in found] == expected
    again = bound_by(device_s, enqueue_s, in_s, out_s, graph=True)
    assert [warning.kind for warning in again] == expected
    for warnings, advised in ((found, True), (again, False)):
        for warning in warnings:
            if warning.kind == "enqueue-bound":
                assert ("a CUDA graph takes less" in warning.reason) == advised
