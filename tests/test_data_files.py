"""Files: what is written is what is read, and what is damaged is refused."""

from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tiedexport import data
from tiedexport.data.files import read
from tiedexport.data.idx import DTYPES, labels_file_of
from tiedexport.errors import DataError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 5, 4), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 12)
property_test = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def idx_bytes(array: np.ndarray) -> bytes:
    code = {dtype: code for code, dtype in DTYPES.items()}[
        array.dtype.newbyteorder(">").str.replace("|", ">")
    ]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=array)
    return buffer.getvalue()


def idx_gz_bytes(array: np.ndarray) -> bytes:
    return gzip.compress(idx_bytes(array), mtime=0)


WRITERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "npy": npy_bytes,
    "npz": npz_bytes,
    "idx": idx_bytes,
    "idx.gz": idx_gz_bytes,
}
shapes = hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=5)
dtypes = st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"])


@property_test
@given(
    array=dtypes.flatmap(lambda dtype: hnp.arrays(dtype, shapes)), kind=st.sampled_from([*WRITERS])
)
def test_an_array_of_any_shape_and_type_comes_back_as_written(tmp_path, array, kind) -> None:
    path = tmp_path / "file"
    path.write_bytes(WRITERS[kind](array))
    back, labels = read(path)
    assert labels is None
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@property_test
@given(kind=st.sampled_from([*WRITERS]), cut=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(tmp_path, kind, cut) -> None:
    path = tmp_path / f"cut-{kind}"
    content = WRITERS[kind](PIXELS)
    path.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(DataError, match="cut-") as caught:
        data.load(path)
    assert caught.value.hint


@property_test
@given(
    kind=st.sampled_from([*WRITERS]),
    place=st.floats(0, 1, exclude_max=True),
    value=st.integers(1, 255),
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_flipped_byte_gives_other_data_or_a_data_error_and_nothing_else(
    tmp_path, kind, place, value
) -> None:
    content = bytearray(WRITERS[kind](PIXELS))
    content[int(place * len(content))] ^= value
    path = tmp_path / "flipped"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        loaded = data.load(path)
        assert loaded.train.min() >= 0
        assert loaded.train.max() <= 1


@pytest.mark.parametrize("kind", ["npz", "idx.gz"])
def test_a_checksum_that_does_not_match_is_refused(tmp_path, kind) -> None:
    content = bytearray(WRITERS[kind](PIXELS))
    crc = struct.pack(
        "<I", zipfile.crc32(npy_bytes(PIXELS) if kind == "npz" else idx_bytes(PIXELS))
    )
    start = content.rindex(crc)
    content[start] ^= 1
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"(?i)crc"):
        data.load(path)


@pytest.mark.parametrize("kind", ["idx", "idx.gz"])
def test_a_declared_size_is_not_believed(tmp_path, kind) -> None:
    content = struct.pack(">BBBB4I", 0, 0, 0x0E, 4, *[2**20] * 4) + bytes(100)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if kind == "idx.gz" else content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="cut short") as caught:
            data.load(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2**20
    assert str(2**83) in str(caught.value)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_an_npy_header_that_declares_too_much_is_refused(tmp_path, kind) -> None:
    content = npy_bytes(PIXELS).replace(b"(12, 5, 4), }" + b" " * 12, b"(12, 5, 4000000000000), }")
    assert b"4000000000000" in content
    path = tmp_path / "file"
    if kind == "npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        data.load(path)


def test_bytes_behind_an_idx_array_are_refused(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(idx_bytes(PIXELS) + b"\0")
    with pytest.raises(DataError, match="more bytes"):
        data.load(path)


class Canary:
    unpickled = False

    def __reduce__(self):
        return (setattr, (Canary, "unpickled", True))


@pytest.mark.parametrize(
    "content",
    [
        npy_bytes(np.array([Canary()] * 4, object)),
        npz_bytes(np.array([Canary()] * 4, object)),
        pickle.dumps(Canary()),
        gzip.compress(pickle.dumps(Canary())),
    ],
    ids=["npy", "npz", "pickle", "gzipped pickle"],
)
def test_a_pickle_is_refused_and_never_executed(tmp_path, content) -> None:
    path = tmp_path / "data.npy"
    path.write_bytes(content)
    with pytest.raises(DataError):
        data.load(path)
    assert Canary.unpickled is False


@pytest.mark.parametrize("content", [b"", b"hello, world", b"\x89PNG\r\n\x1a\n", b"\0\0\x08"])
def test_a_file_of_no_known_kind_is_refused_with_its_first_bytes(tmp_path, content) -> None:
    path = tmp_path / "data.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no kind that can be read") as caught:
        data.load(path)
    assert (content[:8].hex(" ") or "(none)") in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "chosen", "has_labels"),
    [
        ({"anything": PIXELS}, "anything", False),
        ({"arr_0": PIXELS}, "arr_0", False),
        ({"images": PIXELS, "other": LABELS}, "images", False),
        ({"X": PIXELS, "y": LABELS}, "X", True),
        ({"pictures": PIXELS, "labels": LABELS[:, None]}, "pictures", True),
        ({"x_train": PIXELS, "y_train": LABELS, "x_test": PIXELS[:2]}, "x_train", True),
        ({"y": PIXELS}, "y", False),
    ],
)
def test_an_archive_gives_its_only_or_well_named_array(
    tmp_path, arrays, chosen, has_labels
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    samples, labels = read(path)
    np.testing.assert_array_equal(samples, arrays[chosen])
    assert (labels is not None) == has_labels
    if labels is not None:
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "no array"),
        ({"a": PIXELS, "b": PIXELS}, "the arrays a, b"),
        ({"x": PIXELS, "data": PIXELS}, "the arrays x, data"),
        ({"x": PIXELS, "y": LABELS, "labels": LABELS}, "the arrays x, y, labels"),
        ({"x": PIXELS, "y": LABELS[:5]}, "int64 of shape [5]"),
        ({"x": PIXELS, "y": LABELS / 2}, "float64 of shape [12]"),
        ({"x": np.float32(1), "y": LABELS}, "int64 of shape [12]"),
    ],
)
def test_an_archive_that_leaves_a_choice_or_does_not_fit_is_refused(
    tmp_path, arrays, words
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as caught:
        data.load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("images_gz", [False, True])
@pytest.mark.parametrize("labels_gz", [False, True])
def test_idx_images_find_the_labels_beside_them(tmp_path, images_gz, labels_gz) -> None:
    images = tmp_path / ("train-images-idx3-ubyte" + ".gz" * images_gz)
    labels = tmp_path / ("train-labels-idx1-ubyte" + ".gz" * labels_gz)
    images.write_bytes((idx_gz_bytes if images_gz else idx_bytes)(PIXELS))
    labels.write_bytes((idx_gz_bytes if labels_gz else idx_bytes)(LABELS.astype(np.uint8)))
    assert labels_file_of(images) == labels
    loaded = data.load(images)
    order = np.random.Generator(np.random.PCG64(0)).permutation(12)
    found = [loaded.train_labels, loaded.validation_labels, loaded.test_labels]
    np.testing.assert_array_equal(np.concatenate(found), LABELS[order])
    np.testing.assert_array_equal(loaded.train * 255, PIXELS[order][: len(loaded.train)])


@pytest.mark.parametrize("damage", ["other count", "cut short"])
def test_labels_beside_idx_images_that_do_not_fit_are_named(tmp_path, damage) -> None:
    images, labels = tmp_path / "t-images.idx3-ubyte", tmp_path / "t-labels.idx1-ubyte"
    images.write_bytes(idx_bytes(PIXELS))
    content = idx_bytes(LABELS.astype(np.uint8)[: 12 if damage == "cut short" else 11])
    labels.write_bytes(content[:-3] if damage == "cut short" else content)
    with pytest.raises(DataError, match=r"t-labels\.idx1-ubyte"):
        data.load(images)


def test_an_unreadable_file_is_a_data_error(tmp_path, monkeypatch) -> None:
    path = tmp_path / "data.npy"
    np.save(path, PIXELS)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError, match="Permission denied"):
        data.load(path)


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [((7, 4, 5, 3), (3, 4, 5)), ((7, 4, 5, 1), (4, 5)), ((7, 3, 4, 5), (3, 4, 5)), ((7, 4), (4,))],
)
def test_images_with_the_channels_last_are_loaded_with_the_channels_first(
    tmp_path: Path, stored: tuple[int, ...], loaded: tuple[int, ...]
) -> None:
    samples = np.random.default_rng(0).random(stored, dtype=np.float32)
    np.save(tmp_path / "images.npy", samples)
    found = data.load(tmp_path / "images.npy")
    assert found.record.sample_shape == loaded
    if stored[-1] == 3:
        red = samples[..., 0].reshape(7, -1)
        assert {x.tobytes() for x in found.train[:, 0].reshape(-1, 20)} <= {
            x.tobytes() for x in red
        }
