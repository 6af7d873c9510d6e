"""Whatever TensorRT is told wrongly, `tensorrt_network` fails on it: planted faults."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conftest import MODELS, make_checkpoint, needs_rtx, sign_files
from deployed import MODES, deployed
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from tiedexport.bundle import open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.export import build
from tiedexport.results import Comparison
from tiedexport.spec import Precision
from tiedexport.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.engine_words import Weights

    Edit = Callable[[onnx.GraphProto], None]

pytestmark = needs_rtx
STAGES = ("encoder", "decoder", "autoencoder")
FP16 = Precision.FP16


def failures(path: Path) -> dict[tuple[str, Precision | None], Comparison]:
    result = verify(path, runtime=["tensorrt_network"])
    return {(r.stage, r.precision): r for r in result.comparisons if r.status == "failed"}


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model whose weight fits as well when it is transposed."""
    folder = tmp_path_factory.mktemp("square")
    save_checkpoint(folder / "m.pt", make_checkpoint("autoencoder", {"widths": [9, 9]}))
    build(folder / "m.pt", target=(), precision="fp16")
    return open_bundle(folder / "m.tied")


def alter(path: Path, edit: Edit) -> None:
    model = onnx.load(path, load_external_data=False)
    edit(model.graph)
    onnx.save(model, path)


def first(graph: onnx.GraphProto, operator: str) -> onnx.NodeProto:
    return next(node for node in graph.node if node.op_type == operator)


def _drop_bias(graph: onnx.GraphProto) -> None:
    """The name stays read, or an input would be left over: as nothing times the bias."""
    node = first(graph, "Gemm")
    node.attribute.append(helper.make_attribute("beta", 0.0))


def _flip_transpose(graph: onnx.GraphProto) -> None:
    (flag,) = (a for a in first(graph, "Gemm").attribute if a.name == "transB")
    flag.i = 1 - flag.i


def _round_to_bf16(graph: onnx.GraphProto) -> None:
    gemm = first(graph, "Gemm")
    there = helper.make_node("Cast", [gemm.input[0]], ["wrong"], "there", to=TensorProto.BFLOAT16)
    back = helper.make_node("Cast", ["wrong"], ["back"], "back", to=TensorProto.FLOAT16)
    gemm.input[0] = "back"
    graph.node.insert(0, there)
    graph.node.insert(1, back)
    _sort(graph)


def _sort(graph: onnx.GraphProto) -> None:
    """Nodes behind what they read."""
    left, known = list(graph.node), {v.name for v in (*graph.input, *graph.initializer)}
    del graph.node[:]
    while left:
        node = next(node for node in left if set(node.input) <= known)
        left.remove(node)
        graph.node.append(node)
        known |= set(node.output)


@pytest.mark.parametrize("mode", ["shared", "baked"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", [_drop_bias, _flip_transpose, _round_to_bf16])
def test_a_fault_in_the_graph_of_one_plan_fails_its_stage_and_no_other(
    square: Bundle, tmp_path: Path, fault: Edit, stage: str, mode: Weights
):
    bundle = deployed(square, tmp_path, mode)
    (plan,) = (plan for plan in bundle.manifest.plans if plan.stage == stage)
    alter(bundle.path / plan.graph, fault)
    sign_files(bundle.path)
    assert failures(bundle.path).keys() == {(stage, FP16)}


@pytest.mark.parametrize("fault", [_drop_bias, _flip_transpose, _round_to_bf16])
def test_a_fault_in_one_half_fails_what_runs_that_half(square: Bundle, tmp_path: Path, fault: Edit):
    bundle = deployed(square, tmp_path, "one-plan")
    alter(bundle.path / "halves.fp16.onnx", fault)
    sign_files(bundle.path)
    assert failures(bundle.path).keys() == {("encoder", FP16), ("autoencoder", FP16)}


def test_only_the_graphs_of_the_plans_are_judged_where_there_are_any(
    square: Bundle, tmp_path: Path
):
    bundle = deployed(square, tmp_path, "shared")
    for stage in STAGES:
        alter(bundle.graph(stage, FP16), _flip_transpose)
    sign_files(bundle.path)
    assert not failures(bundle.path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["another seed", "a permuted kernel", "a bias of zeros"])
def test_wrong_weights_fail_every_stage(
    bundles: dict[str, Bundle], tmp_path: Path, mode: Weights, fault: str
):
    path = deployed(bundles["conv"], tmp_path, mode).path
    weights = load_file(path / "weights.fp16.safetensors")
    if fault == "another seed":
        state = make_checkpoint(*MODELS["conv"], seed=1).state
        weights = {name: tensor.numpy().astype(np.float16) for name, tensor in state.items()}
    elif fault == "a permuted kernel":
        kernel = weights["layers.1.weight"].swapaxes(2, 3)
        weights["layers.1.weight"] = np.ascontiguousarray(kernel)
    else:
        for name in weights:
            if name.endswith("bias"):
                weights[name][:] = 0
    save_file(weights, path / "weights.fp16.safetensors")
    sign_files(path)
    assert failures(path).keys() == {(stage, FP16) for stage in STAGES}


def _soften(graph: onnx.GraphProto) -> None:
    relu = first(graph, "Relu")
    relu.op_type = "Softmax"


def test_a_layer_that_is_not_evaluated_is_a_failed_row_that_names_it(
    square: Bundle, tmp_path: Path
):
    bundle = deployed(square, tmp_path, "shared")
    alter(bundle.path / "plans/graphs/encoder.fp16.onnx", _soften)
    sign_files(bundle.path)
    ((key, row),) = failures(bundle.path).items()
    assert key == ("encoder", FP16)
    assert "relu_0 (SOFTMAX)" in row.reason


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff" * 100, ("tensorrt_rtx", "decoder: decoder.fp16.onnx", "tiedexport build")),
        (b"", ("no such tensors", "reconstruction", "network without outputs")),
    ],
)
def test_a_graph_that_makes_no_network_is_a_failed_row_in_the_parsers_words(
    square: Bundle, tmp_path: Path, content: bytes, words: tuple[str, ...]
):
    path = shutil.copytree(square.path, tmp_path / "b.tied")
    (path / "decoder.fp16.onnx").write_bytes(content)
    sign_files(path)
    ((key, row),) = failures(path).items()
    assert key == ("decoder", FP16)
    assert all(word in row.reason for word in words)


def test_a_weight_of_another_type_than_the_network_declares_is_named(
    square: Bundle, tmp_path: Path
):
    path = deployed(square, tmp_path, "shared").path
    weights = load_file(path / "weights.fp16.safetensors")
    weights["layers.0.weight"] = weights["layers.0.weight"].astype(np.float32)
    save_file(weights, path / "weights.fp16.safetensors")
    sign_files(path)
    rows = failures(path)
    assert rows.keys() == {(stage, FP16) for stage in STAGES}
    assert all("layers.0.weight" in row.reason for row in rows.values())
