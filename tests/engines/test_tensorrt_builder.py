"""Engines that TensorRT-RTX really builds on a machine without a GPU."""

from __future__ import annotations

import pytest
from conftest import needs_rtx
from hypothesis import given, settings
from hypothesis import strategies as st
from tied_graphs import (
    FEATURES,
    LATENT,
    SHAPES,
    autoencoder_nodes,
    autoencoder_stage,
    baked_request,
    convolution_nodes,
    graph,
    shared_request,
)

from tiedexport import engines, trt
from tiedexport.engines import EngineRequest, builder_for
from tiedexport.errors import MissingRuntimeError, RuntimeFailedError, UsageError
from tiedexport.manifest import Binding
from tiedexport.results import Availability
from tiedexport.spec import Layer, Precision, StageSpec, TensorSpec


def build(request: EngineRequest, progress=None) -> engines.Engine:
    return builder_for(request.target).build(request, progress)


@needs_rtx
@pytest.mark.parametrize("target", ["rtx:sm75", "rtx:sm80", "rtx:sm86", "rtx:sm89", "rtx:sm120"])
def test_fp16_is_built_for_every_generation_without_a_gpu(target):
    engine = build(shared_request(target))
    assert engine.compute_capabilities == (int(target.removeprefix("rtx:sm")),)
    assert engine.package == "tensorrt_rtx"
    assert engine.package_version == trt.load("tensorrt_rtx").version
    assert len(engine.plan) > 1000


@needs_rtx
@pytest.mark.parametrize("precision", list(Precision))
def test_every_precision_is_built_from_ampere_on(precision):
    weights = [b for b in build(shared_request("rtx", precision)).bindings if b.role == "weight"]
    assert {binding.dtype for binding in weights} == {precision}


@needs_rtx
def test_bindings_say_what_a_runtime_must_bind():
    assert build(shared_request()).bindings == (
        Binding("x", "input", Precision.FP32, (-1, FEATURES)),
        Binding("w", "weight", Precision.FP16, (LATENT, FEATURES)),
        Binding("b", "weight", Precision.FP16, (LATENT,)),
        Binding("c", "weight", Precision.FP16, (FEATURES,)),
        Binding("y", "output", Precision.FP32, (-1, FEATURES)),
    )


@needs_rtx
def test_one_plan_serves_ampere_to_blackwell_at_the_size_of_one():
    several, one = build(shared_request("rtx")), build(shared_request("rtx:sm89"))
    assert {80, 86, 89, 120} <= set(several.compute_capabilities)
    assert 75 not in several.compute_capabilities
    assert len(several.plan) < 1.1 * len(one.plan)


@needs_rtx
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32])
def test_tied_convolutions_take_their_kernel_as_an_input(precision):
    shapes = {"k": (16, 1, 3, 3), "b": (16,), "c": (1,)}
    data = ("batch", 1, 28, 28)
    stage = StageSpec(
        "autoencoder",
        (TensorSpec("x", Precision.FP32, data),),
        (TensorSpec("y", Precision.FP32, data),),
        (Layer("conv", "k", "b"), Layer("conv_transpose", "k", "c")),
    )
    model = graph(convolution_nodes(precision), data[1:], shapes, precision)
    engine = build(
        shared_request(
            "rtx",
            precision,
            stage=stage,
            graph=model.SerializeToString(),
            weight_names=tuple(shapes),
        )
    )
    assert [b.name for b in engine.bindings if b.role == "weight"] == ["k", "b", "c"]


@needs_rtx
@pytest.mark.parametrize("asked", [Precision.FP32, Precision.BF16])
def test_a_graph_in_another_type_than_asked_for_is_not_built(asked):
    request = shared_request(precision=Precision.FP16)
    with pytest.raises(RuntimeFailedError, match=f"computes fp16, fp16 → fp16, asked for {asked}"):
        build(EngineRequest(**(vars(request) | {"precision": asked})))


@needs_rtx
def test_a_product_that_is_missing_from_the_network_is_noticed():
    stage = autoencoder_stage()
    deeper = StageSpec(stage.name, stage.inputs, stage.outputs, stage.layers * 2)
    with pytest.raises(RuntimeFailedError, match="2 products in the network, 4 in the stage"):
        build(shared_request(stage=deeper))


@needs_rtx
def test_a_weight_that_the_graph_keeps_for_itself_is_noticed(tmp_path):
    request = baked_request(tmp_path, weights="shared", weight_names=tuple(SHAPES))
    with pytest.raises(RuntimeFailedError, match="does not take or give b, c, w"):
        build(request)


@needs_rtx
def test_an_input_that_nobody_declared_is_noticed():
    stage = autoencoder_stage()
    layers = (Layer("dense", "w", "b"), Layer("dense", "w", transposed=True))
    stage = StageSpec(stage.name, stage.inputs, stage.outputs, layers)
    with pytest.raises(RuntimeFailedError, match="undeclared c"):
        build(shared_request(stage=stage, weight_names=("w", "b")))


@needs_rtx
def test_parameters_of_other_stages_are_no_bindings():
    engine = build(shared_request(weight_names=(*SHAPES, "elsewhere")))
    assert "elsewhere" not in {binding.name for binding in engine.bindings}


@needs_rtx
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP32])
def test_turing_is_refused_all_but_fp16_before_anything_is_built(precision):
    request = shared_request("rtx:sm75+sm89", precision)
    assert "fp16" in (builder_for(request.target).refusal(request) or "")
    with pytest.raises(UsageError, match="sm75"):
        build(request)


@needs_rtx
def test_a_device_that_the_package_does_not_know_is_refused_with_another_way():
    availability = builder_for("rtx:sm90").availability("rtx:sm90")
    assert not availability.available
    assert "sm89" in availability.reason
    assert "--target tensorrt" in availability.remedy
    with pytest.raises(MissingRuntimeError, match="not for sm90"):
        build(shared_request("rtx:sm90"))


@needs_rtx
def test_parser_errors_come_in_the_library_s_words_with_the_node():
    model = graph(autoencoder_nodes(Precision.FP16), [FEATURES], SHAPES, Precision.FP16)
    model.graph.node[2].op_type, model.graph.node[2].name = "Unheard", "strange"
    with pytest.raises(
        RuntimeFailedError, match=r"(?s)Plugin not found.*strange.*Unheard"
    ) as error:
        build(shared_request(graph=model.SerializeToString()))
    assert "autoencoder in fp16 for rtx:sm89" in str(error.value)
    assert "--weights baked" in str(error.value)


@needs_rtx
def test_a_graph_file_that_is_missing_is_named(tmp_path):
    request = baked_request(tmp_path, graph=tmp_path / "absent.onnx")
    with pytest.raises(RuntimeFailedError, match=r"absent\.onnx"):
        build(request)


@needs_rtx
def test_progress_counts_steps_of_nested_phases_and_the_first_never_goes_back():
    seen: list[tuple[str, int, int]] = []
    build(shared_request(), lambda *step: seen.append(step))
    assert all(phase and 0 <= done <= steps for phase, done, steps in seen)
    outermost, first_done, steps = seen[0]
    counts = [done for phase, done, _ in seen if phase == outermost]
    assert first_done == 0
    assert counts == sorted(counts)
    assert steps - 1 <= counts[-1] <= steps  # RTX skips a step
    assert len({phase for phase, _, _ in seen}) > 1


@needs_rtx
def test_an_interrupt_in_progress_cancels_the_build_and_comes_through():
    def interrupt(phase: str, done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(shared_request(), interrupt)


@pytest.mark.parametrize("target", ["rtx", "rtx:sm89", "rtx:sm86+sm120"])
def test_rtx_targets_belong_to_the_rtx_builder(target):
    assert builder_for(target).name == "tensorrt_rtx"


@given(st.lists(st.integers(10, 130), min_size=1, max_size=8))
@settings(deadline=None, max_examples=50)
def test_a_target_of_several_devices_names_each_once(numbers):
    target = "rtx:" + "+".join(f"sm{number}" for number in numbers)
    assert builder_for(target).compute_capabilities(target) == tuple(sorted(set(numbers)))


@pytest.mark.parametrize("target", ["", "rtx:", "rtx:89", "rtx:sm8", "rtx:sm89,sm86", "cuda"])
def test_an_unknown_target_is_a_usage_error_that_lists_the_forms(target):
    with pytest.raises(UsageError, match=r"rtx:sm86\+sm89.*tensorrt"):
        builder_for(target)


def test_default_targets_are_all_of_the_registry_s_forms():
    targets = engines.default_targets()
    assert targets == ("rtx", "rtx:sm75", "tensorrt")
    assert all(builder_for(target).accepts(target) for target in targets)


def test_without_a_driver_tensorrt_says_why_and_how_to_go_on(monkeypatch):
    monkeypatch.setattr(trt, "driver", lambda: Availability(False, reason="no CUDA driver"))
    availability = builder_for("tensorrt").availability("tensorrt")
    assert availability.reason == "no CUDA driver"
    assert "--target rtx" in availability.remedy
    with pytest.raises(MissingRuntimeError, match="no CUDA driver"):
        build(shared_request("tensorrt"))


def test_without_the_package_rtx_says_what_to_install(monkeypatch):
    missing = Availability(False, reason="missing", remedy="pip install 'tiedexport[rtx]'")
    monkeypatch.setattr(trt, "availability", lambda package: missing)
    with pytest.raises(MissingRuntimeError, match=r"pip install 'tiedexport\[rtx\]'"):
        build(shared_request())
