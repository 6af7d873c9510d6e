"""Callers of one session: every call counts, every result is compared, nothing shared breaks."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace

import handmade
import numpy as np
import pytest
from msgspec.structs import replace

from tiedexport.errors import RuntimeFailedError, UsageError
from tiedexport.load import ROUNDS, Caller, Crowd, heat, load, numbers_up_to, summed_up
from tiedexport.results.load import Load
from tiedexport.spec import Precision

FP32, *_ = Precision


def row(callers: int = 1, batch: int = 1) -> Load:
    return Load("r", "autoencoder", FP32, "shared", 1, batch, callers, "not run")


def test_latency_is_of_each_call_and_throughput_of_all_together():
    ms = 10**6
    callers = [
        Caller(np.zeros(1), np.zeros(1), [[(0, 2 * ms)], [(103 * ms, 105 * ms)]]),
        Caller(np.zeros(1), np.zeros(1), [[(1 * ms, 5 * ms)], [(106 * ms, 110 * ms)]]),
    ]
    found = summed_up(row(2, batch=5), callers)
    assert (found.status, found.calls) == ("passed", 4)
    assert found.latencies_s["min"] == pytest.approx(2e-3)
    assert found.latencies_s["p50"] == pytest.approx(3e-3)
    assert found.latencies_s["mean"] == pytest.approx(3e-3)
    assert found.latencies_s["max"] == pytest.approx(4e-3)
    assert found.throughput_per_s == pytest.approx(5 * 4 / 12e-3)  # between turns others run


@pytest.mark.parametrize(("call_ms", "calls"), [(1, 51), (200, 1)])
def test_a_caller_goes_on_for_the_duration_and_for_a_call_at_least(call_ms, calls):
    clock = itertools.count(0, call_ms * 10**6)  # comparing takes as long as a call
    caller = Caller(np.ones(2), np.ones(2))
    caller.take_turn(lambda x, out: np.copyto(out, x), 0.1, lambda: next(clock))
    (spans,) = caller.turns_ns
    assert len(spans) == calls
    # The first call is not timed.
    assert spans[0][0] == 2 * call_ms * 10**6
    assert caller.different == 0


def test_a_result_that_differs_in_one_bit_or_was_not_written_is_counted():
    expected = np.ones(3, np.float32)
    answers = iter([None, 1.0, np.nextafter(np.float32(1), np.float32(2)), None, 1.0, 1.0])

    def run(x, out):
        answer = next(answers)
        if answer is not None:
            out[:] = 1.0
            out[2] = answer

    caller = Caller(expected, expected)
    clock = itertools.count()
    for _ in range(3):
        caller.take_turn(run, 0.0, lambda: next(clock))
    assert caller.different == 3  # one of them in a call that is not timed
    found = summed_up(row(), [caller])
    assert (found.status, found.different) == ("failed", 3)
    assert "3 of 6 results differ" in found.reason


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
    (found,) = heat([Crowd(row(), session)], 2, 0.0, 0.0, lambda: next(clock))
    assert len(session.seen) >= 2
    assert found.status == ("failed" if breaks else "passed")
    assert (found.callers, found.calls) == (2, 2 * ROUNDS)
    assert found.different == (2 * ROUNDS if breaks else 0)  # one of two, untimed calls too


def test_a_runtime_that_does_not_repeat_itself_cannot_be_compared(tmp_path):
    count = itertools.count()
    session = SimpleNamespace(
        bundle=handmade.bundle(tmp_path / "m.tied"), run=lambda stage, x: x + next(count)
    )
    (found,) = heat([Crowd(row(), session)], 1, 0.0, 0.0)
    assert found.status == "not run"
    assert "from call to call" in found.reason


def test_runtimes_take_turns_in_alternating_order_and_who_fails_is_out_of_it(tmp_path):
    bundle, log = handmade.bundle(tmp_path / "m.tied"), []

    def session(name: str, fails: bool = False):
        def run(stage, x, out=None):
            if out is None:
                return x
            log.append(name)
            if fails:
                raise RuntimeFailedError("out of memory")
            out[:] = x
            return out

        return SimpleNamespace(bundle=bundle, run=run)

    crowds = [Crowd(row(), session(name, name == "bad")) for name in ("a", "bad", "b")]
    crowds.append(Crowd(replace(row(), reason="no driver"), None))
    told = heat(crowds, 1, 0.0, 0.0)
    assert [one.status for one in told] == ["passed", "failed", "passed", "not run"]
    assert [one.reason for one in told] == ["", "out of memory", "", "no driver"]
    assert [name for name in log if name != "bad"][::2] == list("abbaabbaab")
    assert log.count("bad") == 1


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
    assert all(found.calls >= found.callers * ROUNDS for found in ran)
    assert all(found.throughput_per_s > 0 for found in ran)
