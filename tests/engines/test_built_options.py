"""Every option in engines that TensorRT-RTX really builds, and what it is refused before."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from conftest import needs_rtx
from tied_graphs import baked_request, shared_request

from tiedexport import trt
from tiedexport.engine_options import EngineOptions
from tiedexport.engines import Engine, EngineRequest, builder_for
from tiedexport.engines import tensorrt as builders
from tiedexport.errors import RuntimeFailedError, UsageError
from tiedexport.network import plans
from tiedexport.results import Availability
from tiedexport.spec import Precision

pytestmark = needs_rtx

NO_DRIVER = Availability(False, reason="no CUDA driver")


def build(request: EngineRequest) -> Engine:
    return builder_for(request.target).build(request)


def refusal(request: EngineRequest) -> str | None:
    return builder_for(request.target).refusal(request)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in CI, wherever this runs."""
    monkeypatch.setattr(trt, "driver", lambda: NO_DRIVER)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_pools": {"workspace": 2**30}},
        {"memory_pools": {"workspace": 2**28, "tacticSharedMem": 2**17}},
        {"builder_optimization_level": 0},
        {"builder_optimization_level": 5},
        {"profiling_verbosity": "detailed"},
        {"profiling_verbosity": "none"},
        {"profiles": ((1, 1, 1),)},
        {"profiles": ((1, 1, 4), (8, 32, 64))},
    ],
)
def test_a_plan_is_built_with_each_option_and_says_so(changes: dict[str, Any]):
    options = EngineOptions(**changes)
    engine = build(shared_request(options=options))
    assert engine.options == options
    assert len(engine.plan) > 1000
    assert engine.notes == ()


def test_each_profile_has_kernels_of_its_own():
    one, two = (
        build(shared_request(options=EngineOptions(profiles=profiles)))
        for profiles in (((1, 8, 256),), ((1, 8, 256), (1, 1, 1)))
    )
    assert len(two.plan) > 1.5 * len(one.plan)


def test_a_pool_that_is_too_small_is_named_with_the_option(tmp_path: Path):
    small = EngineOptions(memory_pools={"workspace": 1000})
    with pytest.raises(RuntimeFailedError, match=r"workspace limit[^$]*--memPoolSize"):
        build(baked_request(tmp_path, options=small))


def test_a_pool_that_tensorrt_only_logs_as_impossible_stops_the_build():
    huge = EngineOptions(memory_pools={"tacticSharedMem": 2**40})
    with pytest.raises(RuntimeFailedError, match=r"an option was refused.*must be < 1GiB"):
        build(shared_request(options=huge))


def test_a_batch_beyond_all_memory_is_named_with_the_option():
    endless = EngineOptions(profiles=((1, 8, 2**31 - 1),))
    with pytest.raises(RuntimeFailedError, match=r"OutOfMemory[^$]*--maxShapes"):
        build(shared_request(options=endless))


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize("weights", ["baked", "one-plan"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"refit": True}, "needs a GPU for --refit: no CUDA driver"),
        ({"strip_weights": True}, "needs a GPU for --stripWeights: no CUDA driver"),
        ({"version_compatible": True}, "--versionCompatible needs libnvinfer_lean.so.1"),
        ({"hardware_compatibility": "ampere+"}, "--target rtx:sm86"),
        ({"hardware_compatibility": "sameComputeCapability"}, "--target rtx:sm86"),
    ],
)
def test_what_rtx_cannot_do_is_refused_with_another_way(changes, says, weights):
    request = shared_request(weights=weights, options=EngineOptions(**changes))
    assert says in (refusal(request) or "")
    with pytest.raises(UsageError, match="the target cannot have this engine"):
        build(request)


def test_rtx_has_no_timing_cache(tmp_path: Path):
    request = shared_request(timing_cache=tmp_path / "kernels.cache")
    assert "leave --timingCacheFile out" in (refusal(request) or "")


@pytest.mark.parametrize("changes", [{"refit": True}, {"strip_weights": True}])
def test_with_a_driver_rtx_may_try_to_refit(changes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trt, "driver", lambda: Availability(True, "CUDA 13.0"))
    assert refusal(shared_request(weights="baked", options=EngineOptions(**changes))) is None


def test_with_the_lean_runtime_rtx_may_try_to_be_version_compatible(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(builders, "_loads", lambda library: library == "libnvinfer_lean.so.1")
    assert refusal(shared_request(options=EngineOptions(version_compatible=True))) is None


@pytest.mark.parametrize("flag", ["refit", "strip_weights", "weight_streaming"])
def test_shared_weights_are_refused_what_is_about_weights_in_the_plan(flag: str):
    request = shared_request(options=EngineOptions(**{flag: True}))
    assert "--weights baked" in (refusal(request) or "")


def test_a_gpu_s_builder_takes_what_rtx_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trt, "device", lambda: trt.Device("GPU", 89))
    options = EngineOptions(
        version_compatible=True, hardware_compatibility="ampere+", strip_weights=True, refit=True
    )
    request = shared_request(
        "tensorrt", weights="baked", options=options, timing_cache=tmp_path / "kernels.cache"
    )
    assert refusal(request) is None


@pytest.mark.parametrize(
    ("precision", "kept", "refused"),
    [
        (Precision.BF16, {}, True),
        (Precision.FP32, {}, False),
        (Precision.FP16, {}, False),
        (Precision.FP16, {"w": Precision.BF16}, True),
        (Precision.FP16, {"elsewhere": Precision.BF16}, False),
    ],
)
def test_a_turing_gpu_has_no_bf16(precision, kept, refused, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trt, "device", lambda: trt.Device("GPU", 75))
    reason = refusal(shared_request("tensorrt", precision, kept=kept))
    assert (reason is not None) == refused
    assert (reason or "sm75 has no bf16").startswith("sm75 has no bf16")
    assert ("w is kept in bf16" in (reason or "")) == (refused and bool(kept))


@pytest.mark.parametrize("kept", [Precision.FP32, Precision.BF16])
def test_rtx_refuses_turing_a_weight_in_another_type(kept: Precision):
    request = shared_request("rtx:sm75", kept={"w": kept})
    reason = refusal(request)
    assert reason is not None
    assert reason.startswith(f"TensorRT-RTX computes no {kept} on sm75, and w is kept in {kept};")
    assert refusal(shared_request("rtx:sm75", kept={"elsewhere": kept})) is None


def test_rtx_refuses_turing_a_type_that_was_asked_for_and_names_no_weight():
    request = shared_request("rtx:sm75", Precision.BF16, kept={"w": Precision.FP32})
    assert (refusal(request) or "").startswith("TensorRT-RTX computes no fp32 on sm75, and w")
    request = shared_request("rtx:sm75", Precision.BF16, kept={"elsewhere": Precision.FP16})
    assert refusal(request) == "TensorRT-RTX computes no bf16 on sm75; build fp16"


def test_streamed_weights_are_built_and_what_it_costs_is_said(tmp_path: Path):
    engine = build(baked_request(tmp_path, options=EngineOptions(weight_streaming=True)))
    assert "CUDA graph" in " ".join(engine.notes)


@pytest.mark.parametrize(
    ("target", "features", "latent", "padded"),
    [
        ("rtx:sm75", 64, 32, ()),
        ("rtx:sm75", 64, 36, (36,)),
        ("rtx:sm80", 64, 36, ()),
        ("rtx:sm120", 65, 33, (33, 65)),
    ],
)
def test_weights_that_each_run_pads_are_named_and_cost_kernels(target, features, latent, padded):
    engine = build(dense_request(target, features, latent))
    aligned = build(dense_request(target, 64, 32))
    assert bool(engine.notes) == bool(padded) == (len(engine.plan) > 1.2 * len(aligned.plan))
    assert all(str(size) in engine.notes[0] for size in padded)


def dense_request(target: str, features: int, latent: int) -> EngineRequest:
    from tied_graphs import autoencoder_nodes, autoencoder_stage, graph

    shapes = {"w": (latent, features), "b": (latent,), "c": (features,)}
    model = graph(autoencoder_nodes(Precision.FP16), [features], shapes, Precision.FP16)
    stage = autoencoder_stage(features)
    return shared_request(target, stage=stage, graph=model.SerializeToString())


def test_a_large_plan_is_a_file_with_the_same_bytes(tmp_path: Path, monkeypatch):
    request = baked_request(tmp_path)
    small = build(request).plan
    monkeypatch.setattr(plans, "IN_MEMORY_BYTES", 1000)
    large = build(request).plan
    assert isinstance(small, bytes)
    assert isinstance(large, memoryview)
    assert large == small
    assert (tmp_path / "plan").write_bytes(large) == len(small)


def test_a_plan_that_does_not_fit_on_the_disk_is_an_error(tmp_path: Path, monkeypatch):
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing was opened."""

    monkeypatch.setattr(plans.tempfile, "TemporaryFile", Full)
    with pytest.raises(RuntimeFailedError, match=r"cannot be written to .*No space left"):
        build(baked_request(tmp_path))


def test_a_builder_that_writes_to_memory_only_makes_the_same_plan(tmp_path: Path, monkeypatch):
    """TensorRT 10.12 is such a one."""
    request = baked_request(tmp_path)
    streamed = build(request).plan
    serialised = plans._serialised

    class WithoutStream:
        def __init__(self, builder: Any) -> None:
            self.build_serialized_network = builder.build_serialized_network

    def old(parsed: Any, config: Any) -> Any:
        own = type(parsed)(
            parsed.parser, parsed.network, WithoutStream(parsed.builder), parsed.handle
        )
        return serialised(own, config)

    monkeypatch.setattr(plans, "_serialised", old)
    assert build(request).plan == streamed
