"""The device runner, recorded, not run on a GPU: see `recording_gpu` for what is refused."""

from __future__ import annotations

import gc
import logging
import sys
import threading

import handmade
import msgspec
import numpy as np
import pytest
import recording_gpu
from recording_gpu import RecordingGpu, Tensor

from tiedexport import trt
from tiedexport.bundle import MANIFEST, file_sha256, open_bundle
from tiedexport.device import DeviceWeights
from tiedexport.errors import BundleError, MissingRuntimeError, RuntimeFailedError
from tiedexport.manifest import Binding, FileRecord, PlanRecord, encode_manifest
from tiedexport.results import Availability
from tiedexport.runtimes import Options, runtime_named
from tiedexport.runtimes import tensorrt as runner
from tiedexport.session import open_session
from tiedexport.spec import Precision

FP16, FP32 = Precision.FP16, Precision.FP32
VERSION, PROFILE = "1.7.1", (1, 8, 16)


class Logger:
    """The part of the module handle's logger that the runner touches."""

    def __init__(self) -> None:
        self.collectors: dict[int, list[str]] = {}

    def log(self, severity: str, message: str) -> None:
        for collector in self.collectors.values():
            collector.append(message)


def plan_of(stage, weights, **changes) -> PlanRecord:
    data = [(spec, "input") for spec in stage.inputs] + [(spec, "output") for spec in stage.outputs]
    bindings = [Binding(s.name, role, s.dtype, (-1, *s.element_shape)) for s, role in data]
    bindings += [Binding(n, "weight", FP16, array.shape) for n, array in weights.items()]
    record = PlanRecord(
        file=f"plans/rtx/{stage.name}.fp16.plan",
        stage=stage.name,
        precision=FP16,
        target="rtx",
        package="tensorrt_rtx",
        package_version=VERSION,
        compute_capabilities=(80, 89),
        weights="shared" if weights else "baked",
        profile=PROFILE,
        bindings=tuple(bindings),
        graph_sha256="0" * 64,
    )
    return msgspec.structs.replace(record, **changes)


def bundle_with_plans(path, *, weights="shared", **changes):
    """`handmade.bundle` with a plan a stage; a plan's bytes are the name of its stage."""
    bundle = handmade.bundle(path)
    stored = bundle.weights(FP16) if weights == "shared" else {}
    plans = tuple(plan_of(stage, stored, **changes) for stage in bundle.manifest.stages)
    files = dict(bundle.manifest.files)
    for plan in plans:
        file = path / plan.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(plan.stage.encode())
        files[plan.file] = FileRecord(file.stat().st_size, file_sha256(file))
    manifest = msgspec.structs.replace(bundle.manifest, plans=plans, files=files)
    (path / MANIFEST).write_bytes(encode_manifest(manifest))
    return open_bundle(path)


@pytest.fixture
def gpu(monkeypatch):
    """A machine with an sm89 device, cuda-core and TensorRT-RTX, as far as the runner can see."""
    gpu = RecordingGpu()
    gpu.logger = Logger()
    handle = trt.Handle(gpu.module, "tensorrt_rtx", VERSION, gpu.logger)
    monkeypatch.setattr(trt, "load", lambda package: handle)
    monkeypatch.setattr(trt, "driver", lambda: Availability(True, "CUDA 13.0"))
    monkeypatch.setattr(trt, "device", lambda: trt.Device("GeForce Test", 89))
    monkeypatch.setattr(runner, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "cuda.core", gpu.core)
    return gpu


@pytest.fixture
def bundle(tmp_path, gpu):
    bundle = bundle_with_plans(tmp_path / "model.tied")
    give_plans(gpu, bundle)
    return bundle


def give_plans(gpu, bundle) -> None:
    for plan in bundle.manifest.plans:
        tensors = [Tensor(b.name, b.role, b.dtype, b.shape) for b in plan.bindings]
        gpu.plans[plan.stage.encode()] = recording_gpu.Engine(gpu, tensors, plan.profile)


def session_on(bundle):
    return open_session(bundle, runtime="tensorrt_rtx")


def expected(bundle, x, shape):
    """What the recorded engine computes."""
    scale = sum(float(w.astype(np.float64).sum()) for w in bundle.weights(FP16).values())
    total = x.astype(np.float64).sum(axis=tuple(range(1, x.ndim)))
    return np.broadcast_to((scale * total).reshape(len(x), *[1] * len(shape)), (len(x), *shape))


def images(n: int) -> np.ndarray:
    return np.random.default_rng(n).random((n, handmade.SIDE, handmade.SIDE), np.float32)


def weight_allocations(gpu, bundle) -> int:
    sizes = {array.nbytes for array in bundle.weights(FP16).values()}
    return sum(gpu.log.count(f"allocate {size}") for size in sizes)


@pytest.mark.parametrize("batch", [0, 1, 2, 16, 17, 40])
def test_recorded_run_computes_every_row_of_any_batch(gpu, bundle, batch):
    x = images(batch)
    with session_on(bundle) as session:
        y = session.reconstruct(x)
        out = np.empty_like(y)
        assert session.run("autoencoder", x, out=out) is out
    np.testing.assert_allclose(y, expected(bundle, x, x.shape[1:]), rtol=1e-6)
    np.testing.assert_array_equal(out, y)


def test_recorded_run_gives_results_that_later_calls_leave_alone(gpu, bundle):
    with session_on(bundle) as session:
        first = session.encode(images(3))
        kept = first.copy()
        session.encode(images(4))
    np.testing.assert_array_equal(first, kept)


def test_recorded_batches_below_the_profile_are_filled_up(tmp_path, gpu):
    bundle = bundle_with_plans(tmp_path / "model.tied", profile=(4, 8, 16))
    give_plans(gpu, bundle)
    x = images(2)
    with session_on(bundle) as session:
        y = session.reconstruct(x)
        bound_y = np.empty_like(y)
        session.bind("autoencoder", x, bound_y)()
    np.testing.assert_allclose(y, expected(bundle, x, x.shape[1:]), rtol=1e-6)
    np.testing.assert_array_equal(bound_y, y)


def test_recorded_weights_are_uploaded_once_for_all_stages_and_sessions(gpu, bundle):
    with session_on(bundle) as one, session_on(open_bundle(bundle.path)) as two:
        one.reconstruct(images(1)), two.encode(images(1))
        assert weight_allocations(gpu, bundle) == len(bundle.weights(FP16))
        addresses = {context.addresses["layers.0.weight"] for context in gpu.contexts}
        assert len(addresses) == 1


def test_recorded_device_memory_is_all_freed_when_the_last_session_closes(gpu, bundle):
    first, second = session_on(bundle), session_on(bundle)
    bound = first.bind("encoder", images(2), np.empty((2, handmade.CODE), np.float32))
    bound()
    first.close()
    np.testing.assert_allclose(
        second.reconstruct(images(1)), expected(bundle, images(1), (6, 6)), rtol=1e-6
    )
    second.close()
    second.close()
    del bound
    gc.collect()
    assert gpu.memory.blocks == {}
    assert not DeviceWeights._resident


def test_recorded_sessions_that_nobody_closed_are_freed_too(gpu, bundle):
    session_on(bundle).encode(images(1))
    gc.collect()
    assert gpu.memory.blocks == {}


def test_recorded_baked_plans_put_no_weights_on_the_device(tmp_path, gpu):
    bundle = bundle_with_plans(tmp_path / "model.tied", weights="baked")
    give_plans(gpu, bundle)
    x = images(2)
    with session_on(bundle) as session:
        y = session.reconstruct(x)
    np.testing.assert_allclose(y[:, 0, 0], x.sum(axis=(1, 2)), rtol=1e-6)
    assert weight_allocations(gpu, bundle) == 0


def test_recorded_bind_replays_a_graph_and_reads_the_array_each_time(gpu, bundle):
    x, y = images(4), np.zeros((4, 6, 6), np.float32)
    with session_on(bundle) as session:
        call = session.bind("autoencoder", x, y)
        assert not y.any(), "binding must not compute"
        gpu.log.clear()
        for factor in (1, 3):
            x *= factor
            call()
            np.testing.assert_allclose(y, expected(bundle, x, (6, 6)), rtol=1e-6)
        assert gpu.log == ["graph", "graph"]


def test_recorded_bound_contexts_wait_for_the_kernels_of_their_shape(gpu, bundle):
    with session_on(bundle) as session:
        session.bind("encoder", images(2), np.empty((2, handmade.CODE), np.float32))
    assert [context.strategy for context in gpu.contexts] == [None, None, None, "EAGER"]


def test_recorded_bind_and_run_do_not_disturb_each_other(gpu, bundle):
    x, y = images(4), np.zeros((4, 6, 6), np.float32)
    with session_on(bundle) as session:
        call = session.bind("autoencoder", x, y)
        session.reconstruct(images(9))
        call()
        np.testing.assert_allclose(y, expected(bundle, x, (6, 6)), rtol=1e-6)


@pytest.mark.parametrize(
    ("batch", "capturable", "reason"),
    [(4, False, "cannot be captured"), (17, True, "profile ends at 16")],
)
def test_recorded_bind_without_a_graph_says_why(gpu, bundle, caplog, batch, capturable, reason):
    gpu.capturable = capturable
    x, y = images(batch), np.zeros((batch, 6, 6), np.float32)
    with session_on(bundle) as session, caplog.at_level(logging.WARNING):
        session.bind("autoencoder", x, y)()
    assert reason in caplog.text
    assert "graph" not in gpu.log
    np.testing.assert_allclose(y, expected(bundle, x, (6, 6)), rtol=1e-6)


def test_recorded_capture_that_breaks_leaves_the_stream_usable(gpu, bundle, caplog, monkeypatch):
    def broken(builder):
        raise recording_gpu.FakeCudaError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")

    monkeypatch.setattr(recording_gpu.GraphBuilder, "end_building", broken)
    x, y = images(4), np.zeros((4, 6, 6), np.float32)
    with session_on(bundle) as session, caplog.at_level(logging.WARNING):
        session.bind("autoencoder", x, y)()
    assert "CAPTURE_INVALIDATED" in caplog.text
    np.testing.assert_allclose(y, expected(bundle, x, (6, 6)), rtol=1e-6)


def test_recorded_threads_share_a_session(gpu, bundle):
    failures = []
    with session_on(bundle) as session:

        def work(n: int) -> None:
            for _ in range(20):
                x = images(n)
                if not np.allclose(session.reconstruct(x), expected(bundle, x, (6, 6)), rtol=1e-6):
                    failures.append(n)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_recorded_use_after_close_is_refused(gpu, bundle):
    session = session_on(bundle)
    x, y = images(2), np.zeros((2, 6, 6), np.float32)
    call = session.bind("autoencoder", x, y)
    session.close()
    for use in (
        call,
        lambda: session.reconstruct(x),
        lambda: session.bind("autoencoder", x, y),
    ):
        with pytest.raises(RuntimeFailedError, match="the session is closed"):
            use()


def test_recorded_refusal_of_the_device_comes_in_the_library_s_words(gpu, bundle):
    with session_on(bundle) as session:
        gpu.fail_next = True
        with pytest.raises(RuntimeFailedError, match="the recorded device refuses"):
            session.reconstruct(images(1))


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (lambda gpu: setattr(gpu, "out_of_memory", True), "CUDA_ERROR_OUT_OF_MEMORY"),
        (lambda gpu: setattr(gpu, "no_contexts", True), "no execution context"),
        (lambda gpu: gpu.plans.clear(), "Serialization assertion failed"),
        (lambda gpu: gpu.plans[b"decoder"].tensors.pop(), "plan and manifest differ in"),
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


def test_a_plan_with_shared_weights_is_preferred_to_one_with_its_own(tmp_path, gpu):
    bundle = bundle_with_plans(tmp_path / "model.tied")
    baked = [msgspec.structs.replace(plan, weights="baked") for plan in bundle.manifest.plans]
    bundle.manifest = msgspec.structs.replace(
        bundle.manifest, plans=(*baked, *bundle.manifest.plans)
    )
    chosen = runtime_named("tensorrt_rtx")._fitting_plans(bundle, FP16)
    assert {plan.weights for plan in chosen.values()} == {"shared"}


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_without_a_driver_the_row_says_so_and_nothing_is_opened(monkeypatch, tmp_path, name):
    monkeypatch.setattr(runner, "find_spec", lambda name: name)
    monkeypatch.setattr(trt, "driver", lambda: Availability(False, reason="no CUDA driver"))
    runtime = runtime_named(name)
    assert runtime.availability().reason == "no CUDA driver"
    with pytest.raises(MissingRuntimeError, match="no CUDA driver"):
        runtime.open(handmade.bundle(tmp_path / "model.tied"), FP16, Options())


@pytest.mark.parametrize(
    ("missing", "extra"), [("tensorrt", "gpu"), ("cuda", "gpu"), ("cuda.core", "gpu")]
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, missing, extra):
    present = lambda name: None if name == missing else name  # noqa: E731
    monkeypatch.setattr(runner, "find_spec", present)
    monkeypatch.setattr(trt, "find_spec", present)
    monkeypatch.setattr(trt, "load", trt.load.__wrapped__)
    availability = runtime_named("tensorrt").availability()
    assert not availability.available
    assert f"tiedexport[{extra}]" in availability.remedy


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_sums_are_assumed_in_the_type_of_the_graph(name):
    runtime = runtime_named(name)
    assert runtime.accumulation == {precision: precision for precision in Precision}
    assert runtime.precisions[0] is FP16


def test_every_cuda_core_name_and_argument_that_the_runner_uses_exists():
    core = pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    from inspect import signature

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
    assert {"handle"} <= set(dir(core.Buffer)) & set(dir(core.Stream))


def test_every_tensorrt_name_that_the_runner_uses_exists():
    module = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    uses = {
        "Runtime": {"deserialize_cuda_engine"},
        "ICudaEngine": {
            "num_io_tensors",
            "get_tensor_name",
            "create_execution_context",
            "create_runtime_config",
        },
        "IRuntimeConfig": {"dynamic_shapes_kernel_specialization_strategy"},
        "DynamicShapesKernelSpecializationStrategy": {"EAGER"},
        "IExecutionContext": {
            "set_tensor_address",
            "set_input_shape",
            "infer_shapes",
            "execute_async_v3",
            "is_stream_capturable",
        },
    }
    for name, members in uses.items():
        assert members <= set(dir(getattr(module, name))), name
