"""Each pass keeps the model's meaning; a broken tie is caught after the pass that broke it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from conftest import MODELS, make_checkpoint
from safetensors.numpy import save_file

from tiedexport import passes
from tiedexport.errors import GraphError, TieBrokenError
from tiedexport.passes import external_weights, extract_stage, lower_precision, weight_inputs
from tiedexport.spec import Precision
from tiedexport.trace import graph_from_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FP32, FP16, BF16 = Precision
TIED = "layers.0.weight"


@pytest.fixture(scope="module", params=["dense", "conv"])
def module(request: pytest.FixtureRequest) -> torch.nn.Module:
    return make_checkpoint(*MODELS[request.param]).module()


@pytest.fixture(scope="module")
def exported(module: torch.nn.Module) -> bytes:
    """The canonical graph of both stages, serialised: every test takes a fresh copy."""
    plan = passes.Plan(module.ties, ("input",), ("reconstruction",), FP32, FP32, None)
    model = passes.run(graph_from_module(module, 22), passes.CANONICAL, plan)
    return ir.to_proto(model).SerializeToString()


@pytest.fixture
def model(exported: bytes) -> ir.Model:
    return ir.from_proto(onnx.load_model_from_string(exported))


@pytest.fixture
def plan(module: torch.nn.Module, tmp_path: Path) -> passes.Plan:
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    whole = ("input",), ("reconstruction",)
    return passes.Plan(module.ties, *whole, FP32, FP32, tmp_path / "w.safetensors")


def changed(plan: passes.Plan, **fields: object) -> passes.Plan:
    return passes.Plan(**{**vars(plan), **fields})


# The assertion after each pass.


def _plant(how: Callable[[np.ndarray], np.ndarray]) -> Callable[..., ir.Model]:
    def apply(model: ir.Model, plan: passes.Plan) -> ir.Model:
        copy = np.ascontiguousarray(how(model.graph.initializers[TIED].const_value.numpy()))
        value = ir.Value(name="planted", const_value=ir.tensor(copy, name="planted"))
        model.graph.register_initializer(value)
        return model

    return apply


def _plant_constant(model: ir.Model, plan: passes.Plan) -> ir.Model:
    copy = np.ascontiguousarray(model.graph.initializers[TIED].const_value.numpy().T)
    node = ir.node("Constant", [], {"value": ir.tensor(copy)}, name="folded")
    node.outputs[0].name = "planted"
    model.graph.insert_before(model.graph[0], node)
    return model


def _drop(model: ir.Model, plan: passes.Plan) -> ir.Model:
    model.graph.initializers.pop(TIED)
    return model


@pytest.mark.parametrize(
    ("apply", "how"),
    [
        (_plant(lambda w: w), "same"),
        (_plant(lambda w: w.T), "transposed"),
        (_plant(lambda w: w.astype(np.float16)), "cast"),
        (_plant(lambda w: w.T.astype(np.float64)), "cast and transposed"),
        (_plant_constant, "transposed"),
    ],
    ids=["same", "transposed", "half", "wider and transposed", "constant node"],
)
def test_a_planted_copy_of_a_tied_weight_names_pass_tensor_and_kind(
    apply, how, model, plan, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "tiedexport.passes.clumsy", SimpleNamespace(apply=apply))
    with pytest.raises(TieBrokenError) as caught:
        passes.run(model, ("canonical", "clumsy", "extract_stage"), plan)
    assert caught.value.where == "pass clumsy"
    assert caught.value.got == f"planted is {TIED} ({how})"


def test_a_dropped_weight_names_the_pass_that_dropped_it(model, plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiedexport.passes.clumsy", SimpleNamespace(apply=_drop))
    with pytest.raises(TieBrokenError, match="a tied weight is gone") as caught:
        passes.run(model, ("clumsy",), plan)
    assert caught.value.where == "pass clumsy"
    assert caught.value.expected == TIED


def test_a_copy_of_an_untied_weight_is_nobodys_business(model, plan, monkeypatch):
    planting = SimpleNamespace(apply=_plant(lambda w: w.T))
    monkeypatch.setitem(sys.modules, "tiedexport.passes.clumsy", planting)
    passes.run(model, ("clumsy",), changed(plan, ties=()))


# canonical


def test_names_come_from_parameters_and_operators_and_nothing_else(module, model):
    graph = model.graph
    assert set(graph.initializers) == set(module.state_dict())
    assert [value.name for value in graph.inputs] == ["input"]
    assert [value.name for value in graph.outputs] == ["code", "reconstruction"]
    for node in graph:
        kind, _, index = node.name.rpartition("_")
        assert kind == node.op_type.lower()
        assert index.isdecimal()
        assert node.outputs[0].name in {f"{node.name}_output", "code", "reconstruction"}
        assert not node.metadata_props
    assert len({node.name for node in graph}) == len(graph)


def test_canonical_is_idempotent(model, plan, exported):
    again = passes.run(model, passes.CANONICAL, plan)
    assert ir.to_proto(again).graph == onnx.load_model_from_string(exported).graph


# extract_stage


def test_a_stage_has_its_bounds_and_its_parameters_only_and_the_whole_stays(model, plan, exported):
    decoder = extract_stage.apply(model, changed(plan, inputs=("code",)))
    assert [value.name for value in decoder.graph.inputs] == ["code"]
    assert [value.name for value in decoder.graph.outputs] == ["reconstruction"]
    assert decoder.graph.inputs[0].shape[0] == ir.SymbolicDim("batch")
    assert not any("encoder_bias" in name for name in decoder.graph.initializers)
    assert TIED in decoder.graph.initializers
    assert ir.to_proto(model).graph == onnx.load_model_from_string(exported).graph


def test_a_stage_that_is_not_there_is_a_graph_error(model, plan):
    with pytest.raises(GraphError, match="no such stage"):
        extract_stage.apply(model, changed(plan, outputs=("logits",)))


# lower_precision


@pytest.mark.parametrize("io_dtype", [FP32, FP16])
@pytest.mark.parametrize("precision", [FP16, BF16, FP32])
def test_all_is_in_one_type_but_for_edges_and_tail(model, plan, precision, io_dtype):
    lowered = passes.run(
        model,
        ("extract_stage", "lower_precision"),
        changed(plan, precision=precision, io_dtype=io_dtype),
    )
    types = lower_precision.ONNX_DTYPES
    graph = lowered.graph
    assert [graph.inputs[0].dtype, graph.outputs[0].dtype] == [types[io_dtype]] * 2
    assert {value.dtype for value in graph.initializers.values()} == {types[precision]}
    assert {v.const_value.dtype for v in graph.initializers.values()} == {types[precision]}
    nodes = [node for node in graph if node.op_type != "Cast"]
    tail = nodes[-1]
    assert tail.op_type == "Sigmoid"
    assert {node.outputs[0].dtype for node in nodes[:-1]} == {types[precision]}
    assert tail.outputs[0].dtype == types[FP32]
    casts = [node.name for node in graph if node.op_type == "Cast"]
    expected = ["cast_input"] * (precision != io_dtype) + ["cast_logits"] * (precision != FP32)
    assert casts == expected + ["cast_output"] * (io_dtype != FP32)


def test_a_graph_without_weights_is_a_graph_error(plan):
    value = ir.val("input", ir.DataType.FLOAT, ir.Shape([2]))
    node = ir.node("Relu", [value])
    empty = ir.Model(ir.Graph([value], [node.outputs[0]], nodes=[node]), ir_version=10)
    with pytest.raises(GraphError, match="no weighted operator"):
        lower_precision.apply(empty, changed(plan, precision=FP16))


# external_weights


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda w: {k: v for k, v in w.items() if k != TIED}, "no parameter"),
        (lambda w: w | {TIED: w[TIED].astype(np.float16)}, "disagree"),
        (lambda w: w | {TIED: w[TIED][:, ::-1].reshape(-1)}, "disagree"),
    ],
    ids=["missing", "type", "shape"],
)
def test_a_weights_file_that_does_not_fit_is_a_graph_error(damage, what, model, plan, module):
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    save_file(damage(weights), plan.weights)
    with pytest.raises(GraphError, match=what) as caught:
        external_weights.apply(model, plan)
    assert caught.value.where == TIED


# weight_inputs


def test_weights_become_inputs_after_the_data_and_the_graph_computes_the_same(model, plan, module):
    taking = passes.run(model, ("extract_stage", "lower_precision", *passes.WEIGHT_INPUTS), plan)
    assert not taking.graph.initializers
    names = [value.name for value in taking.graph.inputs]
    assert names[0] == "input"
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    assert set(names[1:]) == set(weights)
    x = torch.rand(3, *module.input_shape)
    session = onnxruntime.InferenceSession(ir.to_proto(taking).SerializeToString())
    (output,) = session.run(None, {"input": x.numpy(), **weights})
    torch.testing.assert_close(torch.from_numpy(output), module(x))
    assert weight_inputs.apply(taking, plan) is taking
