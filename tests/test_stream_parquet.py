"""Shards of Parquet files: row groups, types of columns, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_memory import memory_growth_of_reading

from tiedexport import data
from tiedexport.data.stream import LANES, WINDOW_BYTES, open_stream
from tiedexport.errors import DataError, MissingRuntimeError
from tiedexport.rating import held_back

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

IMAGES = np.random.default_rng(0).integers(0, 256, (200, 6), dtype=np.uint8)


def fixed(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def write(
    path: Path, samples: pa.Array | None = None, name: str = "images", **other: pa.Array
) -> Path:
    column = fixed(IMAGES) if samples is None else samples
    table = pa.table({"key": [str(n) for n in range(len(column))], name: column, **other})
    pq.write_table(table, path, row_group_size=30)
    return path


def sorted_rows(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(len(rows), -1)
    return flat[np.lexsort(flat.T)]


def everything(loaded: data.DataSet) -> np.ndarray:
    """All samples, those that are trained on and those that are not, sorted."""
    trained = [rows.values for rows in loaded.stream.epoch(0, 32, seed=0)]
    return sorted_rows(np.concatenate([*trained, loaded.validation, loaded.test]))


COLUMNS = {
    "fixed-size lists": fixed(IMAGES),
    "lists": pa.array(IMAGES.tolist(), pa.list_(pa.uint8())),
    "large lists": pa.array(IMAGES.tolist(), pa.large_list(pa.uint8())),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_kind_of_list_is_read(tmp_path, kind) -> None:
    loaded = data.load(write(tmp_path / "a.parquet", COLUMNS[kind]))
    assert loaded.record.sample_shape == (6,)
    np.testing.assert_array_equal(everything(loaded), sorted_rows(IMAGES / np.float32(255)))


def test_tensors_keep_their_shape(tmp_path) -> None:
    images = pa.FixedShapeTensorArray.from_numpy_ndarray(IMAGES.reshape(200, 2, 3))
    loaded = data.load(write(tmp_path / "a.parquet", images))
    assert loaded.record.sample_shape == (2, 3)
    np.testing.assert_array_equal(everything(loaded), sorted_rows(IMAGES / np.float32(255)))


def test_the_column_of_a_training_is_read_again_without_asking(tmp_path) -> None:
    path = write(tmp_path / "a.parquet", name="left", right=fixed(IMAGES[::-1]))
    loaded = data.load(path, column="right")
    bundle = Mock()
    bundle.manifest.training = Mock(data=loaded.record, recipe={"data": {"column": "right"}})
    bundle.manifest.sample_shape = (6,)
    np.testing.assert_array_equal(held_back(bundle, path), loaded.test)


def test_a_column_of_what_has_none_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES)
    with pytest.raises(DataError, match="leave column out"):
        data.load(tmp_path / "a.npz", column="x")


def test_files_without_rows_are_passed_over(tmp_path) -> None:
    write(tmp_path / "0.parquet", fixed(IMAGES)[:0])
    write(tmp_path / "1.parquet")
    loaded = data.load(tmp_path)
    np.testing.assert_array_equal(everything(loaded), sorted_rows(IMAGES / np.float32(255)))


def test_floats_over_several_files_keep_their_values(tmp_path) -> None:
    values = np.random.default_rng(1).random((100, 3))
    for number, part in enumerate(np.split(values, [10, 70])):
        write(tmp_path / f"{number}.parquet", fixed(part))
    loaded = data.load(tmp_path, held_back=20)
    np.testing.assert_array_equal(everything(loaded), sorted_rows(values.astype(np.float32)))


@settings(max_examples=20, deadline=None)
@given(
    processes=st.integers(1, 4),
    batch_size=st.integers(4, 50),
    window_bytes=st.sampled_from([16, 10_000]),
    first_batch=st.integers(0, 3),
)
def test_many_processes_read_what_one_reads(
    tmp_path_factory, processes, batch_size, window_bytes, first_batch
) -> None:
    path = tmp_path_factory.mktemp("shards") / "a.parquet"
    stream = open_stream((write(path),), 20, 0, None, 4)

    def epoch(**part: int) -> list:
        options = {"seed": 3, "window_bytes": window_bytes, **part}
        return list(stream.epoch(1, batch_size, **options))

    whole = epoch()
    parts = [
        epoch(rank=rank, processes=processes, first_batch=first_batch) for rank in range(processes)
    ]
    assert sum(len(rows.values) for rows in whole) == 180
    for one, *many in zip(whole[first_batch:], *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate([part.values for part in many]), one.values)


def test_the_column_is_found_by_its_type_or_name_or_is_asked_for(tmp_path) -> None:
    other = fixed(IMAGES[:, :2])
    path = write(tmp_path / "a.parquet", other=other)
    assert data.load(path).record.sample_shape == (6,)
    assert data.load(path, column="other").record.sample_shape == (2,)
    with pytest.raises(DataError, match="no such column") as caught:
        data.load(path, column="key")
    assert "other: fixed_size_list" in str(caught.value)
    with pytest.raises(DataError, match="which column") as caught:
        data.load(write(tmp_path / "b.parquet", name="first", second=other))
    assert 'column = "NAME"' in str(caught.value)


def _cut_short(folder: Path) -> None:
    path = folder / "b.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def _overwritten(folder: Path) -> None:
    path = folder / "b.parquet"
    content = bytearray(path.read_bytes())
    content[4:600] = bytes(596)
    path.write_bytes(content)


def _replaced(samples: pa.Array, name: str = "images"):
    return lambda folder: write(folder / "b.parquet", samples, name) and None


def _lists(*rows: list | None) -> pa.Array:
    return pa.array(IMAGES.tolist() + list(rows), pa.list_(pa.uint8()))


DAMAGE = {
    "cut short": (_cut_short, "cannot be read"),
    "overwritten": (_overwritten, "cannot be read"),
    "another length": (_replaced(fixed(IMAGES[:, :5])), "the shards differ"),
    "another name": (_replaced(fixed(IMAGES), "pictures"), "no such column"),
    "NaN": (None, "NaN or infinity"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_shard_is_named(tmp_path, kind) -> None:
    damage, words = DAMAGE[kind]
    if damage is None:
        values = np.full((200, 6), 0.5)
        write(tmp_path / "a.parquet", fixed(values))
        values[77, 2] = np.nan
        write(tmp_path / "b.parquet", fixed(values))
    else:
        write(tmp_path / "a.parquet")
        write(tmp_path / "b.parquet")
        damage(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        everything(data.load(tmp_path, held_back=2))
    assert "b.parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"), [(None, "a value is missing"), ([1, 2], "differ in length")]
)
def test_a_row_unlike_the_others_is_refused(tmp_path, row, words) -> None:
    path = write(tmp_path / "a.parquet", _lists(row))
    with pytest.raises(DataError, match=words) as caught:
        everything(data.load(path, held_back=2))
    assert "row group 6, rows 0 to 20" in str(caught.value)


def test_pyarrow_is_asked_for_by_its_extra(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingRuntimeError, match=r"tiedexport\[data\]"):
        data.load(path)


def test_memory_does_not_grow_with_the_row_groups(tmp_path) -> None:
    """16 lanes that each read a row group whole would hold 128 MB, and more to decode them."""
    values = np.random.default_rng(0).integers(0, 256, (128_000, 1024), dtype=np.uint8)
    pq.write_table(pa.table({"x": fixed(values)}), tmp_path / "a.parquet", row_group_size=8_000)
    # Beside the windows, a page of each lane as it is decoded: 4 bytes a value, and its levels.
    assert memory_growth_of_reading(tmp_path) < WINDOW_BYTES + LANES * (8 << 20)
