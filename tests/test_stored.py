"""Tensors are read in pieces, from arrays and from files, and a file that fails is named."""

from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tiedexport.errors import BadInputError
from tiedexport.stored import ArrayContent, FileContent, Place, StoredTensor, in_memory


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int64, np.bool_])
def test_an_array_and_a_file_read_alike(dtype, tmp_path: Path):
    array = np.arange(60).reshape(4, 15).astype(dtype)
    (tmp_path / "f").write_bytes(b"head" + array.tobytes())
    contents = ArrayContent(array), FileContent(tmp_path / "f", 4, np.dtype(dtype))
    for content in contents:
        content.read_ahead(60)
        np.testing.assert_array_equal(content.read(7, 20), array.ravel()[7:27])
        np.testing.assert_array_equal(content.sample(np.array([59, 0, 3])), array.flat[[59, 0, 3]])


def test_tensors_of_one_file_share_a_descriptor_that_is_closed_with_the_last(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(bytes(4000))
    contents = [FileContent(path, 4 * i, np.dtype(np.float32)) for i in range(1000)]
    assert _open_descriptors(path) == 1
    del contents
    assert _open_descriptors(path) == 0


def _open_descriptors(path: Path) -> int:
    """Of this file alone: others open and close as they like."""
    links = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(link) == str(path.resolve()) for link in links)


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"old!")
    old = FileContent(path, 0, np.dtype(np.uint8))
    (tmp_path / "new").write_bytes(b"new!")
    (tmp_path / "new").replace(path)
    new = FileContent(path, 0, np.dtype(np.uint8))
    assert old.read(0, 4).tobytes() == b"old!"
    assert new.read(0, 4).tobytes() == b"new!"


def test_a_file_that_ends_early_or_is_none_is_named(tmp_path: Path):
    path = tmp_path / "short"
    path.write_bytes(bytes(10))
    with pytest.raises(BadInputError, match="ended") as caught:
        FileContent(path, 4, np.dtype(np.float32)).read(0, 2)
    assert caught.value.where == path
    with pytest.raises(BadInputError, match="cannot be opened"):
        FileContent(tmp_path / "gone", 0, np.dtype(np.float32))
    with pytest.raises(BadInputError, match="cannot be read"):
        FileContent(tmp_path, 0, np.dtype(np.float32)).read(0, 1)


def test_arrays_of_one_address_have_one_place():
    array = np.zeros((3, 4), np.float32)
    a, b, other = in_memory("a", array), in_memory("b", array[:]), in_memory("c", array.copy())
    assert a.place == b.place != other.place
    assert (a.size, a.length, a.elements) == (12, 12, (3, 4))


def test_packed_elements_are_bytes_to_those_who_read():
    packed = np.zeros(6, np.uint8)
    tensor = StoredTensor("w", Place("f", 0, 6), packed.dtype, (3, 4), ArrayContent(packed))
    assert (tensor.size, tensor.length, tensor.elements) == (12, 6, (6,))
