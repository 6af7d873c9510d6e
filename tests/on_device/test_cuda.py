"""The clock and memory of the device, on the double, and against NVIDIA's real bindings."""

from __future__ import annotations

import ast
import importlib
import inspect
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_machine import STEP_MS, ModelGpu

from tiedexport.errors import MissingRuntimeError, RuntimeFailedError
from tiedexport.on_device import cuda as module
from tiedexport.on_device.cuda import Cuda


@pytest.fixture(autouse=True)
def _patient_host(monkeypatch):
    """However slow this machine is, the host has not waited for the double."""
    monkeypatch.setattr(module, "perf_counter", lambda: 0.0)


@pytest.fixture
def gpu() -> ModelGpu:
    return ModelGpu()


@pytest.fixture
def cuda(gpu):
    with closing(Cuda(gpu.driver)) as opened:
        yield opened


def working(gpu: ModelGpu, cuda: Cuda, milliseconds: float):
    """A call that keeps the device busy for that long."""

    def advance() -> None:
        gpu.clock_ms += milliseconds

    return lambda: gpu.stream_of(cuda.stream).enqueue("execute", advance)


@settings(max_examples=20)
@given(st.integers(1, 40), st.floats(0.001, 10.0))
def test_each_call_has_the_time_between_its_two_events(calls, milliseconds):
    gpu = ModelGpu()
    with closing(Cuda(gpu.driver)) as cuda:
        samples = cuda.time(working(gpu, cuda, milliseconds), calls)
    assert samples.dtype == np.int64
    np.testing.assert_allclose(samples, np.full(calls, milliseconds * 1e6), atol=1, rtol=1e-6)
    assert not gpu.driver.events


def test_work_on_another_stream_is_not_taken_for_fast(gpu, cuda, monkeypatch):
    monkeypatch.setattr(module, "perf_counter", lambda: gpu.clock_ms / 1e3)
    other = gpu.stream_of(gpu.driver.cuStreamCreate(1)[1])

    def astray() -> None:
        def advance() -> None:
            gpu.clock_ms += 50.0

        other.enqueue("execute", advance)

    with pytest.raises(RuntimeFailedError, match="not on the stream that is timed"):
        cuda.time(astray, 3)
    assert cuda.time(working(gpu, cuda, 50.0), 1).tolist() == [50_000_000]


def test_a_graph_repeats_what_was_enqueued_and_is_freed(gpu, cuda):
    done = []

    def enqueue() -> None:
        gpu.stream_of(cuda.stream).enqueue("execute", lambda: done.append(1))

    launch, free = cuda.capture(enqueue)
    cuda.wait()
    assert done == []
    launch()
    launch()
    cuda.wait()
    assert done == [1, 1]
    free()
    assert not gpu.driver.graphs


def test_a_capture_that_fails_leaves_the_stream_usable(gpu, cuda):
    def enqueue() -> None:
        raise RuntimeFailedError("it allocates")

    with pytest.raises(RuntimeFailedError, match="it allocates"):
        cuda.capture(enqueue)
    cuda.wait()
    assert cuda.time(working(gpu, cuda, STEP_MS), 2).tolist() == [10_000, 10_000]


def test_arrays_go_in_and_come_out(gpu, cuda):
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    address = cuda.allocate(x.nbytes)
    cuda.copy_in(address, x)
    back = np.zeros_like(x)
    cuda.copy_out(back, address)
    cuda.wait()
    np.testing.assert_array_equal(back, x)
    cuda.free(address)
    with cuda.pinned(64) as host:
        assert (host.dtype, host.shape) == (np.uint8, (64,))
    assert gpu.memory.used() == 0


@pytest.mark.parametrize("leaving", [1 << 16, 1 << 20, 5 << 20])
def test_a_filled_device_has_little_left_until_it_is_given_back(gpu, cuda, leaving):
    before, total = cuda.memory_bytes()
    with cuda.filled(leaving) as free:
        assert leaving <= free < 2 * leaving
        with pytest.raises(RuntimeFailedError, match="OUT_OF_MEMORY"):
            cuda.allocate(free + 1)
    assert cuda.memory_bytes() == (before, total)


def test_a_refused_call_names_itself(gpu, cuda):
    gpu.driver.cuMemFree = lambda address: (700,)
    with pytest.raises(RuntimeFailedError, match="cuMemFree") as refusal:
        cuda.free(0)
    assert "700" in str(refusal.value)


def test_without_bindings_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "_DRIVER", "cuda.no_such_bindings")
    with pytest.raises(MissingRuntimeError, match=r"tiedexport\[gpu\]"):
        Cuda()


def test_every_call_is_one_of_the_real_bindings_with_as_many_arguments(gpu):
    driver = pytest.importorskip("cuda.bindings.driver")
    calls = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "call"
    ]
    named = {str(call.args[0].value): call for call in calls}
    assert len(named) > 20
    for name, call in named.items():
        signature = (getattr(driver, name).__doc__ or "").split("\n")[0]
        taken = [part for part in signature.partition("(")[2].rstrip(")").split(", ") if part]
        given_ = call.args[1:]
        if not any(isinstance(argument, ast.Starred) for argument in given_):
            assert len(given_) == len(taken), signature
        assert hasattr(gpu.driver, name), f"the double lacks {name}"


def test_the_flags_are_those_of_the_bindings():
    driver = pytest.importorskip("cuda.bindings.driver")
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    assert int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING) == module._NON_BLOCKING
    assert int(mode) == module._THREAD_LOCAL
    assert importlib.import_module(module._DRIVER) is driver
