"""The recording double refuses what it says it refuses: else the runner's tests prove nothing."""

from __future__ import annotations

import threading

import pytest
from recorded_machine import FP32, Logger
from recording_gpu import CrashError, FakeCudaError
from recording_tensorrt import Engine, RecordingTensorRT, Runtime, Tensor

HALVES = (("x", "input"), ("code_in", "input"), ("code", "output"), ("y", "output"))
ROW_BYTES = 16


class Ready:
    """A context of two halves with every address, batches of 2 and 0, and a stream."""

    def __init__(self) -> None:
        self.gpu = gpu = RecordingTensorRT()
        gpu.logger = Logger()
        tensors = [Tensor(name, role, FP32, (-1, 4)) for name, role in HALVES]
        gpu.plans[b"plan"] = Engine(gpu, tensors, ((0, 2, 4), (2, 4, 8)))
        gpu.set_current()
        self.stream = gpu.create_stream(options=True)
        self.runtime = Runtime(gpu)
        self.engine = self.runtime.deserialize_cuda_engine(b"plan")
        self.context = self.engine.create_execution_context()
        self.buffers = {n: gpu.allocate(8 * ROW_BYTES, stream=self.stream) for n, _ in HALVES}
        for name, buffer in self.buffers.items():
            assert self.context.set_tensor_address(name, buffer.handle)
        self.shapes(2, 0)

    def shapes(self, x: int, code_in: int) -> None:
        for name, rows in (("x", x), ("code_in", code_in)):
            assert self.context.set_input_shape(name, (rows, 4))

    def run(self) -> bool:
        done = self.context.execute_async_v3(self.stream.handle)
        self.stream.sync()
        return done


@pytest.fixture
def ready():
    return Ready()


def test_what_is_complete_runs(ready):
    assert ready.run()
    assert ready.gpu.log[-1] == "execute"


@pytest.mark.parametrize(
    "call",
    [
        lambda r: r.context.set_tensor_address("z", r.buffers["x"].handle),
        lambda r: r.context.set_tensor_address("x", r.buffers["x"].handle + 4),
        lambda r: r.context.set_optimization_profile_async(2, r.stream.handle),
        lambda r: r.context.set_optimization_profile_async(-1, r.stream.handle),
        lambda r: r.context.set_input_shape("y", (2, 4)),
        lambda r: r.context.set_input_shape("x", (2, 5)),
        lambda r: r.context.set_input_shape("x", (5, 4)),
        lambda r: r.engine.create_execution_context().set_input_shape("x", (2, 4)),
        lambda r: r.context.set_tensor_address("x", 0) and r.run(),
        # Also for a tensor without rows, and once the profile was changed.
        lambda r: r.context.set_tensor_address("y", 0) and r.run(),
        lambda r: r.context.set_optimization_profile_async(1, r.stream.handle) and r.run(),
        lambda r: r.runtime.deserialize_cuda_engine(b"another"),
    ],
)
def test_what_the_library_answers_with_false_or_none_is_so(ready, call):
    assert not call(ready)


def free(ready: Ready, name: str) -> None:
    ready.buffers[name].close(ready.stream)


def put(ready: Ready, name: str, address: int) -> None:
    assert ready.context.set_tensor_address(name, address)


def of_pinned_memory(ready: Ready) -> None:
    ready.pinned = ready.gpu.core.LegacyPinnedMemoryResource().allocate(8 * ROW_BYTES)
    put(ready, "x", ready.pinned.handle)


def on_too_little(ready: Ready) -> None:
    ready.small = ready.gpu.allocate(ROW_BYTES, stream=ready.stream)
    put(ready, "code", ready.small.handle)


def switching_elsewhere(ready: Ready) -> None:
    other = ready.gpu.create_stream(options=True)
    assert ready.context.set_optimization_profile_async(0, other.handle)
    ready.shapes(2, 0)


def capturing_new_shapes(ready: Ready) -> None:
    ready.run()
    ready.shapes(3, 0)
    ready.stream.create_graph_builder().begin_building("thread_local")


@pytest.mark.parametrize(
    ("trouble", "error", "words"),
    [
        (lambda r: free(r, "x"), FakeCudaError, "used after it was freed"),
        (lambda r: free(r, "y"), FakeCudaError, "used after it was freed"),
        (of_pinned_memory, FakeCudaError, "no device memory"),
        (on_too_little, FakeCudaError, "beyond the allocation"),
        (lambda r: put(r, "x", 256), FakeCudaError, "not on the device"),
        (lambda r: put(r, "code", r.buffers["x"].handle), CrashError, "where another tensor does"),
        (lambda r: r.stream.close(), CrashError, "a stream that is closed"),
        (lambda r: setattr(r, "engine", None), CrashError, "the engine died before its context"),
        (switching_elsewhere, CrashError, "switched on another stream"),
        (capturing_new_shapes, FakeCudaError, "shapes have just changed"),
    ],
)
def test_what_would_crash_or_go_wrong_on_a_device_is_an_error(ready, trouble, error, words):
    trouble(ready)
    with pytest.raises(error, match=words):
        ready.run()


def test_tensors_may_share_memory_only_while_one_of_them_is_empty(ready):
    put(ready, "code_in", ready.buffers["code"].handle)
    assert ready.run()
    ready.shapes(0, 2)
    assert ready.run()
    ready.shapes(2, 2)
    with pytest.raises(CrashError, match="lies where another tensor does"):
        ready.run()


def test_a_runtime_must_live_as_long_as_its_engine_and_needs_a_device(ready):
    ready.runtime = None
    with pytest.raises(CrashError, match="the runtime died before its engine"):
        ready.engine.create_execution_context()
    with pytest.raises(CrashError, match="invalid pointer"):
        RecordingTensorRT().module.Runtime(None)


def test_a_device_is_current_in_its_thread_only(ready):
    raised = []

    def elsewhere() -> None:
        try:
            ready.run()
        except FakeCudaError as error:
            raised.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert raised == ["CUDA_ERROR_INVALID_CONTEXT"]
