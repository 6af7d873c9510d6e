"""Near-equal weights, and many or large ones: little is compared, and in little memory."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from arrays_searched import FP32, FP64, random, stored

from tiedexport.copies import compare, find
from tiedexport.stored import ArrayContent, FileContent, Place, StoredTensor

if TYPE_CHECKING:
    from pathlib import Path

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
