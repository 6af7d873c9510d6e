"""Open loops on a clock of their own: a stall counts for everybody who would have come in it."""

from __future__ import annotations

import asyncio
import selectors

import numpy as np
import pytest

from tiedexport.open_loop import (
    LEAST_REQUESTS,
    Answer,
    Reply,
    arrivals_s,
    closed_loop,
    open_loop,
    saturated,
    summed_up,
)
from tiedexport.results.server import ServerLoad
from tiedexport.server_bench import precise_loop
from tiedexport.spec import Precision


class SyntheticLoop(asyncio.SelectorEventLoop):
    """An event loop whose waits take no time: its clock jumps to the next timer."""

    def __init__(self) -> None:
        loop, self.now_s = self, 0.0

        class Selector(selectors.SelectSelector):
            def select(self, timeout=None):
                loop.now_s += timeout or 0.0
                return super().select(0)

        super().__init__(Selector())

    def time(self) -> float:
        return self.now_s


class Server:
    """Answers one request after another, each in `service_s`; nothing during the stall."""

    def __init__(self, service_s: float, stall: tuple[float, float] = (0.0, 0.0)) -> None:
        self._service_s, self._stall, self._free = service_s, stall, asyncio.Lock()

    async def ask(self, number: int) -> Reply:
        loop = asyncio.get_running_loop()
        async with self._free:
            begin_s, end_s = self._stall
            if begin_s <= loop.time() < end_s:
                await asyncio.sleep(end_s - loop.time())
            await asyncio.sleep(self._service_s)
        return Reply(loop.time(), "good")


def row(loop: str = "open", **fields: float) -> ServerLoad:
    return ServerLoad("r", "autoencoder", Precision.FP32, 4, loop, "not run", **fields)


def on_synthetic_clock(make):
    with asyncio.Runner(loop_factory=SyntheticLoop) as runner:

        async def run():
            return await make()

        return runner.run(run())


def test_a_stall_of_one_second_shows_in_the_p99_of_an_open_loop():
    due_s = arrivals_s(100, 5, "constant")
    answers = on_synthetic_clock(lambda: open_loop(Server(1e-3, (2.0, 3.0)).ask, due_s))
    found = summed_up(row(offered_per_s=100.0), answers)
    assert found.requests == 500
    assert found.latencies_s["p50"] == pytest.approx(1e-3, rel=0.01)
    assert found.latencies_s["p99"] > 0.9
    assert found.latencies_s["max"] == pytest.approx(1.0, rel=0.02)
    hurt = sum(one.done_s - one.due_s > 0.01 for one in answers)
    assert hurt == pytest.approx(110, abs=3)  # those due in the stall, and those behind them


def test_a_closed_loop_sees_that_stall_once():
    answers = on_synthetic_clock(lambda: closed_loop(Server(1e-3, (2.0, 3.0)).ask, 1, 5.0))
    found = summed_up(row("closed", callers=1), answers)
    assert found.latencies_s["p99"] == pytest.approx(1e-3, rel=0.01)
    assert found.latencies_s["max"] == pytest.approx(1.0, rel=0.01)
    assert found.late_p99_s is None


def test_more_than_a_server_can_answer_grows_a_queue_and_is_told():
    answers = on_synthetic_clock(
        lambda: open_loop(Server(10e-3).ask, arrivals_s(200, 2, "constant"))
    )
    found = summed_up(row(offered_per_s=200.0), answers)
    assert found.achieved_per_s == pytest.approx(100, rel=0.01)
    assert found.throughput_per_s == pytest.approx(400, rel=0.01)
    assert found.latencies_s["max"] == pytest.approx(2.0, rel=0.02)
    assert saturated(found)
    assert any("saturated" in warning for warning in found.warnings)


def test_a_client_that_sends_late_is_told_and_pays_for_it():
    async def ask(number: int) -> Reply:
        loop = asyncio.get_running_loop()
        loop.now_s += 8e-3  # the loop itself is busy, and what comes meanwhile waits for it
        return Reply(loop.time(), "good")

    answers = on_synthetic_clock(lambda: open_loop(ask, arrivals_s(100, 1, "poisson")))
    found = summed_up(row(offered_per_s=100.0), answers)
    assert found.late_p99_s > 8e-3
    assert found.latencies_s["p99"] >= found.late_p99_s
    assert any("client-bound" in warning for warning in found.warnings)


def test_an_idle_client_is_not_late():
    answers = on_synthetic_clock(
        lambda: open_loop(Server(1e-3).ask, arrivals_s(100, 1, "constant"))
    )
    found = summed_up(row(offered_per_s=100.0), answers)
    assert found.late_p99_s == 0.0
    assert found.warnings == ()
    assert not saturated(found)


@pytest.mark.parametrize(("rate", "seconds", "count"), [(1000, 2, 2000), (10, 1, LEAST_REQUESTS)])
def test_arrivals_are_as_many_as_a_p99_needs(rate, seconds, count):
    for kind in ("poisson", "constant"):
        due_s = arrivals_s(rate, seconds, kind)
        assert len(due_s) == count
        assert (np.diff(due_s) > 0).all()
        assert due_s[0] >= 0
        assert due_s[-1] == pytest.approx(count / rate, rel=0.05)
        assert due_s[-1] < count / rate


def test_poisson_gaps_are_exponential_and_the_same_again():
    gaps = np.diff(arrivals_s(500, 40, "poisson"))
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.03)
    assert (gaps > 3 / 500).mean() == pytest.approx(np.exp(-3), rel=0.1)
    assert np.array_equal(arrivals_s(500, 40, "poisson"), arrivals_s(500, 40, "poisson"))
    assert np.diff(arrivals_s(500, 1, "constant")) == pytest.approx(1 / 500)


def test_failed_and_wrong_answers_are_counted_apart_and_have_no_latency():
    answers = [
        Answer(0.0, 0.0, 0.010, "good", "2"),
        Answer(0.1, 0.1, 9.0, "failed", why="refused"),
        Answer(0.2, 0.2, 0.230, "different", "1", "3 of 4 outputs beyond their bound"),
        Answer(0.3, 0.3, 0.330, "good", "1"),
    ]
    found = summed_up(row(offered_per_s=10.0), answers)
    assert (found.status, found.requests, found.failed, found.different) == ("failed", 4, 1, 1)
    assert found.reason == (
        "of 4 requests 1 failed and 1 were answered wrongly; the first: refused"
    )
    assert found.latencies_s["max"] == pytest.approx(0.03)
    assert found.achieved_per_s == pytest.approx(2 / 9)
    assert found.versions == ("1", "2")


def test_a_load_of_failures_alone_has_no_figures():
    found = summed_up(row("closed"), [Answer(0.0, 0.0, 1.0, "failed", why="gone")])
    assert (found.status, found.latencies_s, found.achieved_per_s) == ("failed", {}, 0.0)


def test_callers_of_a_closed_loop_ask_side_by_side():
    async def ask(number: int) -> Reply:
        await asyncio.sleep(0.01)
        return Reply(asyncio.get_running_loop().time(), "good")

    answers = on_synthetic_clock(lambda: closed_loop(ask, 4, 1.0, least_requests=1))
    found = summed_up(row("closed", callers=4), answers)
    assert found.achieved_per_s == pytest.approx(400, rel=0.02)


def test_the_loop_of_measurements_waits_in_microseconds():
    loop = precise_loop()
    try:
        assert isinstance(loop._selector, selectors.SelectSelector)  # epoll rounds up to 1 ms
    finally:
        loop.close()
