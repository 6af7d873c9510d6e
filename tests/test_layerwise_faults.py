"""A fault in a layer is named at that layer, in every runtime, and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from conftest import MODELS, make_checkpoint, resign, sign_files
from layered import AVAILABLE, STAGES, layered, runtimes_that_show
from onnx import helper
from safetensors.numpy import load_file, save_file

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.export import build
from tiedexport.families.autoencoder import TiedLinear
from tiedexport.layer_watch import LayerWatch
from tiedexport.results import VerifyResult
from tiedexport.spec import WEIGHTED_OPS, Layer, Precision, StageSpec
from tiedexport.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable

FP32, FP16, _ = Precision
ON_GRAPHS = [name for name in AVAILABLE if name != "torch"]


def strays(result: VerifyResult) -> dict[tuple[str, str], str]:
    """(Runtime, stage) → the layer that is named."""
    return {(row.runtime, row.stage): row.layer for row in result.strays}


# Faults in the weights, which every runtime reads.


def alter_weight(path: Path, precision: Precision, name: str, change: Callable) -> None:
    file = path / f"weights.{precision}.safetensors"
    weights = load_file(file)
    weights[name] = change(weights[name])
    save_file(weights, file)
    sign_files(path)


def users(stage: StageSpec, name: str) -> list[str]:
    """The outputs of the layers of a stage that use a weight or bias."""
    return [layer.output for layer in stage.layers if name in (layer.weight, layer.bias)]


def test_a_weight_or_bias_that_is_wrong_is_named_at_its_first_use(bundle: Bundle, tmp_path: Path):
    names = sorted(bundle.manifest.weight_names(FP16))
    for index, name in enumerate(names):
        change = (np.zeros_like, np.negative)[index % 2]
        path = shutil.copytree(bundle.path, tmp_path / f"{index}.tied")
        alter_weight(path, FP16, name, change)
        result = layered(path, "fp16")
        assert not result.passed
        assert strays(result) == {
            (runtime, stage.name): uses[0]
            for runtime in runtimes_that_show(result)
            for stage in bundle.manifest.stages
            if (uses := users(stage, name))
        }, name


def test_fp32_weights_that_are_not_those_of_the_golden_outputs_are_noticed(
    dense_bundle: Bundle, tmp_path: Path
):
    path = shutil.copytree(dense_bundle.path, tmp_path / "b.tied")
    alter_weight(path, FP32, "layers.0.encoder_bias", np.negative)
    named = strays(layered(path, "fp32"))
    # The bounds are derived from the same weights: the first golden value is the first to tell.
    assert {name for (_, stage), name in named.items() if stage != "decoder"} == {"code"}


@pytest.fixture
def mixed(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A bundle in fp16 whose first weight is kept in fp32."""
    kept = "layers.0.weight"
    path = tmp_path / "mixed.tied"
    build(checkpoints["dense"], path, precision="fp32,fp16", keep_fp32=[kept], target=())
    assert open_bundle(path).manifest.kept == {FP16: {kept: FP32}}
    return path


def test_a_weight_that_is_kept_in_fp32_is_judged_as_such(mixed: Path):
    result = layered(mixed, "fp16")
    assert result.passed, result.strays
    assert runtimes_that_show(result) >= {"torch", "reference", "onnxruntime"}
    alter_weight(mixed, FP16, "layers.0.weight", lambda w: w.astype(np.float16).astype(w.dtype))
    result = verify(mixed, precision="fp16", stage=["encoder"], layers=True)
    assert strays(result) == {
        (runtime, "encoder"): "gemm_0_output" for runtime in runtimes_that_show(result)
    }


# Faults in the graph, for the runtimes that read it.


def drop_bias(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    del node.input[2]


def turn_weight(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    at = list(graph.node).index(node)
    turned = helper.make_node("Neg", [node.input[1]], ["turned"])
    node.input[1] = "turned"
    graph.node.insert(at, turned)


def swap_activation(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    node.op_type = "Relu" if node.op_type in ("Tanh", "Gelu") else "Tanh"
    del node.attribute[:]


def places() -> list[tuple[str, str, int]]:
    """Model, stage and index of the layer: every layer of every stage of every model."""
    found = []
    for model, (_, fields) in MODELS.items():
        depth = len(fields.get("widths", fields.get("channels"))) - 1
        code = fields.get("code", "activated") == "activated"
        output = fields.get("output", "sigmoid") == "sigmoid"
        half = {"encoder": 2 * depth - (not code), "decoder": 2 * depth - (not output)}
        for stage, count in (half | {"autoencoder": sum(half.values())}).items():
            found += [(model, stage, k) for k in range(count)]
    return found


@pytest.mark.parametrize(("model", "stage", "k"), places())
def test_a_fault_in_one_layer_of_a_graph_is_named_at_that_layer(
    bundles: dict[str, Bundle], model: str, stage: str, k: int, tmp_path: Path
):
    layer = bundles[model].manifest.stage(stage).layers[k]
    planted = [drop_bias, turn_weight] if layer.op in WEIGHTED_OPS else [swap_activation]
    for index, plant in enumerate(planted):
        path = shutil.copytree(bundles[model].path, tmp_path / f"{index}.tied")
        file = path / f"{stage}.fp16.onnx"
        proto = onnx.load(file, load_external_data=False)
        (node,) = (n for n in proto.graph.node if producer(proto.graph, layer.output) == n)
        plant(proto.graph, node)
        onnx.save(proto, file)
        sign_files(path)
        result = verify(path, runtime=ON_GRAPHS, precision="fp16", stage=[stage], layers=True)
        shown = runtimes_that_show(result)
        assert shown >= {"onnxruntime", "reference"}
        assert strays(result) == {(runtime, stage): layer.output for runtime in shown}


def test_every_layer_of_every_stage_is_among_the_places_above(bundles: dict[str, Bundle]):
    assert places() == [
        (model, stage.name, k)
        for model in MODELS
        for stage in sorted(bundles[model].manifest.stages, key=lambda s: STAGES.index(s.name))
        for k in range(len(stage.layers))
    ]


def producer(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    """What computes a value, behind any cast of it."""
    node = next(node for node in graph.node if name in node.output)
    return producer(graph, node.input[0]) if node.op_type == "Cast" else node


# Torch's module, whose faults are in its configuration and its calls.


@pytest.mark.parametrize("model", ["dense", "conv"])
def test_another_activation_is_named_at_its_first_use_in_torch(
    bundles: dict[str, Bundle], model: str, tmp_path: Path
):
    bundle = bundles[model]
    path = shutil.copytree(bundle.path, tmp_path / "b.tied")
    swapped = {"relu": "tanh", "tanh": "relu"}[MODELS[model][1].get("activation", "relu")]
    resign(path, config=bundle.manifest.config | {"activation": swapped})
    result = layered(path, "fp16", ["torch"])
    assert not result.passed
    assert strays(result) == {
        ("torch", stage.name): next(
            layer.output
            for layer in stage.layers
            if layer.op == MODELS[model][1].get("activation", "relu")
        )
        for stage in bundle.manifest.stages
    }


def test_a_module_that_computes_a_layer_in_no_call_of_its_own_is_not_shown(
    dense_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(TiedLinear, "encode", lambda self, x: x @ self.weight.T + self.encoder_bias)
    result = layered(dense_bundle, "fp16", ["torch"])
    assert {(row.stage, row.status, row.reason) for row in result.layers if not row.layer} == {
        ("encoder", "not run", "no call of torch is the layer gemm_0_output"),
        ("autoencoder", "not run", "no call of torch is the layer gemm_2_output"),
    }


def test_a_watch_takes_the_calls_in_order_and_copies_what_a_later_one_may_overwrite():
    layers = [Layer("dense", "w", output="a"), Layer("relu", output="b"), Layer("conv", output="c")]
    x, weight = torch.randn(3, 4), torch.randn(5, 4)
    with LayerWatch(layers) as watch:
        h = torch.nn.functional.linear(torch.tanh(x), weight)
        torch.relu_(h.mul_(-1.0))  # in place: h is not what it was
    assert [layer.output for layer in watch.awaited] == ["c"]
    expected = torch.tanh(x) @ weight.T
    torch.testing.assert_close(watch.outputs, {"a": expected, "b": torch.relu(-expected)})


# What leaves the range of its type.


@pytest.mark.parametrize(("layer", "output"), [(0, "gemm_0_output"), (1, "gemm_1_output")])
def test_a_layer_that_overflows_is_named_with_its_range(layer: int, output: str, tmp_path: Path):
    fields = {"widths": [20, 13, 7], "activation": "sigmoid"}
    checkpoint = make_checkpoint("autoencoder", fields)
    # One unit sums 60,000 and several times 10,000, which fp16 ends before.
    checkpoint.state[f"layers.{layer}.encoder_bias"][0] = 6e4
    checkpoint.state[f"layers.{layer}.weight"][0] = 1e4
    save_checkpoint(tmp_path / "m.pt", checkpoint)
    build(tmp_path / "m.pt", precision="fp32,fp16", target=())
    result = verify(tmp_path / "m.tied", precision="fp32,fp16", stage=["encoder"], layers=True)
    shown = runtimes_that_show(result)
    assert strays(result) == {(runtime, "encoder"): output for runtime in shown}
    for row in result.strays:
        assert row.precision is FP16
        assert row.inf_count > 0
        assert "may overflow fp16" in row.reason
