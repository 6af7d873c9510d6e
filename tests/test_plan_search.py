"""Weights are found in plans that TensorRT-RTX really builds, as often as they are in there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from conftest import needs_rtx
from onnx import numpy_helper

sys.path.append(str(Path(__file__).parent / "engines"))
from tied_graphs import baked_request, convolution_nodes, graph, shared_request

from tiedexport.engine_options import EngineOptions
from tiedexport.engines import EngineRequest, builder_for
from tiedexport.errors import BadInputError
from tiedexport.plan_search import PlanContents, weights_in_plan
from tiedexport.spec import Layer, Precision, StageSpec, TensorSpec
from tiedexport.stored import StoredTensor, in_memory

if TYPE_CHECKING:
    from collections.abc import Sequence


def search(path: Path, plan: bytes, weights: Sequence[StoredTensor]) -> PlanContents:
    (path / "plan").write_bytes(plan)
    contents = weights_in_plan(path / "plan", weights)
    assert contents.size_bytes == len(plan)
    return contents


def forms(contents: PlanContents) -> list[tuple[str, str, str]]:
    return sorted((f.weight.name, f.form, f.dtype.name) for f in contents.found)


# Real plans.


def baked(path: Path, latent: int, features: int, **changes) -> tuple[bytes, list[StoredTensor]]:
    shapes = {"w": (latent, features), "b": (latent,), "c": (features,)}
    request = baked_request(path, shapes, features, **changes)
    plan = builder_for(request.target).build(request).plan
    flat = np.fromfile(path / "weights.bin", np.float16)
    weights, start = [], 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        weights.append(in_memory(name, flat[start : start + size].reshape(shape)))
        start += size
    return plan, weights


@needs_rtx
@pytest.mark.parametrize("target", ["rtx:sm75", "rtx:sm89"])
@pytest.mark.parametrize(("latent", "features"), [(196, 784), (100, 37), (33, 130)])
def test_a_baked_tied_weight_is_there_once(latent, features, target, tmp_path: Path):
    plan, weights = baked(tmp_path, latent, features, target=target)
    contents = search(tmp_path, plan, weights)
    assert forms(contents) == [(name, "same", "float16") for name in "bcw"]
    assert not contents.may_hide_weights(layers=2)
    for found in contents.found:
        first = found.weight.content.read(0, 4).tobytes()
        assert plan[found.offset : found.offset + len(first)] == first


@needs_rtx
@pytest.mark.parametrize(("latent", "features"), [(512, 1024), (100, 37)])
def test_a_plan_for_batch_one_holds_the_weight_and_its_transpose(latent, features, tmp_path: Path):
    options = EngineOptions(profiles=((1, 1, 1),), exact_profiles=True)
    plan, weights = baked(tmp_path, latent, features, options=options)
    contents = search(tmp_path, plan, weights)
    assert forms(contents) == [
        ("b", "same", "float16"),
        ("c", "same", "float16"),
        ("w", "same", "float16"),
        ("w", "transposed", "float16"),
    ]
    assert not contents.may_hide_weights(layers=2)


@needs_rtx
def test_a_plan_that_takes_its_weights_holds_none(tmp_path: Path):
    _, weights = baked(tmp_path, 32, 48)
    request = shared_request()
    contents = search(tmp_path, builder_for(request.target).build(request).plan, weights)
    assert contents.found == ()
    assert contents.unaccounted_bytes == contents.size_bytes
    assert not contents.may_hide_weights(layers=2)


@needs_rtx
def test_what_is_not_among_the_weights_is_unaccounted_for(tmp_path: Path):
    plan, weights = baked(tmp_path, 512, 1024)
    contents = search(tmp_path, plan, weights[1:])
    assert contents.may_hide_weights(layers=2)


@needs_rtx
def test_a_weight_in_fp32_is_found_where_the_plan_has_it_in_fp16(tmp_path: Path):
    plan, (w, b, c) = baked(tmp_path, 64, 96)
    rng = np.random.default_rng(0)
    wide = [
        in_memory(t.name, widened(t.content.read(0, t.size).reshape(t.shape), rng))
        for t in (w, b, c)
    ]
    stored_transpose = in_memory("t", wide[0].content.read(0, w.size).reshape(w.shape).T.copy())
    contents = search(tmp_path, plan, [*wide, stored_transpose])
    assert forms(contents) == [(name, "cast", "float16") for name in "bcw"]


def widened(half: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values in fp32 that round to these."""
    wide = half.astype(np.float32) * (1 + rng.uniform(-1e-4, 1e-4, half.shape).astype(np.float32))
    return np.where(wide.astype(np.float16) == half, wide, half).astype(np.float32)


@needs_rtx
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32])
@pytest.mark.parametrize(("outputs", "inputs"), [(32, 16), (16, 1)])
def test_kernels_are_found_with_their_channels_last(outputs, inputs, precision, tmp_path: Path):
    plan, weights = convolutions(outputs, inputs, precision)
    contents = search(tmp_path, plan, weights)
    kernels = [found for found in contents.found if found.weight.name == "k"]
    # One channel is no layout of its own, and TensorRT-RTX stores such a kernel twice: as it is,
    # and filled up to eight channels or so.
    assert len(kernels) == (1 if inputs > 1 else 2)
    assert {found.form for found in kernels} == {"transposed" if inputs > 1 else "same"}
    assert "b" in {found.weight.name for found in contents.found}


def convolutions(
    outputs: int, inputs: int, precision: Precision
) -> tuple[bytes, list[StoredTensor]]:
    """Conv and ConvTranspose with one kernel."""
    shapes = {"k": (outputs, inputs, 3, 3), "b": (outputs,), "c": (inputs,)}
    rng = np.random.default_rng(0)
    numpy_type = np.dtype(np.float16 if precision is Precision.FP16 else np.float32)
    arrays = {n: rng.standard_normal(s).astype(numpy_type) for n, s in shapes.items()}
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = graph(convolution_nodes(precision), [inputs, 28, 28], {}, precision, baked=initializers)
    data = ("batch", inputs, 28, 28)
    source, target = (TensorSpec(name, Precision.FP32, data) for name in "xy")
    layers = Layer("conv", "k", "b"), Layer("conv_transpose", "k", "c")
    stage = StageSpec("autoencoder", (source,), (target,), layers)
    request = EngineRequest(
        stage, precision, "rtx:sm89", model.SerializeToString(), weights="baked"
    )
    plan = builder_for(request.target).build(request).plan
    return plan, [in_memory(name, array) for name, array in arrays.items()]


# Plans made by hand, for what no builder here does.


def noise(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def pitched(array: np.ndarray, pitch: int) -> bytes:
    rows = array.reshape(-1, array.shape[-1])
    width = rows.shape[1] * rows.itemsize
    return b"".join(row.tobytes() + bytes(pitch - width) for row in rows)[: width - pitch or None]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize("alignment", [1, 16, 128])
def test_every_order_type_and_pitch_is_found(order, dtype, alignment, tmp_path: Path):
    w = np.random.default_rng(0).standard_normal((6, 5, 7))
    copy = np.ascontiguousarray(w.transpose(order)).astype(dtype)
    row = copy.shape[-1] * copy.itemsize
    stored = pitched(copy, -(-row // alignment) * alignment)
    plan = noise(1002, 1) + stored + noise(500, 2)
    for weight in (w, w.astype(dtype)):
        (found,) = search(tmp_path, plan, [in_memory("w", weight)]).found
        assert (found.offset, found.size_bytes) == (1002, len(stored))
        assert found.dtype == dtype
        assert ("transposed" in found.form) == (order != (0, 1, 2))
        assert ("cast" in found.form) == (weight.dtype != dtype)


def test_every_occurrence_is_counted_and_overlaps_are_accounted_for_once(tmp_path: Path):
    w = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)
    bias = w[0, :20].copy()  # also the beginning of each whole weight
    plan = noise(64, 1) + w.tobytes() + noise(10, 2) + w.T.tobytes() + w.tobytes() + noise(6, 3)
    weights = [in_memory("w", w), in_memory("b", bias)]
    contents = search(tmp_path, plan, weights)
    assert forms(contents) == [
        ("b", "same", "float32"),
        ("b", "same", "float32"),
        ("w", "same", "float32"),
        ("w", "same", "float32"),
        ("w", "transposed", "float32"),
    ]
    assert contents.unaccounted_bytes == 80


def test_one_changed_element_is_not_the_weight(tmp_path: Path):
    w = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float16)
    other = w.copy()
    other[39, 29] += 1
    assert search(tmp_path, noise(64, 1) + other.tobytes(), [in_memory("w", w)]).found == ()


def test_what_tells_nothing_is_not_searched_for(tmp_path: Path):
    arrays = {
        "zeros": np.zeros((30, 30), np.float32),
        "identity": np.eye(30, dtype=np.float32),
        "ones": np.ones(8, np.float32),
        "scalar": np.float32(3.0),
    }
    plan = noise(64, 1) + b"".join(array.tobytes() for array in arrays.values())
    weights = [in_memory(name, np.asarray(array)) for name, array in arrays.items()]
    assert search(tmp_path, plan, weights).found == ()


@pytest.mark.parametrize("size", [0, 1, 7, 8])
def test_a_tiny_plan_holds_nothing(size, tmp_path: Path):
    weight = in_memory("w", np.random.default_rng(0).standard_normal((40, 30)))
    assert search(tmp_path, bytes(size), [weight]).unaccounted_bytes == size


def test_a_plan_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(BadInputError) as caught:
        weights_in_plan(tmp_path / "gone", [])
    assert caught.value.where == tmp_path / "gone"
