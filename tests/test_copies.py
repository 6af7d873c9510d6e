"""A copy of a weight is found by content, however it was laid out or cast; chance is not a copy."""

from __future__ import annotations

import tracemalloc
from itertools import permutations
from math import prod
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from tiedexport.copies import Group, compare, find
from tiedexport.stored import ArrayContent, FileContent, Place, StoredTensor, in_memory

if TYPE_CHECKING:
    from pathlib import Path

FP16, FP32, FP64 = (np.dtype(kind) for kind in (np.float16, np.float32, np.float64))
BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (FP64, FP32, FP16, BF16)


def random(*shape: int, seed: int = 0, dtype: Any = FP32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def stored(**arrays: np.ndarray) -> list[StoredTensor]:
    return [in_memory(name, np.ascontiguousarray(array)) for name, array in arrays.items()]


def found(**arrays: np.ndarray) -> dict[str, str]:
    """Copy → "form of original"."""
    return {
        copy.tensor.name: f"{copy.form} of {group.original.name}"
        for group in find(stored(**arrays))
        for copy in group.copies
    }


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# Against an oracle that looks at every pair in every order.


@st.composite
def crowds(draw: st.DrawFn) -> list[np.ndarray]:
    """A few weights, and others made from them: copies in every form, and near misses."""
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4).filter(lambda s: prod(s) > 15))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    crowd = [rng.standard_normal(shape) for _ in range(2)]
    for _ in range(draw(st.integers(1, 6))):
        array = crowd[draw(st.integers(0, len(crowd) - 1))]
        array = array.transpose(draw(st.permutations(range(array.ndim))))
        change = draw(st.sampled_from(["none", "none", "flip", "shuffle", "element", "join"]))
        if change == "flip":
            array = np.flip(array, draw(st.integers(0, array.ndim - 1)))
        elif change == "shuffle":
            array = rng.permutation(array, axis=draw(st.integers(0, array.ndim - 1)))
        elif change == "element":
            array = array.copy()
            array.flat[draw(st.integers(0, array.size - 1))] += 1
        elif change == "join":
            array = array.reshape(-1, array.shape[-1])
        crowd.append(array)
    return [np.ascontiguousarray(array.astype(draw(st.sampled_from(DTYPES)))) for array in crowd]


def oracle(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether b is a permutation of a's axes, cast or not."""
    return a.size == b.size and any(
        a.transpose(axes).astype(b.dtype).tobytes() == b.tobytes()
        or a.transpose(axes).astype(FP32).astype(b.dtype).tobytes() == b.tobytes()
        for axes in permutations(range(a.ndim))
    )


@settings(max_examples=150, deadline=None)
@given(crowd=crowds(), budget=st.sampled_from([7, 64, 1 << 22]))
def test_groups_are_those_of_an_oracle_and_axes_say_how(crowd, budget):
    widths = [DTYPES.index(array.dtype) for array in crowd]
    left, expected = sorted(range(len(crowd)), key=widths.__getitem__), {}
    while left:
        first, *others = left
        copies = {i for i in others if oracle(crowd[first], crowd[i])}
        if copies:
            expected[first] = copies
        left = [i for i in others if i not in copies]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_READ", budget)
        patch.setattr(compare, "_CACHED", max(1, budget // 4))
        groups = find(stored(**{str(i): array for i, array in enumerate(crowd)}))
    assert {
        int(g.original.name): {int(c.tensor.name) for c in g.copies} for g in groups
    } == expected
    assert [int(g.original.name) for g in groups] == sorted(expected)
    for group in groups:
        assert_axes_say_how(group, crowd)


def assert_axes_say_how(group: Group, crowd: list[np.ndarray]) -> None:
    original = crowd[int(group.original.name)]
    for copy in group.copies:
        other = crowd[int(copy.tensor.name)]
        again = original.transpose(copy.axes).reshape(other.shape)
        assert any(same_bits(way.astype(other.dtype), other) for way in (again, again.astype(FP32)))
        assert ("cast" in copy.form) == (original.dtype != other.dtype)
        assert copy.difference == 0.0


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    budget=st.integers(1, 300),
    data=st.data(),
)
def test_boxes_cover_every_element_once_within_the_budget(shape, budget, data):
    axes = tuple(data.draw(st.permutations(range(len(shape)))))
    seen = np.zeros(shape, int)
    for box in compare.boxes(tuple(shape), axes, budget):
        seen[box] += 1
        assert seen[box].size <= budget
    assert (seen == 1).all()


# Forms.


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (lambda w: w, "same"),
        (lambda w: w.reshape(1, 20, 2, 15), "same"),
        (lambda w: w.T, "transposed"),
        (lambda w: w.T.reshape(5, 6, 20), "transposed"),
        (lambda w: w.T.reshape(24, 25), "transposed"),
        (lambda w: w.astype(FP16), "cast"),
        (lambda w: w.astype(BF16).T, "cast and transposed"),
    ],
    ids=[
        "same",
        "reshaped",
        "transposed",
        "transposed and split",
        "transposed and reshaped",
        "cast",
        "cast and transposed",
    ],
)
def test_a_copy_has_its_form(make, form):
    assert found(w=random(20, 30), copy=make(random(20, 30))) == {"copy": f"{form} of w"}


def test_the_original_is_the_first_of_the_widest_type():
    w = random(20, 30)
    got = found(half=w.astype(FP16), a=w.T, b=w)
    assert got == {"half": "cast and transposed of a", "b": "transposed of a"}


def test_two_casts_of_one_weight_are_related_where_one_follows_from_the_other():
    w = random(20, 30)
    assert found(bf16=w.astype(BF16), fp16=w.astype(BF16).astype(FP16)) == {"bf16": "cast of fp16"}
    assert found(bf16=w.astype(BF16), fp16=w.astype(FP16)) == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_of_float64_by_torch_which_rounds_twice_is_a_cast(dtype):
    w = torch.from_numpy(random(500, 400, dtype=FP64))
    cast = w.to(dtype).view(torch.int16).numpy().view(FP16 if dtype is torch.float16 else BF16)
    assert found(w=w.numpy(), cast=cast) == {"cast": "cast of w"}


def test_a_cast_that_overflows_and_a_nan_are_as_onnx_casts_them():
    w = random(20, 30)
    w[0, :3] = 1e6, -1e6, np.nan
    with np.errstate(over="ignore"):
        half = w.astype(FP16)
    half.view(np.uint16)[0, 2] |= 1  # a payload of its own
    assert found(w=w, half=half, same=w.copy()) == {"half": "cast of w", "same": "same of w"}


def test_a_zero_of_the_other_sign_is_another_weight():
    w, other = random(20, 30), random(20, 30)
    w[3, 4], other[3, 4] = 0.0, -0.0
    assert found(w=w, other=other) == {}


def test_packed_types_and_integers_are_compared_as_bytes():
    codes = np.random.default_rng(0).integers(0, 255, 100, dtype=np.uint8)
    packed = [
        StoredTensor(name, Place(name, 0, 100), codes.dtype, (20, 10), ArrayContent(codes))
        for name in "ab"
    ]
    ((group,),) = [find(packed)]
    assert [copy.form for copy in group.copies] == ["same"]
    whole = codes.reshape(20, 5).astype(np.int64)
    assert found(a=whole, b=whole.T, c=whole.astype(np.float32)) == {"b": "transposed of a"}


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.uint64, np.int8])
def test_every_type_that_a_file_may_hold_is_compared(dtype):
    w = np.abs(100 * random(20, 30)).astype(dtype)
    w = w + 1j * random(20, 30, seed=1).astype(dtype) if w.dtype.kind == "c" else w
    assert found(w=w, copy=w.T, other=w + 1) == {"copy": "transposed of w"}
    assert find(stored(zeros=np.zeros_like(w), again=np.zeros_like(w)), atol=0.1) == []


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize(("outputs", "inputs"), [(32, 16), (20, 32), (24, 3), (40, 1)])
def test_the_blocked_layouts_of_a_kernel_are_found(outputs, inputs, block):
    w = random(outputs, inputs, 3, 3)
    padded = np.zeros((-(-outputs // block) * block, inputs, 3, 3), FP32)
    padded[:outputs] = w
    rows = padded.reshape(-1, block, inputs, 3, 3)
    copy = rows.transpose(0, 2, 3, 4, 1).reshape(padded.shape)
    assert found(w=w, copy=copy) == {"copy": f"permuted (OIHW{block}o) of w"}
    if inputs % block == 0:
        rows = padded.reshape(-1, block, inputs // block, block, 3, 3)
        copy = rows.transpose(0, 2, 4, 5, 3, 1).reshape(padded.shape)
        assert found(w=w, copy=copy) == {"copy": f"permuted (OIHW{block}i{block}o) of w"}


def test_the_kernels_of_an_optimised_graph_of_onnx_runtime_are_found(tmp_path: Path):
    """The layout is that of this processor: what counts is that all three are recognised."""
    kernels = {"a": random(48, 3, 3, 3), "b": random(48, 48, 3, 3), "c": random(48, 1, 3, 3)}
    path = tmp_path / "conv.onnx"
    onnx.save(_convolutions(kernels), path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    optimised = onnx.load(options.optimized_model_filepath).graph
    reordered = {t.name: numpy_helper.to_array(t) for t in optimised.initializer}
    if not any(node.domain == "com.microsoft.nchwc" for node in optimised.node):
        pytest.skip("ONNX Runtime has no blocked kernels for this processor")
    got = found(**kernels, **{f"r {name}": array for name, array in reordered.items()})
    assert sorted(form.rpartition(" ")[2] for form in got.values()) == ["a", "b", "c"]
    assert all(form.startswith("permuted") for form in got.values())


def _convolutions(kernels: dict[str, np.ndarray]) -> onnx.ModelProto:
    nodes = [
        onnx.helper.make_node("Conv", ["x", "a"], ["y"]),
        onnx.helper.make_node("Conv", ["y", "b"], ["z"]),
        onnx.helper.make_node("Conv", ["z", "c"], ["out"], group=48),
    ]
    declare = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "conv",
        [declare("x", onnx.TensorProto.FLOAT, [1, 3, 12, 12])],
        [declare("out", onnx.TensorProto.FLOAT, [1, 48, 6, 6])],
        [numpy_helper.from_array(array, name) for name, array in kernels.items()],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)


# Chance.

CHANCE = {
    "constant": np.full((30, 30), 0.5),
    "zeros": np.zeros(500),
    "tiny": random(15),
    "identity": np.eye(64),
    "shifted identity": np.eye(40, 60, 7),
    "one-hot vector": np.eye(1, 200, 7),
    "one-hot rows": np.eye(64)[np.random.default_rng(0).permutation(64)],
    "triangle": np.tril(np.ones((1, 1, 200, 200))),
    "causal mask": np.triu(np.full((64, 64), -np.inf), 1),
    "bools": np.random.default_rng(0).random((40, 40)) < 0.5,
    "band": np.tri(64, 64, 3) - np.tri(64, 64, -3),
    "blocks": np.kron(np.eye(8), np.ones((8, 8))),
    "checkerboard": np.indices((50, 50)).sum(0) % 2,
    "arange": np.arange(1000),
    "linspace": np.linspace(0, 1, 1000, dtype=FP16),
    "tiled arange": np.tile(np.arange(50), (20, 1)),
    "distances": np.subtract.outer(np.arange(64), np.arange(64)),
    "one NaN": np.full((20, 20), np.nan),
    "half of it ones": np.repeat([0.0, 1.0], 500),
}


@pytest.mark.parametrize("name", CHANCE)
def test_what_is_equal_by_chance_is_no_copy(name: str):
    array = CHANCE[name]
    assert found(a=array, b=array.copy(), c=array.T) == {}


_rng = np.random.default_rng(0)
WEIGHTS = {
    "16 floats": _rng.standard_normal(16),
    "64 signs": _rng.choice([-1.0, 1.0], 64),
    "signs": _rng.choice([-1.0, 1.0], (200, 300)),
    "ternary int8": _rng.choice([-1, 0, 1], (30, 40)).astype(np.int8),
    "sparse ternary": _rng.choice([-1.0, 0.0, 1.0], (100, 100), p=[0.025, 0.95, 0.025]),
    "pruned": _rng.standard_normal((500, 500)) * (_rng.random((500, 500)) < 0.02),
    "zero rows first": np.concatenate([np.zeros((500, 64)), _rng.standard_normal((500, 64))]),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_carries_information_is_a_copy(name: str):
    array = WEIGHTS[name]
    copies = {"b": array.copy(), "c": array.T} if array.ndim > 1 else {"b": array.copy()}
    assert set(found(a=array, **copies)) == set(copies)


def test_what_a_cast_leaves_without_information_is_no_copy():
    assert found(w=random(50, 50) * 1e-12, zeros=np.zeros((50, 50), FP16)) == {}


# atol.


def test_near_equal_weights_are_groups_of_their_own_with_their_difference():
    w, noise = random(40, 50), 1e-4 * random(40, 50, seed=1)
    near = w + noise
    tensors = stored(w=w, exact=w.T, near=near.T, far=w + 1)
    assert [g.original.name for g in find(tensors)] == ["w"]
    exact, close = find(tensors, atol=1e-3)
    assert [copy.tensor.name for copy in exact.copies] == ["exact"]
    assert close.original.name == "w"
    (copy,) = close.copies
    assert (copy.tensor.name, copy.form, copy.axes) == ("near", "transposed", (1, 0))
    assert copy.difference == np.abs(w.astype(FP64) - near.astype(FP64)).max()
    assert len(find(tensors, atol=copy.difference)) == 2
    assert len(find(tensors, atol=np.nextafter(copy.difference, 0))) == 1


@pytest.mark.parametrize(("a", "b"), [(np.nan, 1.0), (np.inf, -np.inf), (np.inf, 1.0)])
def test_what_is_not_finite_is_near_itself_only(a, b):
    w, same, other = random(20, 30), random(20, 30) + FP32.type(1e-5), random(20, 30)
    w[1, 1] = same[1, 1] = a
    other[1, 1] = b
    (group,) = find(stored(w=w, same=same, other=other), atol=0.1)
    assert [(g.tensor.name) for g in group.copies] == ["same"]
    assert 0 < group.copies[0].difference < 1e-4


# Scale.


class Counting(ArrayContent):
    """Counts the elements that are read."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array)
        self.read_elements = 0

    def read(self, start: int, count: int) -> np.ndarray:
        self.read_elements += count
        return super().read(start, count)


def test_tensors_of_one_place_are_never_read_whole():
    content = Counting(random(1000, 1000).reshape(-1))
    place = Place("file", 64, 4_000_000)
    a, b = (StoredTensor(name, place, FP32, (1000, 1000), content) for name in "ab")
    (group,) = find([a, b])
    assert group.copies[0].form == "same"
    assert content.read_elements < 100_000


def test_a_thousand_weights_of_one_shape_are_not_compared_with_each_other():
    contents = [Counting(random(30, 40, seed=seed)) for seed in range(1000)]
    contents.append(Counting(contents[500].read(0, 1200).reshape(30, 40).T))
    tensors = [
        StoredTensor(f"{i}", Place(f"{i}", 0, 4800), FP32, (30, 40)[:: 1 if i < 1000 else -1], c)
        for i, c in enumerate(contents)
    ]
    contents[500].read_elements = 0
    (group,) = find(tensors)
    assert group.original.name == "500"
    assert [copy.tensor.name for copy in group.copies] == ["1000"]
    assert {i for i, content in enumerate(contents) if content.read_elements} == {500, 1000}


@pytest.mark.parametrize("transposed", [False, True])
def test_large_files_are_compared_in_little_memory(transposed, tmp_path: Path):
    w = random(4096, 2048)
    w.tofile(tmp_path / "a")
    np.ascontiguousarray(w.T if transposed else w).tofile(tmp_path / "b")
    size = w.nbytes
    shapes = {"a": w.shape, "b": w.shape[:: -1 if transposed else 1]}
    del w
    tensors = [
        StoredTensor(name, Place(name, 0, size), FP32, shape, FileContent(tmp_path / name, 0, FP32))
        for name, shape in shapes.items()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_READ", 1 << 17)
        tracemalloc.start()
        (group,) = find(tensors)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert group.copies[0].form == ("transposed" if transposed else "same")
    assert peak < size / 8
