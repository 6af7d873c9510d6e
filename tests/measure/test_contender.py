"""Calls are timed by one loop, whose own cost is known; warm-up ends by a rule that is stated."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace

import handmade
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiedexport import contender
from tiedexport.contender import (
    RemoteContender,
    SessionContender,
    empty_call,
    timed,
    wait_until_alone,
    warm_up,
)
from tiedexport.errors import RuntimeFailedError
from tiedexport.gate import nothing
from tiedexport.measure.stability import TIMER_LIMIT
from tiedexport.results.bench import WarmUp

READING_NS, CALL_NS = 80, 100_000


class Clock:
    """Synthetic: a reading of it takes as long as one does, and nothing else takes any time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 0
        monkeypatch.setattr(contender, "perf_counter_ns", self.read)
        monkeypatch.setattr(contender, "sleep", lambda s: self.advance(round(s * 1e9)))

    def read(self) -> int:
        self.now_ns += READING_NS
        return self.now_ns

    def advance(self, nanoseconds: int) -> None:
        self.now_ns += nanoseconds


@pytest.mark.parametrize("idle_s", [0.0, 0.01])
def test_a_call_pays_for_one_reading_of_the_clock_and_for_no_pause(monkeypatch, idle_s):
    clock = Clock(monkeypatch)
    samples = timed(lambda: clock.advance(CALL_NS), 7, idle_s)
    assert samples.tolist() == [CALL_NS + READING_NS] * 7
    assert clock.now_ns >= 7 * (CALL_NS + idle_s * 1e9)


def test_an_empty_call_tells_what_timing_adds_which_is_below_1_percent_of_100_us(monkeypatch):
    clock = Clock(monkeypatch)
    overhead_s = empty_call().median_s
    assert overhead_s == pytest.approx(READING_NS / 1e9)
    call_s = float(np.median(timed(lambda: clock.advance(CALL_NS), 100))) / 1e9
    assert call_s - overhead_s == pytest.approx(CALL_NS / 1e9)
    assert overhead_s / call_s < TIMER_LIMIT == 0.01


def test_the_real_clock_times_a_real_empty_call():
    found = empty_call()
    assert 0 < found.median_s <= found.p99_s
    assert found.calls >= 10_000
    assert found.resolution_s > 0


def calls_taking(call_s: Callable[[int], float]) -> Callable[[int], np.ndarray]:
    """A turn whose n-th call, counted from 0 over all turns, takes `call_s(n)`."""
    made = 0

    def take_turn(calls: int) -> np.ndarray:
        nonlocal made
        made += calls
        return np.array([round(call_s(n) * 1e9) for n in range(made - calls, made)], np.int64)

    return take_turn


@given(call_s=st.floats(1e-5, 0.3), warmup_s=st.floats(0, 0.5))
def test_steady_calls_end_a_warm_up_once_its_time_is_over(call_s, warmup_s):
    found = warm_up(calls_taking(lambda n: call_s), warmup_s)
    assert found.call_s == pytest.approx(call_s, rel=1e-3)
    assert found.calls >= 1
    assert warmup_s * (1 - 1e-9) <= found.seconds
    if found.stable:
        assert found.spread == 0
        # A last window, and at most three calls where these alone take longer than the time.
        assert found.seconds <= max(1.5 * warmup_s, 3 * call_s) + 2 * call_s
    else:
        assert found.spread is None


def test_calls_that_become_faster_are_awaited():
    found = warm_up(calls_taking(lambda n: 1e-3 * (1 + 9 * 0.98**n)), 0.2)
    assert found.stable
    assert found.spread <= contender.SPREAD_LIMIT
    assert 0.2 < found.seconds < 1.0
    assert found.call_s == pytest.approx(1e-3, rel=0.1)


def test_calls_that_never_settle_end_a_warm_up_at_five_times_its_time():
    found = warm_up(calls_taking(lambda n: 1e-3 * 1.01**n), 0.2)
    assert not found.stable
    assert found.spread > contender.SPREAD_LIMIT
    assert found.seconds == pytest.approx(1.0, rel=0.5)


def test_a_slow_first_call_does_not_count_as_one_of_the_others():
    found = warm_up(calls_taking(lambda n: 1.0 if n == 0 else 1e-3), 0.2)
    assert found.call_s == pytest.approx(1e-3)
    assert found.calls > 100
    assert found.stable


def test_pauses_before_calls_make_a_warm_up_no_longer():
    found = warm_up(calls_taking(lambda n: 1e-5), 0.2, 0.01)
    assert found.stable
    assert found.calls <= 30
    assert 0.2 <= found.seconds < 0.3


def test_the_pauses_of_a_session_count_in_its_warm_up(monkeypatch, tmp_path):
    session = SimpleNamespace(bind=lambda *_: nothing, close=nothing)
    monkeypatch.setattr(contender, "open_session", lambda *_, **__: session)
    bundle = handmade.bundle(tmp_path / "m.tied")
    with closing(SessionContender(bundle, "native", "fp32", 1, idle_s=0.01)) as one:
        assert one.prepare("autoencoder", 1, 0.02).calls <= 11


class Echo:
    """Lives in a child process; answers with its own process id."""

    def __init__(self, fault: str = ""):
        if fault == "open":
            raise RuntimeFailedError("cannot open", hint="install it")

    def prepare(self, stage: str, batch: int, warmup_s: float) -> WarmUp:
        if stage == "dies":
            os._exit(9)
        if stage == "fails":
            raise RuntimeFailedError("no such kernel")
        return WarmUp(0.0, warmup_s, os.getpid())

    def take_turn(self, calls: int) -> np.ndarray:
        return np.arange(calls)

    def close(self) -> None:
        pass


def test_a_remote_contender_runs_in_a_process_of_its_own_and_ends_with_close():
    remote = RemoteContender(Echo)
    child = remote.prepare("autoencoder", 1, 0.0).calls
    assert child != os.getpid()
    assert remote.take_turn(3).tolist() == [0, 1, 2]
    with pytest.raises(RuntimeFailedError, match="no such kernel"):
        remote.prepare("fails", 1, 0.0)
    remote.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_remote_contender_that_dies_says_so_with_its_exit_code():
    remote = RemoteContender(Echo)
    with pytest.raises(RuntimeFailedError, match="exit code 9"):
        remote.prepare("dies", 1, 0.0)
    remote.close()


def test_a_remote_contender_that_cannot_open_passes_the_reason_on():
    with pytest.raises(RuntimeFailedError, match="install it"):
        RemoteContender(Echo, "open")


def test_a_turn_ends_when_no_pool_spins_any_more():
    spinning = threading.Event()

    def spin() -> None:
        spinning.set()
        hashlib.pbkdf2_hmac("sha256", b"pool", b"", 1_000_000)  # without Python's lock, as pools

    pool = threading.Thread(target=spin)
    pool.start()
    spinning.wait()
    wait_until_alone(limit_s=60)
    assert not pool.is_alive()
    pool.join()


def test_a_pool_that_never_rests_is_not_waited_for():
    resting = threading.Event()

    def spin() -> None:
        while not resting.is_set():
            pass

    pool = threading.Thread(target=spin)
    pool.start()
    wait_until_alone(limit_s=0.01)
    assert pool.is_alive()
    resting.set()
    pool.join()
