"""Weights files: what any reader of safetensors finds in them, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tiedexport.bundle import safetensors_layout
from tiedexport.spec import Precision
from tiedexport.weights_file import ALIGNMENT_BYTES, write_weights

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SHAPES = st.lists(st.integers(1, 40), min_size=1, max_size=3)
TENSORS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter("__metadata__".__ne__),
    st.tuples(SHAPES, st.sampled_from(Precision)),
    min_size=1,
    max_size=6,
)


@given(TENSORS)
def test_any_reader_finds_every_tensor_and_matrices_begin_on_lines(
    tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, tuple[list[int], Precision]]
) -> None:
    draw = np.random.default_rng(0)
    tensors = {
        name: draw.standard_normal(shape).astype(precision.dtype)
        for name, (shape, precision) in drawn.items()
    }
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    write_weights(path, tensors)
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name].view("u1"), tensor.view("u1"))
    for name, (precision, _, begin, size) in safetensors_layout(path).items():
        line = ALIGNMENT_BYTES if size % ALIGNMENT_BYTES == 0 else precision.itemsize
        assert begin % line == 0, name


def test_a_tied_weight_begins_on_a_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    biases = {f"{i}.bias": np.ones(7, np.float32) for i in range(3)}
    write_weights(path, {**biases, "weight": np.ones((16, 48), np.float32)})
    assert safetensors_layout(path)["weight"][2] % ALIGNMENT_BYTES == 0
