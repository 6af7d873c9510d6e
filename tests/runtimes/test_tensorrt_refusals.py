"""What the TensorRT rows refuse, and how it is said: recorded, not run on a GPU."""

from __future__ import annotations

import gc
import sys
from inspect import signature

import handmade
import msgspec
import pytest
from recorded_machine import (
    FP16,
    FP32,
    bundle_with_plans,
    give_plans,
    recorded_machine,
    runnable_bundle,
    session_on,
)

from tiedexport import trt
from tiedexport.device import memory_bytes
from tiedexport.errors import BundleError, MissingRuntimeError, RuntimeFailedError
from tiedexport.results import Availability
from tiedexport.runtimes import Options, runtime_named
from tiedexport.runtimes import tensorrt as runner
from tiedexport.spec import Precision

DECODER = b"plans/rtx/decoder.fp16.plan"


@pytest.fixture
def gpu(monkeypatch):
    return recorded_machine(monkeypatch)


@pytest.fixture
def bundle(tmp_path, gpu):
    return runnable_bundle(gpu, tmp_path / "model.tied")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (lambda gpu: gpu.plans.clear(), "Serialization assertion failed"),
        (lambda gpu: gpu.plans[DECODER].tensors.pop(), "plan and manifest differ in"),
    ],
)
def test_recorded_trouble_in_opening_is_ours_and_frees_everything(gpu, bundle, trouble, words):
    trouble(gpu)
    with pytest.raises(RuntimeFailedError, match=words):
        session_on(bundle)
    gc.collect()
    assert gpu.memory.blocks == {}


def test_recorded_plans_whose_weights_differ_from_the_file_are_refused(tmp_path, gpu):
    bundle = bundle_with_plans(tmp_path / "model.tied")
    plan = bundle.manifest.plans[0]
    wrong = [msgspec.structs.replace(b, dtype=FP32) if b.name == "b" else b for b in plan.bindings]
    plans = (
        msgspec.structs.replace(plan, bindings=tuple(wrong)),
        *bundle.manifest.plans[1:],
    )
    bundle.manifest = msgspec.structs.replace(bundle.manifest, plans=plans)
    give_plans(gpu, bundle)
    with pytest.raises(BundleError, match=r"(?s)b.*expected: fp32\[5\]"):
        session_on(bundle)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compute_capabilities": (80, 120)}, "plans are for sm80, sm120, GeForce Test is sm89"),
        ({"package_version": "1.6.0"}, r"pip install tensorrt-rtx==1\.6\.0"),
        ({"precision": FP32}, "no tensorrt_rtx plan of its encoder in fp16"),
        ({"package": "tensorrt"}, "--target rtx:sm89"),
    ],
)
def test_plans_that_do_not_fit_are_explained_before_they_are_read(tmp_path, gpu, changes, words):
    bundle = bundle_with_plans(tmp_path / "model.tied", **changes)
    runtime = runtime_named("tensorrt_rtx")
    reason = runtime.refusal(bundle, FP16)
    with pytest.raises(MissingRuntimeError, match=words):
        runtime.open(bundle, FP16, Options())
    assert reason is not None
    assert gpu.memory.blocks == {}


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_without_a_driver_the_row_says_so_and_nothing_is_opened(monkeypatch, tmp_path, name):
    monkeypatch.setattr(runner, "find_spec", lambda name: name)
    monkeypatch.setattr(
        trt, "driver_for", lambda name: Availability(False, reason="no CUDA driver")
    )
    runtime = runtime_named(name)
    assert runtime.availability().reason == "no CUDA driver"
    with pytest.raises(MissingRuntimeError, match="no CUDA driver"):
        runtime.open(handmade.bundle(tmp_path / "model.tied"), FP16, Options())


@pytest.mark.parametrize(
    ("missing", "extra"), [("tensorrt", "gpu"), ("cuda", "gpu"), ("cuda.core", "gpu")]
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, missing, extra):
    def present(name: str) -> str | None:
        return None if name == missing else name

    monkeypatch.setattr(runner, "find_spec", present)
    monkeypatch.setattr(trt, "find_spec", present)
    monkeypatch.setattr(trt, "load", trt.load.__wrapped__)
    availability = runtime_named("tensorrt").availability()
    assert not availability.available
    assert f"tiedexport[{extra}]" in availability.remedy


@pytest.mark.parametrize("broken", ["cuda.core", "cuda.bindings.driver"])
def test_a_broken_cuda_core_is_told_and_passed_over(gpu, bundle, monkeypatch, broken):
    monkeypatch.setitem(sys.modules, broken, None)
    if broken == "cuda.core":
        with pytest.raises(
            RuntimeFailedError, match=r"cuda-core does not load(?s:.*)tiedexport\[rtx"
        ):
            session_on(bundle)
    with pytest.raises(RuntimeFailedError, match="does not tell the device's memory"):
        memory_bytes()


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_sums_are_assumed_in_the_type_of_the_graph(name):
    runtime = runtime_named(name)
    assert runtime.accumulation == {precision: precision for precision in Precision}
    assert runtime.precisions[0] is FP16


def test_every_cuda_core_name_and_argument_that_the_runner_uses_exists():
    core = pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    uses = {
        core.Device.create_stream: {"options"},
        core.Device.allocate: {"size", "stream"},
        core.Device.set_current: set(),
        core.Buffer.copy_from: {"src", "stream"},
        core.Buffer.from_handle: {"ptr", "size", "owner"},
        core.Buffer.close: {"stream"},
        core.LegacyPinnedMemoryResource.allocate: {"size"},
        core.Stream.sync: set(),
        core.Stream.close: set(),
        core.Stream.create_graph_builder: set(),
        core.graph.GraphBuilder.begin_building: {"mode"},
        core.graph.GraphBuilder.end_building: set(),
        core.graph.GraphBuilder.complete: set(),
        core.graph.GraphBuilder.close: set(),
        core.graph.Graph.launch: {"stream"},
        core.graph.Graph.close: set(),
    }
    for function, arguments in uses.items():
        assert arguments <= signature(function).parameters.keys(), function
    assert core.StreamOptions(nonblocking=True).nonblocking
    assert callable(pytest.importorskip("cuda.bindings.driver").cuMemGetInfo)
    assert {"handle"} <= set(dir(core.Buffer)) & set(dir(core.Stream))


def test_every_tensorrt_name_that_the_runner_uses_exists():
    module = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    uses = {
        "Runtime": {"deserialize_cuda_engine", "engine_host_code_allowed"},
        "ICudaEngine": {
            "num_io_tensors",
            "get_tensor_name",
            "num_optimization_profiles",
            "get_tensor_profile_shape",
            "device_memory_size_v2",
            "create_execution_context",
            "create_runtime_config",
        },
        "IRuntimeConfig": {"dynamic_shapes_kernel_specialization_strategy"},
        "DynamicShapesKernelSpecializationStrategy": {"EAGER"},
        "IExecutionContext": {
            "set_optimization_profile_async",
            "set_tensor_address",
            "set_input_shape",
            "infer_shapes",
            "execute_async_v3",
            "is_stream_capturable",
        },
    }
    for name, members in uses.items():
        assert members <= set(dir(getattr(module, name))), name
