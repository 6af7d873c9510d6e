"""ONNX files are read without their weights, each of which is found where it lies."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.stranger_models import OTHER, STRANGERS, TRANSPOSE, WEIGHT
from tiedexport import memory
from tiedexport.errors import GraphError
from tiedexport.onnx_files import load, stored_tensors, to_proto
from tiedexport.protobuf import BYTES, framed, tag, varint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tiedexport.bundle import Bundle
    from tiedexport.stored import StoredTensor

WHOLE = [name for name, stranger in STRANGERS.items() if not stranger.broken]
BROKEN = [name for name, stranger in STRANGERS.items() if stranger.broken]


def elements(tensor: StoredTensor) -> np.ndarray:
    return tensor.content.read(0, tensor.length).reshape(tensor.elements)


def tensors_of(path: Path) -> dict[tuple[str, str], StoredTensor]:
    """(Scope, name) → tensor."""
    return {(t.scope, t.name): t for t in stored_tensors(load(path), path)}


def protos_of(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Every tensor that stands in a node's attribute, by a walk that is not ours."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            if attribute.HasField("g"):
                yield from attribute.g.initializer
                yield from protos_of(attribute.g.node)


@pytest.mark.parametrize("name", WHOLE)
def test_every_tensor_of_a_stranger_is_found_with_its_elements(name: str, tmp_path: Path):
    path = STRANGERS[name].build(tmp_path)
    model = onnx.load(path)
    protos = [*model.graph.initializer, *protos_of(model.graph.node)]
    protos += [t for s in model.graph.sparse_initializer for t in (s.values, s.indices)]
    protos += [t for function in model.functions for t in protos_of(function.node)]
    arrays = [
        np.frombuffer(p.raw_data or bytes(p.int32_data), np.uint8)
        if p.data_type == onnx.TensorProto.INT4
        else numpy_helper.to_array(p)
        for p in protos
        if p.data_type != onnx.TensorProto.STRING
    ]
    found = Counter(elements(t).tobytes() for t in tensors_of(path).values())
    assert found == Counter(array.tobytes() for array in arrays if array.size)


@pytest.mark.parametrize("name", WHOLE)
def test_bytes_lie_where_their_place_says(name: str, tmp_path: Path):
    path = STRANGERS[name].build(tmp_path)
    tensors = tensors_of(path).values()
    assert len({tensor.place for tensor in tensors}) == len(tensors)
    for tensor in tensors:
        if tensor.place.size_bytes == elements(tensor).nbytes and tensor.place.offset > 0:
            raw = Path(tensor.place.file).read_bytes()[tensor.place.offset :]
            assert raw.startswith(elements(tensor).tobytes())


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_gets_a_clear_error(name: str, tmp_path: Path):
    path = STRANGERS[name].build(tmp_path)
    with pytest.raises(GraphError) as caught:
        load(path)
    assert str(path) in str(caught.value.where)
    assert caught.value.got is not None


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_is_never_modified(name: str, tmp_path: Path):
    path = STRANGERS[name].build(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    to_proto(load(path))
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", WHOLE)
def test_a_graph_goes_back_to_protobuf_as_it_came(name: str, tmp_path: Path):
    path = STRANGERS[name].build(tmp_path)
    original, model = onnx.load(path), load(path)
    for graph in (*model.graph.subgraphs(), *(f.graph for f in model.functions.values())):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
    again = to_proto(model)
    assert [output.name for output in again.graph.output] == [o.name for o in original.graph.output]
    assert again.training_info == original.training_info
    before, after = (Counter(n.op_type for n in m.graph.node) for m in (original, again))
    before["Constant"] += len(original.graph.sparse_initializer)
    assert after == before + Counter()
    kept = [t.name for t in again.graph.initializer]
    assert kept == [t.name for t in original.graph.initializer]
    assert "tiedexport" not in str(again)


@pytest.mark.parametrize("name", ["sparse_initializer", "sparse_constant"])
def test_a_sparse_tensor_survives(name: str, tmp_path: Path):
    path = STRANGERS[name].build(tmp_path)
    model = onnx.load(path).graph
    sparse = [*model.sparse_initializer]
    sparse += [a.sparse_tensor for node in model.node for a in node.attribute]
    constant = to_proto(load(path)).graph.node[0].attribute[0]
    assert constant.name == "sparse_value"
    assert constant.type == onnx.AttributeProto.SPARSE_TENSOR
    assert list(constant.sparse_tensor.dims) == [24, 40] == list(sparse[0].dims)


def test_each_branch_keeps_its_own_weight(tmp_path: Path):
    tensors = tensors_of(STRANGERS["if_with_same_names"].build(tmp_path))
    for branch, weight in (("then", WEIGHT), ("else", OTHER)):
        tensor = tensors[f"if_0.{branch}_branch", "w"]
        np.testing.assert_array_equal(elements(tensor), weight)
        assert tensor.uses == ("MatMul_0 (MatMul) input 1",)


def test_uses_are_told_across_scopes(tmp_path: Path):
    tensors = tensors_of(STRANGERS["loop"].build(tmp_path))
    assert tensors["", "outer"].uses == ("Loop_0.body: MatMul_2 (MatMul) input 1",)
    assert tensors["Loop_0.body", "inner"].uses == ("MatMul_1 (MatMul) input 1",)


def test_a_functions_constant_is_found(tmp_path: Path):
    tensors = tensors_of(STRANGERS["function_with_a_weight"].build(tmp_path))
    tensor = tensors["function Decode", "w"]
    np.testing.assert_array_equal(elements(tensor), TRANSPOSE)
    assert isinstance(tensor.handle, ir.Node)
    assert tensor.uses == ("MatMul_1 (MatMul) input 1",)


def test_a_graphs_output_is_a_use(tmp_path: Path):
    tensors = tensors_of(STRANGERS["initializer_that_is_an_output"].build(tmp_path))
    assert tensors["", "w"].uses == ("MatMul_0 (MatMul) input 1", "graph output")


def test_stages_of_a_bundle_share_each_weights_place(bundle: Bundle):
    paths = sorted(bundle.path.glob("*.fp32.onnx"))
    places = {(name, t.place) for path in paths for (_, name), t in tensors_of(path).items()}
    assert len(paths) == 3
    assert len(places) == len({name for name, _ in places}) == len({place for _, place in places})
    assert {Path(place.file).name for _, place in places} == {"weights.fp32.safetensors"}


def test_nodes_in_order_stay_in_order(bundle: Bundle):
    for path in bundle.path.glob("*.onnx"):
        names = [node.name for node in onnx.load(path, load_external_data=False).graph.node]
        assert [node.name for node in load(path).graph] == names


def with_a_hole(path: Path, size_bytes: int, *, external: bool) -> Path:
    """A model with one fp32 weight of zeros that takes no room on the disk."""
    weight = b"".join(
        [tag(1, 0), varint(size_bytes // 4), tag(2, 0), varint(1), framed(8, b"w")],
    )
    node = framed(1, framed(1, b"w") + framed(2, b"y") + framed(4, b"Identity"))
    graph = node + framed(12, framed(1, b"y"))
    if external:
        entries = {"location": "w.bin", "offset": "0", "length": str(size_bytes)}
        for key, value in entries.items():
            weight += framed(13, framed(1, key.encode()) + framed(2, value.encode()))
        weight += tag(14, 0) + varint(1)
        path.write_bytes(tag(1, 0) + varint(10) + framed(7, graph + framed(5, weight)))
        hole = path.with_name("w.bin")
        hole.touch()
    else:
        weight += tag(9, BYTES) + varint(size_bytes)
        graph += tag(5, BYTES) + varint(len(weight) + size_bytes) + weight
        head = tag(1, 0) + varint(10) + tag(7, BYTES) + varint(len(graph) + size_bytes)
        path.write_bytes(head + graph)
        hole = path
    with hole.open("r+b") as file:
        file.truncate(size_bytes if external else path.stat().st_size + size_bytes)
    return path


@pytest.mark.parametrize("external", [True, False], ids=["external", "inline"])
def test_weights_of_three_gib_cost_no_memory(tmp_path: Path, external: bool):
    size_bytes = 3 << 30
    path = with_a_hole(tmp_path / "large.onnx", size_bytes, external=external)
    before = memory.pss_bytes()
    model = load(path)
    (tensor,) = stored_tensors(model, path)
    assert memory.pss_bytes() - before < 16 << 20
    assert tensor.place.size_bytes == size_bytes
    assert tensor.uses == ("Identity_0 (Identity) input 0",)
    np.testing.assert_array_equal(tensor.content.read(tensor.size - 4, 4), np.zeros(4))


@pytest.fixture(scope="module")
def real_files(tmp_path_factory: pytest.TempPathFactory, dense_bundle: Bundle) -> list[bytes]:
    """The bytes of a few sound files."""
    folder = tmp_path_factory.mktemp("sound")
    names = ("tied_twice_stored", "if_with_same_names", "numbers_one_by_one", "external_data")
    files = [STRANGERS[name].build(folder).read_bytes() for name in (*names, "sparse_constant")]
    (stage,) = dense_bundle.path.glob("autoencoder.fp32.onnx")
    return [*files, stage.read_bytes()]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_gives_a_graph_or_a_clear_error(
    data: st.DataObject, real_files: list[bytes], tmp_path: Path
):
    damaged = bytearray(data.draw(st.sampled_from(real_files), label="file"))
    # Bytes outside the raw weights, where damage is more than another number.
    length = len(damaged)
    places = st.integers(0, length - 1) | st.integers(0, 400) | st.integers(length - 400, length)
    for place, value in data.draw(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)
    ):
        damaged[place % length] = value
    path = tmp_path / "damaged.onnx"
    path.write_bytes(damaged[: data.draw(st.integers(1, length) | st.just(length))])
    tensors = []
    with contextlib.suppress(GraphError):
        tensors = stored_tensors(load(path), path)
    for tensor in tensors:
        assert elements(tensor).size == tensor.length
