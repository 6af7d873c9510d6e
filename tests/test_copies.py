"""A copy of a weight is found by content, however it was laid out or cast; chance is not a copy."""

from __future__ import annotations

from itertools import permutations
from math import prod
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from arrays_searched import FP16, FP32, FP64, found, random, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from tiedexport.copies import Group, compare, find
from tiedexport.stored import ArrayContent, Place, StoredTensor

if TYPE_CHECKING:
    from pathlib import Path

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (FP64, FP32, FP16, BF16)


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
    flat = [sum(length > 1 for length in array.shape) < 2 for array in crowd]
    order = [(DTYPES.index(array.dtype), last) for array, last in zip(crowd, flat, strict=True)]
    left, expected = sorted(range(len(crowd)), key=order.__getitem__), {}
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


def test_a_flat_transpose_is_found_whichever_comes_first():
    w = random(20, 30)
    assert found(w=w, flat=w.T.ravel()) == {"flat": "transposed of w"}
    assert found(flat=w.T.ravel(), w=w) == {"flat": "transposed of w"}


def test_packed_types_and_integers_are_compared_as_bytes():
    codes = np.random.default_rng(0).integers(0, 255, 100, dtype=np.uint8)
    packed = [
        StoredTensor(name, Place(name, 0, 100), codes.dtype, (20, 10), ArrayContent(codes))
        for name in "ab"
    ]
    ((group,),) = [find(packed)]
    assert [copy.form for copy in group.copies] == ["same"]
    whole = codes.reshape(20, 5).astype(np.uint16)
    assert found(a=whole, b=whole.T, c=whole.astype(np.float32)) == {"b": "transposed of a"}


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.uint16, np.int8])
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
