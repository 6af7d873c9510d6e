"""Two stages become the independent halves of one graph, with one copy of each weight."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from tiedexport import passes
from tiedexport.bundle import Bundle
from tiedexport.engine_build import graphs
from tiedexport.errors import GraphError, TieBrokenError
from tiedexport.manifest import Manifest
from tiedexport.passes import halves
from tiedexport.spec import CODE_IN, Precision

FP32, FP16, BF16 = Precision


@pytest.fixture(scope="module")
def joined(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of each model in turn, with the graphs of both halves."""
    path = tmp_path_factory.mktemp("halves") / "b.tied"
    shutil.copytree(bundle.path, path)
    copy = Bundle(path, bundle.manifest)
    for precision in Precision:
        graphs.graph(copy, "autoencoder", precision, "one-plan")
    return copy


def stage(bundle: Bundle, name: str, precision: Precision = FP16) -> ir.Model:
    return ir.load(bundle.graph(name, precision))


def run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Fusions depend on the whole graph, and change roundings.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def empty(values: np.ndarray) -> np.ndarray:
    return values[:0]


@pytest.mark.parametrize("precision", [FP32, FP16])
def test_each_half_computes_its_stage_while_the_other_has_an_empty_batch(
    joined: Bundle, precision: Precision
):
    path = joined.path / f"halves.{precision}.onnx"
    x = joined.golden["input"].astype(np.float32)
    code = joined.golden["code"].astype(np.float32)
    expected = run(joined.graph("encoder", precision), {"input": x})["code"]
    found = run(path, {"input": x, CODE_IN: empty(code)})
    np.testing.assert_array_equal(found["code"], expected)
    assert len(found["reconstruction"]) == 0
    expected = run(joined.graph("decoder", precision), {"code": code})["reconstruction"]
    found = run(path, {"input": empty(x), CODE_IN: code})
    np.testing.assert_array_equal(found["reconstruction"], expected)
    assert len(found["code"]) == 0


@pytest.mark.parametrize("precision", Precision)
def test_the_halves_share_weights_and_nothing_else(joined: Bundle, precision: Precision):
    path = joined.path / f"halves.{precision}.onnx"
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.load(path, load_external_data=False).graph
    weights = [tensor.name for tensor in graph.initializer]
    assert sorted(weights) == sorted(joined.weights(precision))
    parts = [{"input"}, {CODE_IN}]
    for node in graph.node:
        for part in parts:
            if part & set(node.input):
                part.update(node.output)
    assert {value.name for value in graph.output} & parts[0] == {"code"}
    assert {value.name for value in graph.output} & parts[1] == {"reconstruction"}
    assert not parts[0] & parts[1]
    batches = {v.name: v.type.tensor_type.shape.dim[0] for v in [*graph.input, *graph.output]}
    assert {name: dim.dim_param for name, dim in batches.items()} == {
        "input": "batch",
        "code": "batch",
        CODE_IN: halves.BATCH,
        "reconstruction": halves.BATCH,
    }


def test_layers_keep_the_names_of_their_outputs(joined: Bundle):
    graph = onnx.load(joined.path / "halves.fp16.onnx", load_external_data=False).graph
    names = {name for node in graph.node for name in node.output}
    (spec,) = graphs.stages(joined.manifest, "one-plan")
    assert {layer.output for layer in spec.layers} <= names
    assert [tensor.name for tensor in spec.inputs] == [value.name for value in graph.input]
    assert [tensor.name for tensor in spec.outputs] == [value.name for value in graph.output]
    whole: Manifest = joined.manifest
    assert spec.layers == whole.stage("encoder").layers + whole.stage("decoder").layers


def test_a_graph_is_the_same_in_every_byte_each_time(dense_bundle: Bundle, tmp_path: Path):
    texts = []
    for name in ("one", "two"):
        shutil.copytree(dense_bundle.path, tmp_path / name)
        copy = Bundle(tmp_path / name, dense_bundle.manifest)
        file = graphs.graph(copy, "autoencoder", FP16, "one-plan")
        texts.append((tmp_path / name / file).read_bytes())
    assert texts[0] == texts[1]


def test_one_name_for_two_weights_is_refused(dense_bundle: Bundle):
    encoder, decoder = stage(dense_bundle, "encoder"), stage(dense_bundle, "decoder", BF16)
    with pytest.raises(GraphError, match="two weights of one name") as caught:
        halves.join(encoder, decoder)
    assert caught.value.where in dense_bundle.weights(FP16)


def test_equal_weights_in_memory_are_one_and_different_ones_are_refused(dense_bundle: Bundle):
    def in_memory(name: str, add: float) -> ir.Model:
        model = stage(dense_bundle, name)
        for value in model.graph.initializers.values():
            array = value.const_value.numpy() + np.float16(add)
            value.const_value = ir.tensor(array, name=value.name)
        return model

    joined = halves.join(in_memory("encoder", 0), in_memory("decoder", 0))
    assert set(joined.graph.initializers) == set(dense_bundle.weights(FP16))
    with pytest.raises(GraphError, match="two weights of one name"):
        halves.join(in_memory("encoder", 0), in_memory("decoder", 1))


def test_a_copy_of_a_tied_weight_in_the_decoder_is_caught(dense_bundle: Bundle):
    """An exporter that folds the transposition of W stores it a second time."""
    decoder = stage(dense_bundle, "decoder")
    (turn,) = [n for n in decoder.graph if n.op_type == "Transpose" and "0" in n.inputs[0].name]
    turned = np.ascontiguousarray(turn.inputs[0].const_value.numpy().T)
    folded = ir.Value(name="folded", const_value=ir.tensor(turned, name="folded"))
    decoder.graph.register_initializer(folded)
    ir.convenience.replace_all_uses_with(turn.outputs[0], folded)
    with pytest.raises(TieBrokenError, match="stored twice") as caught:
        passes.join_halves(stage(dense_bundle, "encoder"), decoder, dense_bundle.manifest.ties)
    assert caught.value.where == "pass halves"
