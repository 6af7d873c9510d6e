"""What `build` writes: each weight once, graphs in their precision, the same bytes every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from conftest import make_checkpoint

from tiedexport.bundle import Bundle, open_bundle, safetensors_layout
from tiedexport.checkpoint import save_checkpoint
from tiedexport.errors import GraphError
from tiedexport.export import build
from tiedexport.spec import Precision
from tiedexport.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

FP32, FP16, BF16 = Precision
STAGES = ("encoder", "decoder", "autoencoder")
ONNX_TYPES = {
    FP32: onnx.TensorProto.FLOAT,
    FP16: onnx.TensorProto.FLOAT16,
    BF16: onnx.TensorProto.BFLOAT16,
}
LAYERS = {"dense": 2, "dense-gelu-linear": 2, "untied": 1, "conv": 2}


def graph_of(bundle: Bundle, stage: str, precision: Precision) -> onnx.ModelProto:
    return onnx.load(bundle.graph(stage, precision), load_external_data=False)


def inferred(bundle: Bundle, stage: str, precision: Precision) -> onnx.GraphProto:
    """The graph with the type of every value."""
    return onnx.shape_inference.infer_shapes(
        graph_of(bundle, stage, precision), strict_mode=True
    ).graph


def element_types(graph: onnx.GraphProto) -> dict[str, int]:
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def places(bundle: Bundle, stage: str, precision: Precision) -> dict[str, tuple[str, int, int]]:
    """Initializer → file, offset and length of its external data."""
    found = {}
    for tensor in graph_of(bundle, stage, precision).graph.initializer:
        assert tensor.data_location == onnx.TensorProto.EXTERNAL
        assert not tensor.raw_data
        entries = {entry.key: entry.value for entry in tensor.external_data}
        found[tensor.name] = entries["location"], int(entries["offset"]), int(entries["length"])
    return found


# One copy.


@pytest.mark.parametrize("precision", Precision)
def test_all_stages_point_to_one_place_of_one_file_for_each_weight(bundle: Bundle, precision):
    layout = safetensors_layout(bundle.weights_path(precision))
    file = bundle.manifest.weights[precision]
    known = {name: (file, offset, length) for name, (_, _, offset, length) in layout.items()}
    assert sum(length for *_, length in known.values()) == (
        bundle.manifest.parameter_count * precision.itemsize
    )
    for stage in STAGES:
        for name, place in places(bundle, stage, precision).items():
            assert place == known[name]
    assert set(places(bundle, "autoencoder", precision)) == set(known)


@pytest.mark.parametrize("precision", Precision)
def test_both_directions_use_one_initializer_and_the_decoder_transposes_it(
    bundle: Bundle, precision, model_name: str
):
    count = LAYERS[model_name]
    tied = {tie.weight for tie in bundle.manifest.ties}
    assert len(tied) == (0 if model_name == "untied" else count)
    for stage, forwards, backwards in (("encoder", 1, 0), ("decoder", 0, 1), ("autoencoder", 1, 1)):
        nodes = graph_of(bundle, stage, precision).graph.node
        operators = [node.op_type for node in nodes]
        if model_name == "conv":
            assert operators.count("Conv") == count * forwards
            assert operators.count("ConvTranspose") == count * backwards
            uses = [n.input[1] for n in nodes if n.op_type in ("Conv", "ConvTranspose")]
        else:
            assert operators.count("Gemm") == count * (forwards + backwards)
            assert operators.count("Transpose") == count * backwards
            transposed = {n.output[0]: n.input[0] for n in nodes if n.op_type == "Transpose"}
            gemms = [n for n in nodes if n.op_type == "Gemm"]
            for node in gemms:
                assert {a.name: a.i for a in node.attribute}["transB"] == 1
            uses = [transposed.get(n.input[1], n.input[1]) for n in gemms]
        assert "MatMul" not in operators
        for weight in tied:
            assert uses.count(weight) == forwards + backwards


@pytest.mark.parametrize(
    ("precision", "bytes_a_parameter"), [("fp32,fp16", 6), ("fp32", 4), ("fp16", 2)]
)
def test_the_files_of_the_digits_model_take_at_most_two_percent_more_than_its_parameters(
    precision, bytes_a_parameter, digits_checkpoint: Path, tmp_path: Path
):
    result = build(digits_checkpoint, tmp_path / "digits.tied", precision=precision, target=())
    parameters = 784 * 784 + 784 * 392 + 392 * 196 + (784 + 392 + 196) + (784 + 784 + 392)
    assert result.parameter_bytes == bytes_a_parameter * parameters
    total = sum(file.stat().st_size for file in (tmp_path / "digits.tied").rglob("*"))
    assert result.file_bytes == total
    assert total <= 1.02 * result.parameter_bytes


@pytest.fixture(scope="module")
def digits_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.pt"
    save_checkpoint(path, make_checkpoint("autoencoder", {"widths": [784, 784, 392, 196]}))
    return path


# Graphs.


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("stage", STAGES)
def test_graphs_pass_the_full_checker_and_have_exactly_these_names(
    bundle: Bundle, stage, precision
):
    path = bundle.graph(stage, precision)
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.load(path, load_external_data=False).graph
    spec = bundle.manifest.stage(stage)
    first, last = {
        "encoder": ("input", "code"),
        "decoder": ("code", "reconstruction"),
        "autoencoder": ("input", "reconstruction"),
    }[stage]
    assert [value.name for value in graph.input] == [first] == [i.name for i in spec.inputs]
    assert [value.name for value in graph.output] == [last] == [o.name for o in spec.outputs]
    layers = range(1 + max(int(name.split(".")[1]) for name in bundle.weights(precision)))
    biases = {"encoder": ["encoder"], "decoder": ["decoder"]}.get(stage, ["encoder", "decoder"])
    expected = {f"layers.{i}.{side}_bias" for i in layers for side in biases}
    untied = not bundle.manifest.ties
    if not (untied and stage == "decoder"):
        expected |= {f"layers.{i}.weight" for i in layers}
    if untied and stage != "encoder":
        expected |= {f"layers.{i}.decoder_weight" for i in layers}
    assert {tensor.name for tensor in graph.initializer} == expected
    for value, tensor in ((graph.input[0], spec.inputs[0]), (graph.output[0], spec.outputs[0])):
        dims = value.type.tensor_type.shape.dim
        assert [d.dim_param or d.dim_value for d in dims] == list(tensor.shape)


@pytest.mark.parametrize("precision", [FP16, BF16])
@pytest.mark.parametrize("stage", STAGES)
def test_half_precision_is_everywhere_but_at_the_edges_and_in_the_tail(
    bundle: Bundle, stage, precision
):
    graph = inferred(bundle, stage, precision)
    types = element_types(graph)
    weighted = [
        i for i, n in enumerate(graph.node) if n.op_type in ("Gemm", "Conv", "ConvTranspose")
    ]
    for i, node in enumerate(graph.node):
        if node.op_type == "Cast":
            at_the_edge = node.input[0] in {v.name for v in graph.input} or i > weighted[-1]
            assert at_the_edge, node.name
        else:
            expected = ONNX_TYPES[FP32 if i > weighted[-1] else precision]
            assert {types[name] for name in [*node.input, *node.output]} == {expected}
    assert types[graph.input[0].name] == types[graph.output[0].name] == ONNX_TYPES[FP32]


@pytest.mark.parametrize("model", ["dense", "dense-gelu-linear"])
def test_inputs_and_outputs_in_half_precision_where_asked(checkpoints, model, tmp_path: Path):
    build(checkpoints[model], tmp_path / "b.tied", target=(), io_dtype="fp16")
    bundle = open_bundle(tmp_path / "b.tied")
    for precision in bundle.manifest.precisions:
        for stage in STAGES:
            types = element_types(inferred(bundle, stage, precision))
            spec = bundle.manifest.stage(stage)
            for tensor in (*spec.inputs, *spec.outputs):
                assert tensor.dtype is FP16
                assert types[tensor.name] == ONNX_TYPES[FP16]
    assert verify(bundle).passed


@pytest.mark.parametrize("opset", range(18, 24))
def test_every_supported_opset_is_the_one_of_the_graphs(checkpoints, opset, tmp_path: Path):
    build(checkpoints["dense"], tmp_path / "b.tied", target=(), opset=opset, precision="fp16")
    bundle = open_bundle(tmp_path / "b.tied")
    assert bundle.manifest.opset == opset
    for stage in STAGES:
        (imported,) = graph_of(bundle, stage, FP16).opset_import
        assert (imported.domain, imported.version) == ("", opset)
    assert verify(bundle, runtime=["onnxruntime", "reference"]).passed


@pytest.mark.parametrize("opset", [18, 19])
def test_gelu_before_it_was_an_operator_is_refused_with_the_opset_to_ask_for(
    checkpoints, opset, tmp_path: Path
):
    with pytest.raises(GraphError) as caught:
        build(checkpoints["dense-gelu-linear"], tmp_path / "b.tied", target=(), opset=opset)
    assert "--opset 20" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def test_convolutions_in_bf16_before_opset_22_are_refused_with_the_opset_to_ask_for(
    checkpoints, tmp_path: Path
):
    with pytest.raises(GraphError) as caught:
        build(checkpoints["conv"], tmp_path / "b.tied", target=(), precision="bf16", opset=21)
    assert "22" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())
