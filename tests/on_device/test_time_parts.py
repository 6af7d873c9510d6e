"""The time of each part of a call, on the recording double and a clock of its own."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from model_machine import ModelGpu

from tiedexport.errors import RuntimeFailedError
from tiedexport.on_device import cuda as clock
from tiedexport.on_device.cuda import Cuda


class Parts:
    """A copy of 1 ms, work of 20 ms and a copy of 3 ms, enqueued in 0, 5 and 0 ms of the host."""

    def __init__(self, monkeypatch) -> None:
        self.gpu, self.host_s = ModelGpu(), 0.0
        self.cuda = Cuda(self.gpu.driver)
        self.waiting, self.most_waiting = 0, 0
        monkeypatch.setattr(clock, "perf_counter", lambda: self.host_s)

    def part(self, device_ms: float, host_s: float = 0.0, last: bool = False):
        def work() -> None:
            self.gpu.clock_ms += device_ms
            self.waiting -= last

        def enqueue() -> None:
            self.host_s += host_s
            self.waiting += last
            self.most_waiting = max(self.waiting, self.most_waiting)
            self.gpu.stream_of(self.cuda.stream).enqueue("execute", work)

        return enqueue

    def work(self):
        return [self.part(1), self.part(20, 0.005), self.part(3, last=True)]


@pytest.fixture
def parts(monkeypatch) -> Parts:
    return Parts(monkeypatch)


@pytest.mark.parametrize("calls", [1, 2, 7])
def test_each_part_has_the_time_between_its_events_and_the_host_its_own(parts, calls):
    device_ns, host_ns = parts.cuda.time_parts(parts.work(), calls)
    np.testing.assert_array_equal(device_ns, np.full((calls, 3), [1e6, 20e6, 3e6]))
    np.testing.assert_array_equal(host_ns, np.full((calls, 3), [0, 5e6, 0]))
    parts.cuda.close()
    assert not parts.gpu.driver.events


def test_what_passes_between_two_calls_is_part_of_none(parts):
    """Here the host: it is late with each call."""
    real = parts.cuda.call

    def call(name, *arguments):
        if name == "cuEventSynchronize":
            parts.cuda.wait()
            parts.gpu.clock_ms += 50
        return real(name, *arguments)

    parts.cuda.call = call
    device_ns, _ = parts.cuda.time_parts(parts.work(), 5)
    np.testing.assert_array_equal(device_ns, np.full((5, 3), [1e6, 20e6, 3e6]))


def test_the_host_is_one_call_ahead_and_no_more(parts):
    parts.cuda.time_parts(parts.work(), 9)
    assert (parts.waiting, parts.most_waiting) == (0, 2)


def test_parts_on_another_stream_are_not_taken_for_fast(parts, monkeypatch):
    monkeypatch.setattr(clock, "perf_counter", lambda: parts.gpu.clock_ms / 1e3)
    with closing(Cuda(parts.gpu.driver)) as other:
        work = parts.part(50)
        parts.cuda.time_parts([work], 1)
        parts.cuda, here = other, parts.cuda
        with pytest.raises(RuntimeFailedError, match="not on the stream that is timed"):
            here.time_parts([lambda: None, work, lambda: None], 1)
