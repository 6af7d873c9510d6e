"""Callers of one session: every call counts, every result is compared, nothing shared breaks."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import handmade
import numpy as np
import pytest

from tiedexport.errors import RuntimeFailedError, UsageError
from tiedexport.load import LEAST_CALLS, Caller, load, measured, numbers_up_to, summed_up
from tiedexport.results.load import Load
from tiedexport.spec import Precision

FP32, *_ = Precision


def row(callers: int = 1, batch: int = 1) -> Load:
    return Load("r", "autoencoder", FP32, "shared", 1, batch, callers, "not run")


def test_latency_is_of_each_call_and_throughput_of_all_together():
    ms = 10**6
    callers = [
        Caller(np.zeros(1), np.zeros(1), [(0, 2 * ms), (3 * ms, 5 * ms)]),
        Caller(np.zeros(1), np.zeros(1), [(1 * ms, 5 * ms), (6 * ms, 10 * ms)]),
    ]
    found = summed_up(row(2, batch=5), callers)
    assert (found.status, found.calls) == ("passed", 4)
    assert found.latencies_s["min"] == pytest.approx(2e-3)
    assert found.latencies_s["p50"] == pytest.approx(3e-3)
    assert found.latencies_s["mean"] == pytest.approx(3e-3)
    assert found.latencies_s["max"] == pytest.approx(4e-3)
    assert found.throughput_per_s == pytest.approx(5 * 4 / 10e-3)


@pytest.mark.parametrize(("call_ms", "calls"), [(1, 51), (50, LEAST_CALLS)])
def test_a_caller_goes_on_for_the_duration_and_for_enough_calls(call_ms, calls):
    clock = itertools.count(0, call_ms * 10**6)  # comparing takes as long as a call
    caller = Caller(np.ones(2), np.ones(2))
    caller.call(lambda x, out: np.copyto(out, x), 0.1, lambda: next(clock))
    assert len(caller.spans_ns) == calls
    assert caller.different == 0


def test_a_result_that_differs_in_one_bit_or_was_not_written_is_counted():
    expected = np.ones(3, np.float32)
    answers = iter([1.0, None, np.nextafter(np.float32(1), np.float32(2)), 1.0, 1.0])

    def run(x, out):
        answer = next(answers)
        if answer is not None:
            out[:] = 1.0
            out[2] = answer

    caller = Caller(expected, expected)
    clock = itertools.count()
    caller.call(run, 0.0, lambda: next(clock))
    assert caller.different == 2
    found = summed_up(row(), [caller])
    assert (found.status, found.different) == ("failed", 2)
    assert "2 of 5 results differ" in found.reason


@pytest.mark.parametrize(
    ("callers", "numbers"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_numbers_of_callers_double_up_to_the_last(callers, numbers):
    assert numbers_up_to(callers) == numbers


class Shared:
    """A session with one buffer for all callers, as a runtime must not have."""

    def __init__(self, bundle, breaks: bool) -> None:
        self.bundle, self._breaks = bundle, breaks
        self._buffer = np.zeros((1, handmade.SIDE, handmade.SIDE), np.float32)
        self._inside = threading.Barrier(2)
        self.seen: set[int] = set()

    def run(self, stage, x, out=None):
        if out is None:
            return x * 2
        self.seen.add(threading.get_ident())
        if self._breaks:
            self._buffer[:] = x
            self._inside.wait(10)  # both have written before either reads
            np.copyto(out, self._buffer * 2)
            self._inside.wait(10)
        else:
            np.copyto(out, x * 2)
        return out


@pytest.mark.parametrize("breaks", [False, True])
def test_callers_run_at_once_on_one_session_with_inputs_of_their_own(tmp_path, breaks):
    session = Shared(handmade.bundle(tmp_path / "m.tied"), breaks)
    clock = itertools.count()
    found = measured(row(2), session, 0.0, lambda: next(clock))
    assert len(session.seen) == 2
    assert found.status == ("failed" if breaks else "passed")
    assert found.calls == 2 * LEAST_CALLS
    assert found.different == (LEAST_CALLS if breaks else 0)


def test_a_runtime_that_does_not_repeat_itself_cannot_be_compared(tmp_path):
    count = itertools.count()
    session = SimpleNamespace(
        bundle=handmade.bundle(tmp_path / "m.tied"), run=lambda stage, x: x + next(count)
    )
    found = measured(row(), session, 0.0)
    assert found.status == "not run"
    assert "from call to call" in found.reason


@pytest.mark.parametrize("wrong", [{"callers": 0}, {"callers": 1000}, {"batch": 0, "callers": 1}])
def test_arguments_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(UsageError):
        load(handmade.bundle(tmp_path / "m.tied"), **wrong)


def test_an_error_of_a_runtime_is_a_row(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise RuntimeFailedError("out of memory")

    monkeypatch.setattr("tiedexport.load.open_session", refuse)
    rows = load(handmade.bundle(tmp_path / "m.tied"), 2, runtime=("reference",))
    assert {(found.status, found.reason) for found in rows} <= {
        ("failed", "out of memory"),
        ("not run", "no engine"),
    }


def test_every_runtime_here_serves_several_callers_alike(dense_bundle, runtime):
    rows = load(dense_bundle, 3, runtime=(runtime,), batch=2, duration_s=0.01)
    ran = [found for found in rows if found.status != "not run"]
    assert {found.status for found in ran} == {"passed"}, ran
    assert {found.callers for found in ran} == {1, 2, 3}
    assert all(found.calls >= found.callers * LEAST_CALLS for found in ran)
    assert all(found.throughput_per_s > 0 for found in ran)
