"""One graph in several types: each tie in one, casts between layers, names as before."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from conftest import MODELS, make_checkpoint
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import save_file

from tiedexport import copies, graph_files, passes
from tiedexport.chain import layers_from_graph
from tiedexport.errors import GraphError
from tiedexport.passes import extract_stage, lower_precision
from tiedexport.precision_choice import stored_types
from tiedexport.rounding import forward_bound
from tiedexport.spec import Precision
from tiedexport.stored import in_memory
from tiedexport.trace import graph_from_module

if TYPE_CHECKING:
    from pathlib import Path

    import torch

FP32, FP16, BF16 = Precision
TYPES = lower_precision.ONNX_DTYPES
STAGES = {
    "encoder": (("input",), ("code",)),
    "decoder": (("code",), ("reconstruction",)),
    "autoencoder": (("input",), ("reconstruction",)),
}
MIXES = [
    (FP16, {"layers.0.weight": FP32}),
    (FP16, {"layers.1.weight": FP32}),
    (FP16, {"layers.0.weight": BF16, "layers.1.weight": FP32}),
    (BF16, {"layers.1.weight": FP16}),
    (FP32, {"layers.0.weight": FP16}),
]


@pytest.fixture(scope="module", params=["dense", "dense-gelu-linear", "conv"])
def module(request: pytest.FixtureRequest) -> torch.nn.Module:
    return make_checkpoint(*MODELS[request.param]).module()


@pytest.fixture(scope="module")
def exported(module: torch.nn.Module) -> bytes:
    plan = passes.Plan(module.ties, *STAGES["autoencoder"], FP32, FP32, None)
    model = passes.run(graph_from_module(module, 22), passes.CANONICAL, plan)
    return ir.to_proto(model).SerializeToString()


@pytest.fixture
def model(exported: bytes) -> ir.Model:
    return ir.from_proto(onnx.load_model_from_string(exported))


def plan_of(module: torch.nn.Module, stage: str, mix: object, folder: Path, io: Precision = FP32):
    precision, kept = mix
    file = folder / "w.safetensors"
    return passes.Plan(module.ties, *STAGES[stage], precision, io, file, kept)


def parameters(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def layers_of(model: ir.Model, stage: str) -> tuple:
    plan = passes.Plan((), *STAGES[stage], FP32, FP32, None)
    return layers_from_graph(extract_stage.apply(model, plan).graph)


@pytest.mark.parametrize("mix", MIXES, ids=str)
@pytest.mark.parametrize("io", [FP32, FP16])
@pytest.mark.parametrize("stage", STAGES)
def test_each_layer_is_in_the_type_of_its_weight_and_keeps_its_name(
    module, model, tmp_path, mix, io, stage
):
    layers = layers_of(model, stage)
    plan = plan_of(module, stage, mix, tmp_path, io)
    graph = passes.run(model, ("extract_stage", "lower_precision"), plan).graph
    stored = stored_types(layers, *mix)
    assert {n: v.dtype for n, v in graph.initializers.items()} == {
        name: TYPES[kind] for name, kind in stored.items()
    }
    assert {n: v.const_value.dtype for n, v in graph.initializers.items()} == {
        name: TYPES[kind] for name, kind in stored.items()
    }
    values = {output.name: output for node in graph for output in node.outputs}
    assert {layer.output for layer in layers} <= set(values)
    last = max(i for i, layer in enumerate(layers) if layer.weight)
    kind = TYPES[stored[next(layer.weight for layer in layers if layer.weight)]]
    for i, layer in enumerate(layers[:-1]):
        kind = TYPES[stored[layer.weight]] if layer.weight else kind
        assert values[layer.output].dtype == (kind if i <= last else TYPES[FP32])
    assert [graph.inputs[0].dtype, graph.outputs[0].dtype] == [TYPES[io]] * 2
    assert graph.outputs[0].name == layers[-1].output


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_a_cast_stands_only_where_the_type_changes(module, model, tmp_path, mix):
    plan = plan_of(module, "autoencoder", mix, tmp_path)
    graph = passes.run(model, ("extract_stage", "lower_precision"), plan).graph
    casts = [node for node in graph if node.op_type == "Cast"]
    assert all(cast.inputs[0].dtype != cast.outputs[0].dtype for cast in casts)
    stored = {name: value.dtype for name, value in graph.initializers.items()}
    kinds = [TYPES[FP32], *[stored[name] for name in weights_in_order(graph)], TYPES[FP32]]
    assert len(casts) == sum(kind != after for kind, after in pairwise(kinds))
    assert len({cast.name for cast in casts}) == len(casts)


def weights_in_order(graph: ir.Graph) -> list[str]:
    nodes = [node for node in graph if node.op_type in lower_precision.WEIGHTED_OPERATORS]
    return [lower_precision._stored(node.inputs[1]).name for node in nodes]


@pytest.mark.parametrize("mix", MIXES, ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_the_bundles_graph_computes_within_the_bound_and_holds_one_copy(
    module, model, tmp_path, mix, stage
):
    layers, weights = layers_of(model, stage), parameters(module)
    types = stored_types(layers_of(model, "autoencoder"), *mix)
    plan = plan_of(module, stage, mix, tmp_path)
    save_file({n: w.astype(types[n].dtype) for n, w in weights.items()}, plan.weights)
    graph_files.save_checked(passes.run(model, passes.STAGE_FILE, plan), tmp_path / "g.onnx")
    loaded = onnx.load(tmp_path / "g.onnx")
    tensors = [
        in_memory(tensor.name, onnx.numpy_helper.to_array(tensor))
        for tensor in loaded.graph.initializer
    ]
    assert not any(group.copies for group in copies.find(tensors))
    shape = [axis.dim_value for axis in loaded.graph.input[0].type.tensor_type.shape.dim[1:]]
    x = np.random.default_rng(0).random((5, *shape)).astype(np.float32)
    bounded = forward_bound(
        layers, weights, x, precision=mix[0], accumulation=FP32, io=FP32, kept=mix[1]
    )
    name = loaded.graph.input[0].name
    (output,) = ReferenceEvaluator(loaded).run(None, {name: x})
    # The evaluator rounds a product before it adds the bias: one rounding more than the bound has.
    assert np.all(np.abs(output - bounded.value) <= 2 * bounded.bound)
    if BF16 not in types.values():
        session = onnxruntime.InferenceSession(tmp_path / "g.onnx")
        (output,) = session.run(None, {name: x})
        assert np.all(np.abs(output - bounded.value) <= bounded.bound)


def test_a_bias_that_layers_of_two_types_share_is_an_error(tmp_path):
    graph = onnx.parser.parse_graph("""
        g (float[N, 3] input) => (float[N, 3] reconstruction)
        <float[3, 3] v = {1,0,0,0,1,0,0,0,1}, float[3, 3] w = {1,2,0,0,1,0,0,0,1},
         float[3] b = {1,2,3}>
        { h = Gemm <transB = 1> (input, v, b)  reconstruction = Gemm <transB = 1> (h, w, b) }
    """)
    model = ir.from_proto(onnx.helper.make_model(graph))
    plan = passes.Plan((), *STAGES["autoencoder"], FP16, FP32, tmp_path, {"w": FP32})
    with pytest.raises(GraphError, match="different types read") as caught:
        lower_precision.apply(model, plan)
    assert caught.value.where == "b"


def test_a_tensor_behind_a_transpose_is_that_of_its_weight_and_the_transpose_has_its_type(
    module, model, tmp_path
):
    plan = plan_of(module, "autoencoder", (FP16, {"layers.0.weight": FP32}), tmp_path)
    graph = passes.run(model, ("extract_stage", "lower_precision"), plan).graph
    turned = [node for node in graph if node.op_type == "Transpose"]
    assert len(turned) == sum(layer.transposed for layer in layers_of(model, "autoencoder"))
    for node in turned:
        assert node.outputs[0].dtype == node.inputs[0].dtype
        wanted = FP32 if node.inputs[0].name == "layers.0.weight" else FP16
        assert node.inputs[0].dtype == TYPES[wanted]


def test_fp32_kept_in_fp32_leaves_the_graph_as_it_is(module, model, exported, tmp_path):
    plan = plan_of(module, "autoencoder", (FP32, {"layers.0.weight": FP32}), tmp_path)
    assert ir.to_proto(lower_precision.apply(model, plan)).SerializeToString() == exported
