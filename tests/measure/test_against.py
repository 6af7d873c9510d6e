"""What the machine or chance did between two runs is no change; what one runtime did is."""

from __future__ import annotations

import handmade
import numpy as np
import pytest

from tiedexport.errors import BadInputError
from tiedexport.measure import intervals
from tiedexport.measure.against import compared, refuse_what_cannot_be_compared
from tiedexport.results import BenchResult, Latency
from tiedexport.spec import Precision

RUNTIMES = ("native", "onnxruntime", "torch")
BATCHES = (1, 8, 64)
PRECISIONS = (Precision.FP32, Precision.FP16)


def row(
    rng: np.random.Generator,
    runtime: str,
    batch: int,
    log_time: float,
    precision: Precision = Precision.FP32,
) -> Latency:
    rounds = 1e5 * batch * np.exp(log_time + 0.02 * rng.normal(size=40))
    found = tuple(int(one) for one in rounds)
    return Latency(runtime, "autoencoder", precision, batch, 1, "passed", rounds_ns=found)


def run(seed: int, scatter: float = 0.02, machine: float = 1.0, **slower: float) -> BenchResult:
    """A run of every runtime at every batch size, each a little off by the scatter of the run.

    Args:
        seed: of the run.
        scatter: standard deviation of a row's logarithm from run to run.
        machine: more time that everything takes, the loop too.
        slower: runtime → more time that it takes.
    """
    rng = np.random.default_rng(seed)
    drift = np.log(machine)
    rows = [
        row(rng, name, batch, drift + np.log(slower.get(name, 1)) + scatter * rng.normal(), kind)
        for batch in BATCHES
        for name in RUNTIMES
        for kind in PRECISIONS
    ]
    loops = tuple(row(rng, "reference loop", batch, drift) for batch in BATCHES)
    return BenchResult("m.tied", tuple(rows), handmade.ENVIRONMENT, 1.0, references=loops)


def earlier(*seeds: int, **how: float) -> dict[str, BenchResult]:
    return {f"{seed}.json": run(seed, **how) for seed in seeds}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 50)


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_a_drift_of_the_whole_machine_is_no_regression_and_is_shown(seeds):
    found = compared(run(9, machine=1.2), earlier(*seeds), 5)
    assert found.regressions == ()
    assert {one.verdict for one in found.changes} == {"no difference shown"}
    assert found.machine == pytest.approx([1.2] * len(BATCHES), rel=0.02)
    assert found.warnings == ()


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
@pytest.mark.parametrize("machine", [1.0, 1.2, 0.8])
def test_one_runtime_that_is_a_fifth_slower_is_a_regression_whatever_the_machine_did(
    seeds, machine
):
    how = {"scatter": 0.005}
    found = compared(run(9, machine=machine, native=1.2, **how), earlier(*seeds, **how), 5)
    assert {one.runtime for one in found.regressions} == {"native"}
    assert len(found.regressions) == len(BATCHES) * len(PRECISIONS)
    assert 1 / found.regressions[0].speed == pytest.approx(1.2, rel=0.03)
    # Not "faster", beside one that is slower.
    assert {one.verdict for one in found.changes} == {"slower", "no difference shown"}


@pytest.mark.parametrize(("runs", "scatter"), [(1, 0.0), (1, 0.08), (3, 0.04)])
def test_of_runs_of_the_same_code_hardly_any_claims_a_change(runs, scatter):
    claims = 0
    for trial in range(10):
        seeds = [100 * trial + one for one in range(runs + 1)]
        found = compared(run(seeds[0], scatter), earlier(*seeds[1:], scatter=scatter), 0)
        claims += any(one.verdict != "no difference shown" for one in found.changes)
    # Of all rows together 1 % may; by rounds alone nearly all do.
    assert claims == 0


def test_several_runs_tell_how_far_such_runs_differ_and_a_single_one_its_rows():
    steady, shaky = (
        compared(run(9, scatter), earlier(1, 2, 3, 4, scatter=scatter)) for scatter in (0.005, 0.15)
    )
    assert len(steady.scatters) == len(shaky.scatters) == len(BATCHES)
    assert max(one.deviation for one in steady.scatters) < 0.03
    assert min(one.deviation for one in shaky.scatters) > 0.06
    assert {one.runs for one in steady.scatters} == {4}
    (alone,) = compared(run(9, 0.15), earlier(1, scatter=0.15)).scatters
    assert alone.runs == 1
    assert alone.deviation > 0.04


def test_more_runs_find_a_smaller_change():
    one, four = (
        compared(run(9, 0.005, native=1.2), earlier(*seeds, scatter=0.005))
        for seeds in ((1,), (1, 2, 3, 4))
    )
    widths = [[c.high / c.low for c in found.changes] for found in (one, four)]
    assert np.median(widths[1]) < np.median(widths[0])


def test_what_all_runtimes_do_and_the_loop_does_not_is_said_to_be_shared():
    slower = dict.fromkeys(RUNTIMES, 1.3)
    (said,) = compared(run(9, **slower), earlier(1)).warnings
    assert "than the reference loop explains" in said


def test_a_result_without_a_reference_loop_is_refused():
    plain = BenchResult("m.tied", run(1).latencies, handmade.ENVIRONMENT, 1.0)
    with pytest.raises(BadInputError, match="no reference loop"):
        refuse_what_cannot_be_compared(plain, "old.json")
