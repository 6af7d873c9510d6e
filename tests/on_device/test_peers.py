"""Peers of the engines: torch on a CPU, ONNX Runtime and bare copies on the recording double."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from model_machine import ModelGpu

from tiedexport import runtimes
from tiedexport.acceptance import speed
from tiedexport.acceptance.job import bound_on, worst_in_bounds
from tiedexport.contender import golden_inputs
from tiedexport.errors import RuntimeFailedError
from tiedexport.on_device import contender as device_contender
from tiedexport.on_device.contender import DeviceContender
from tiedexport.on_device.copies import Copies
from tiedexport.on_device.cuda import Cuda
from tiedexport.on_device.libraries import all_subjects
from tiedexport.on_device.libraries.onnxruntime import GRAPH_OPTIONS, OnnxRuntime
from tiedexport.on_device.libraries.torch import Torch
from tiedexport.on_device.work import Bound
from tiedexport.results import Latency
from tiedexport.spec import Precision

torch.set_num_threads(1)

STAGES = ("encoder", "decoder", "autoencoder")


@pytest.fixture
def gpu() -> ModelGpu:
    return ModelGpu()


@pytest.fixture
def cuda(gpu) -> Cuda:
    return Cuda(gpu.driver)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("as_sessions", [False, True])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.BF16])
def test_torch_computes_the_model(bundle, cuda, stage, precision, as_sessions):
    spec = bundle.manifest.stage(stage)
    subject = Torch(cuda, bundle, precision, as_sessions=as_sessions, device="cpu")
    bound = subject.bind(spec, golden_inputs(bundle, spec, 5), graph=False)
    bound.enqueue()
    output = bound.output()
    assert output.dtype == spec.outputs[0].dtype.dtype
    assert worst_in_bounds(output, bound_on(bundle, spec, precision, precision)) <= 1.0
    bound.free()
    subject.close()


class OrtOptions:
    """Of a session or of a run: what was asked for."""

    def __init__(self):
        self.entries = {}

    def add_session_config_entry(self, key, value):
        self.entries[key] = value

    add_run_config_entry = add_session_config_entry


def fake_onnxruntime(gpu: ModelGpu, made: list):
    """A session that copies its bound input to its bound output on the stream it was given."""

    class Session:
        def __init__(self, path, options, providers, enable_fallback):
            assert enable_fallback == 0
            ((self.provider, self.options),) = providers
            self.entries = options.entries
            self.bound = {}
            made.append(self)

        def get_providers(self):
            return [self.provider, "CPUExecutionProvider"]

        def io_binding(self):
            return self

        def bind_input(self, name, device, index, dtype, shape, address):
            assert device == "cuda"
            self.bound["input"] = address, np.dtype(dtype).itemsize * int(np.prod(shape))

        def bind_output(self, name, device, index, dtype, shape, address):
            assert device == "cuda"
            self.bound["output"] = address, np.dtype(dtype).itemsize * int(np.prod(shape))

        def run_with_iobinding(self, binding, run_options):
            assert run_options.entries == {"disable_synchronize_execution_providers": "1"}
            (source, size), (target, room) = self.bound["input"], self.bound["output"]
            for address, length in self.bound.values():
                gpu.memory.check(address, length, "device")
            length = min(size, room)

            def work():
                gpu.memory.bytes(target, length)[:] = gpu.memory.bytes(source, length)

            gpu.stream_of(int(self.options["user_compute_stream"])).enqueue("execute", work)

    return types.SimpleNamespace(
        InferenceSession=Session, SessionOptions=OrtOptions, RunOptions=OrtOptions
    )


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("runtime", GRAPH_OPTIONS)
def test_onnxruntime_runs_on_our_stream_from_our_buffers(
    dense_bundle, gpu, cuda, monkeypatch, runtime, graph
):
    made: list = []
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnxruntime(gpu, made))
    subject = OnnxRuntime(runtime, cuda, dense_bundle, Precision.FP16, "packed")
    spec = dense_bundle.manifest.stage("autoencoder")
    x = golden_inputs(dense_bundle, spec, 3)
    bound = subject.bind(spec, x, graph)
    np.testing.assert_array_equal(bound.output(), x)
    assert (GRAPH_OPTIONS[runtime] in made[0].options) == graph
    assert ("trt_fp16_enable" in made[0].options) == (runtime == "onnxruntime-tensorrt")
    assert made[0].entries["session.disable_cpu_ep_fallback"] == "1"
    assert "session.disable_prepacking" not in made[0].entries
    bound.free()
    subject.close()
    assert gpu.memory.used() == 0


def test_every_runtime_on_a_gpu_has_its_work_timed_on_the_device():
    rows = runtimes.all_runtimes().values()
    assert all_subjects().keys() == {row.name for row in rows if row.on_gpu}


@pytest.mark.parametrize("inwards", [True, False])
def test_a_copy_moves_as_many_bytes_as_the_stage_takes_or_gives(dense_bundle, gpu, cuda, inwards):
    spec = dense_bundle.manifest.stage("encoder")
    bound = Copies(cuda, inwards).bind(spec, golden_inputs(dense_bundle, spec, 4), graph=False)
    features = (spec.inputs if inwards else spec.outputs)[0].element_shape[0]
    assert gpu.memory.used() == 4 * 4 * features
    assert cuda.time(bound.enqueue, 3).shape == (3,)
    assert bound.output() is None
    bound.free()
    assert not gpu.memory.blocks


class Subject:
    """Raises where it is told to; counts what is freed."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.freed, self.closed = fails, 0, 0

    def bind(self, stage, x, graph):
        self._maybe("bind")
        return Bound(lambda: self._maybe("enqueue"), lambda: x, self._free)

    def close(self) -> None:
        self.closed += 1

    def _free(self) -> None:
        self.freed += 1

    def _maybe(self, what: str) -> None:
        if self.fails == what:
            raise ValueError("a foreign error")


def test_a_contender_frees_each_batch_before_the_next(dense_bundle, cuda):
    subject = Subject()
    contender = DeviceContender(cuda, dense_bundle, lambda: subject, graph=False)
    assert contender.output() is None
    for batch in (1, 8):
        assert contender.prepare("encoder", batch, 0.0).calls == 1
        assert contender.take_turn(4).shape == (4,)
        assert len(contender.output()) == batch
    contender.close()
    assert (subject.freed, subject.closed) == (2, 1)


def test_the_time_to_enqueue_is_the_host_s_alone(dense_bundle, cuda, monkeypatch):
    now_s = 0.0

    class Enqueues(Subject):
        def bind(self, stage, x, graph):
            return Bound(lambda: pass_by(0.003), lambda: x)

    def pass_by(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    monkeypatch.setattr(device_contender, "perf_counter", lambda: now_s)
    monkeypatch.setattr(cuda, "wait", lambda: pass_by(0.5))
    contender = DeviceContender(cuda, dense_bundle, Enqueues, graph=False)
    contender.prepare("encoder", 1, 0.0)
    assert contender.enqueue_s == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("enqueue_s", "copy_s", "kinds"),
    [
        (1e-5, 1e-5, []),
        (9e-5, 1e-5, ["enqueue-bound"]),
        (1e-5, 2e-4, ["transfer-bound", "transfer-bound"]),
    ],
)
def test_a_row_is_warned_of_what_bounds_it_and_the_copies_are_not(enqueue_s, copy_s, kinds):
    times = {"torch eager": 1e-4, "copy to the device": copy_s, "copy from the device": copy_s}
    rows = [
        Latency(name, "encoder", Precision.FP16, 1, 1, "passed", median_s=median_s)
        for name, median_s in times.items()
    ]
    rows.append(Latency("tensorrt", "encoder", Precision.FP16, 1, 1, "not run", "no plan"))
    there = SimpleNamespace(contender=SimpleNamespace(enqueue_s=enqueue_s), graph=False)
    racers = [there, there, there, SimpleNamespace(contender=None)]
    found = list(speed.bounded(rows, racers))
    assert [warning.kind for warning in found[0].warnings] == kinds
    assert found[1:] == rows[1:]


@pytest.mark.parametrize("fails", ["bind", "enqueue"])
def test_what_a_library_raises_becomes_ours(dense_bundle, cuda, fails):
    contender = DeviceContender(cuda, dense_bundle, lambda: Subject(fails), graph=False)
    with pytest.raises(RuntimeFailedError, match="ValueError: a foreign error"):
        contender.prepare("encoder", 1, 0.0)


def test_a_model_that_cannot_be_loaded_becomes_ours(dense_bundle, cuda):
    def load():
        raise OSError("libcublas.so.13: cannot open shared object file")

    with pytest.raises(RuntimeFailedError, match=r"libcublas\.so\.13"):
        DeviceContender(cuda, dense_bundle, load, graph=False)
