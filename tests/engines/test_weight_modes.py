"""Shared, baked and in one plan: what each kind of plan holds, takes, weighs, and is refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import needs_rtx
from exported import Exported

from tiedexport import network, trt
from tiedexport.engine_options import EngineOptions
from tiedexport.engines import Engine, EngineRequest, builder_for
from tiedexport.errors import RuntimeFailedError
from tiedexport.manifest import Binding
from tiedexport.spec import CODE_IN, Precision

pytestmark = [needs_rtx, pytest.mark.usefixtures("quick_export")]

FP16, FP32, BF16 = Precision.FP16, Precision.FP32, Precision.BF16
KERNEL_BYTES = 0.15 * 2**20
WIDTHS = (256, 128, 64, 32, 16, 8)
DEEPEST = len(WIDTHS) - 1


def build(request: EngineRequest) -> Engine:
    return builder_for(request.target).build(request)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> Exported:
    folder = tmp_path_factory.mktemp("weight-modes")
    return Exported(folder, "autoencoder", widths=[256, 128, 64])


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> Exported:
    folder = tmp_path_factory.mktemp("one-layer")
    return Exported(folder, "autoencoder", widths=[512, 256])


def copies(engine: Engine, weights: dict[str, np.ndarray], precision=FP16) -> dict[str, list[int]]:
    """Weight → how often the plan holds it as it is, and transposed."""
    matrices = {n: w.astype(precision.dtype) for n, w in weights.items() if w.ndim > 1}
    return {
        name: [bytes(engine.plan).count(np.ascontiguousarray(m).tobytes()) for m in (w, w.T)]
        for name, w in matrices.items()
    }


# One plan for both halves.


@pytest.mark.parametrize("io", [FP32, FP16])
@pytest.mark.parametrize("profile", [(1, 8, 256), (1, 1, 1), (4, 4, 4)])
def test_halves_take_both_inputs_with_an_empty_batch_and_hold_each_weight_once(io, profile, model):
    engine = build(model.halves(io=io, options=EngineOptions(profiles=(profile,))))
    assert engine.options.profiles == ((0, *profile[1:]),)
    assert engine.bindings == (
        Binding("input", "input", io, (-1, 256)),
        Binding(CODE_IN, "input", io, (-1, 64)),
        Binding("code", "output", io, (-1, 64)),
        Binding("reconstruction", "output", io, (-1, 256)),
    )
    assert set(map(tuple, copies(engine, model.weights).values())) == {(1, 0)}


@pytest.mark.parametrize("target", ["rtx:sm75", "rtx:sm80", "rtx:sm120", "rtx"])
@pytest.mark.parametrize("precision", [FP16, BF16])
def test_halves_are_built_for_every_generation(target, precision, model):
    request = model.halves(target, precision)
    if builder_for(target).refusal(request):
        assert (target, precision) == ("rtx:sm75", BF16)
        return
    engine = build(request)
    assert set(map(tuple, copies(engine, model.weights, precision).values())) == {(1, 0)}


def test_several_profiles_of_halves_hold_each_weight_once(model):
    options = EngineOptions(profiles=((1, 1, 1), (1, 64, 256)))
    engine = build(model.halves(options=options))
    assert set(map(tuple, copies(engine, model.weights).values())) == {(1, 0)}


def test_halves_whose_batches_are_one_are_refused(model):
    request = model.halves()
    graph = onnx.load(request.graph, load_external_data=False)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    coupled = request.graph.with_name("coupled.onnx")
    onnx.save(graph, coupled)
    with pytest.raises(RuntimeFailedError, match="input and code_in have the same batch axis"):
        build(replace(request, graph=coupled))


def test_halves_that_lack_one_are_refused(model):
    encoder, halves = model.baked("encoder"), model.halves()
    with pytest.raises(RuntimeFailedError, match="2 products in the network, 4 in the stage"):
        build(replace(halves, graph=encoder.graph))


# Weights in a plan.


@pytest.mark.parametrize("stage", ["encoder", "decoder", "autoencoder"])
@pytest.mark.parametrize("profile", [(1, 8, 256), (1, 1, 1), (1, 1, 2), (2, 2, 2)])
def test_a_baked_plan_holds_each_weight_once(profile, stage, model):
    engine = build(model.baked(stage, options=EngineOptions(profiles=(profile,))))
    assert set(map(tuple, copies(engine, model.weights).values())) == {(1, 0)}
    assert [binding.role for binding in engine.bindings] == ["input", "output"]
    assert bool(engine.notes) == (profile == (1, 1, 1))


def test_a_batch_of_one_alone_is_built_for_two(one_layer):
    trap = build(one_layer.baked("encoder", options=EngineOptions(profiles=((1, 1, 1),))))
    way_out = build(one_layer.baked("encoder", options=EngineOptions(profiles=((1, 1, 2),))))
    assert trap.plan == way_out.plan
    assert trap.options.profiles == ((1, 1, 2),)
    assert "--exactProfiles insists" in trap.notes[0]


def test_who_insists_on_batch_one_gets_a_transposed_copy(one_layer):
    options = EngineOptions(profiles=((1, 1, 1),), exact_profiles=True)
    engine = build(one_layer.baked("autoencoder", options=options))
    assert copies(engine, one_layer.weights) == {"layers.0.weight": [1, 1]}
    assert "insists" in engine.notes[0]


def test_shared_weights_know_no_batch_one_trap(model):
    engine = build(model.shared("encoder", options=EngineOptions(profiles=((1, 1, 1),))))
    assert engine.options.profiles == ((1, 1, 1),)
    assert engine.notes == ()


# Types.


@pytest.mark.parametrize("other", [FP32, BF16])
@pytest.mark.parametrize("name", ["layers.0.weight", "layers.1.weight"])
@pytest.mark.parametrize("mode", ["shared", "baked", "halves"])
def test_one_weight_can_have_another_type_in_every_stage(mode, name, other, model):
    stage = () if mode == "halves" else ("autoencoder",)
    request = getattr(model, mode)(*stage, kept={name: other})
    lines = [line for line in build(request).layers if line.startswith("MATRIX_MULTIPLY")]
    types = [line.split()[2:3][0] for line in lines]
    first = [other if name == f"layers.{i}.weight" else FP16 for i in range(2)]
    assert types == [str(kind) for kind in (*first, *reversed(first))]


def test_a_weight_of_another_type_than_asked_for_is_not_built(model):
    request = model.shared("autoencoder", kept={"layers.1.weight": FP32})
    with pytest.raises(RuntimeFailedError, match="gemm_1 computes fp32, fp32 → fp32, asked for fp"):
        build(replace(request, kept={}))
    with pytest.raises(RuntimeFailedError, match="gemm_0 computes fp16, fp16 → fp16, asked for fp"):
        build(replace(request, kept={"layers.0.weight": FP32, "layers.1.weight": FP32}))


def test_inputs_of_another_type_than_declared_are_refused(model):
    request = model.shared("encoder", io=FP16)
    with pytest.raises(RuntimeFailedError, match="input is fp16 in the network, fp32 in the stage"):
        build(replace(request, stage=model.stage("encoder", FP32)))


# The parsed network.


def test_the_network_is_listed_a_line_a_layer(one_layer):
    request = one_layer.shared("encoder")
    parsed = network.parse(trt.load("tensorrt_rtx"), request.graph)
    assert network.layer_list(parsed) == build(request).layers
    assert network.layer_list(parsed) == (
        "CAST cast_input fp16 ← fp32",
        "MATRIX_MULTIPLY gemm_0 fp16 ← fp16, fp16ᵀ",
        "SHUFFLE ONNXTRT_Broadcast fp16 ← fp16",
        "ELEMENTWISE gemm_0_0 fp16 ← fp16, fp16",
        "CAST cast_logits fp32 ← fp16",
        "ACTIVATION relu_0 fp32 ← fp32",
    )


def test_constants_have_a_line_too(one_layer):
    assert "CONSTANT layers.0.weight fp16" in build(one_layer.baked("encoder")).layers


# Sizes.


@pytest.fixture(scope="module", params=[1, DEEPEST], ids="{} layers".format)
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, quick_export: None
) -> tuple[int, Exported]:
    """How deep, and a model that is."""
    folder = tmp_path_factory.mktemp("stack")
    widths = WIDTHS[: request.param + 1]
    return request.param, Exported(folder, "autoencoder", widths=list(widths))


@pytest.mark.parametrize("io", [FP32, FP16])
@pytest.mark.parametrize("target", ["rtx:sm75", "rtx"])
def test_a_plan_without_weights_weighs_what_its_kernels_do(target, io, stack):
    layers, model = stack
    for stage, directions in (("encoder", 1), ("decoder", 1), ("autoencoder", 2)):
        size = len(build(model.shared(stage, target, io=io)).plan)
        assert size <= KERNEL_BYTES * (layers * directions + 1)


def test_a_plan_without_weights_does_not_grow_with_them(tmp_path: Path):
    small, large = (
        Exported(tmp_path / str(width), "autoencoder", widths=[width, width // 2])
        for width in (64, 2048)
    )
    for stage in ("encoder", "decoder", "autoencoder"):
        sizes = [len(build(model.shared(stage)).plan) for model in (small, large)]
        assert abs(sizes[1] - sizes[0]) < 4096


# Reproducibility.


def test_plans_are_the_same_in_every_new_process(model, tmp_path: Path):
    """But for one plan of two halves: TensorRT-RTX can order those anew at a build."""
    requests = [model.shared("encoder"), model.baked("autoencoder")]
    (tmp_path / "requests").write_bytes(pickle.dumps(requests))
    digests = [
        subprocess.run(
            [sys.executable, Path(__file__).with_name("build_plans.py"), tmp_path / "requests"],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("0", "1")
    ]
    assert len(digests[0]) == len(requests)
    assert digests[0] == digests[1]
