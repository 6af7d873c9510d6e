"""Every kind of input gives the codes that a session gives, with what goes with each row."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs import ROWS, X, answers, codes, lists_of, run

from tiedexport.errors import ArrayError, DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tiedexport.bundle import Bundle

TABLE = pa.table({"key": [f"k{i}" for i in range(ROWS)], "image": lists_of(X)})

TWINS = TABLE.add_column(0, "key", pa.array(range(ROWS)))


def write_stream(path: Path) -> None:
    with pa.ipc.new_stream(path, TABLE.schema) as file:
        file.write_table(TABLE, max_chunksize=40)


def write_file(path: Path) -> None:
    with pa.ipc.new_file(path, TABLE.schema) as file:
        file.write_table(TABLE, max_chunksize=90)


def plain(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


ARRAYS: dict[str, Callable[[Path], object]] = {
    "x.npy": lambda path: np.save(path, X),
    "wide.npy": lambda path: np.save(path, X.astype(np.float64).reshape(ROWS, 4, 5)),
    "x.npz": lambda path: np.savez(path, x=X, y=np.arange(ROWS)),
    "packed.npz": lambda path: np.savez_compressed(path, data=X),
}
TABLES: dict[str, Callable[[Path], object]] = {
    "x.parquet": lambda path: pq.write_table(TABLE, path, row_group_size=70),
    "one-group.parquet": lambda path: pq.write_table(TABLE, path),
    "lists.parquet": lambda path: pq.write_table(
        TABLE.set_column(1, "image", TABLE["image"].cast(pa.list_(pa.float32()))), path
    ),
    "x.arrow": write_file,
    "x.arrows": write_stream,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_rows_of_an_array_keep_their_file_and_number(
    name: str, dense_bundle: Bundle, tmp_path: Path
) -> None:
    ARRAYS[name](tmp_path / name)
    result = run(dense_bundle, tmp_path / name, tmp_path / "out")
    table = pq.read_table(tmp_path / "out")
    np.testing.assert_array_equal(codes(table), answers(dense_bundle, X))
    assert table["row"].to_pylist() == list(range(ROWS))
    assert set(table["file"].to_pylist()) == {str(tmp_path / name)}
    assert (result.rows, result.parts, result.complete) == (ROWS, 6, True)


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_a_table_keep_their_other_columns(
    name: str, dense_bundle: Bundle, tmp_path: Path
) -> None:
    TABLES[name](tmp_path / name)
    run(dense_bundle, tmp_path / name, tmp_path / "out", batch=1)
    table = pq.read_table(tmp_path / "out")
    assert table.column_names == ["key", "code"]
    assert table["key"].to_pylist() == TABLE["key"].to_pylist()
    assert pa.types.is_fixed_size_list(table.schema.field("code").type)
    np.testing.assert_allclose(codes(table), answers(dense_bundle, X), rtol=1e-5, atol=1e-6)


def test_several_inputs_become_one_array_in_their_order(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    for part in range(3):
        np.save(tmp_path / f"x{part}.npy", X[part * 100 : part * 100 + 100 - part])
    run(dense_bundle, str(tmp_path / "x*.npy"), tmp_path / "codes.npy")
    inputs = [X[part * 100 : part * 100 + 100 - part] for part in range(3)]
    expected = np.concatenate([answers(dense_bundle, x) for x in inputs])
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), expected)


def test_codes_are_decoded_from_the_folder_that_holds_them(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", X)
    run(dense_bundle, tmp_path / "x.npy", tmp_path / "codes")
    run(dense_bundle, tmp_path / "codes", tmp_path / "back.npy", stage="decode")
    run(dense_bundle, tmp_path / "x.npy", tmp_path / "both.npy", stage="reconstruct")
    back, both = (np.load(tmp_path / f"{name}.npy") for name in ("back", "both"))
    np.testing.assert_allclose(back, both, rtol=1e-5, atol=1e-6)


def test_bytes_are_divided_by_255(dense_bundle: Bundle, tmp_path: Path) -> None:
    pixels = (X * 255).astype(np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    run(dense_bundle, tmp_path / "x.npy", tmp_path / "z.npy")
    expected = answers(dense_bundle, pixels / np.float32(255))
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), expected)


def test_a_folder_of_images_keeps_their_names_and_labels(
    bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    bundle = bundles["conv"]
    pixels = np.random.default_rng(0).integers(0, 256, (4, 9, 12), np.uint8)
    for i, picture in enumerate(pixels):
        (tmp_path / "images" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(picture).save(tmp_path / "images" / str(i % 2) / f"{i}.png")
    run(bundle, tmp_path / "images", tmp_path / "out")
    table = pq.read_table(tmp_path / "out")
    x = (pixels[[0, 2, 1, 3], None] / np.float32(255)).astype(np.float32)
    np.testing.assert_array_equal(codes(table), answers(bundle, x).reshape(4, -1))
    assert table["label"].to_pylist() == [0, 0, 1, 1]
    assert [name[-5:] for name in table["file"].to_pylist()] == ["0.png", "2.png", "1.png", "3.png"]


def test_no_rows_make_a_table_of_none(dense_bundle: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X[:0])
    run(dense_bundle, tmp_path / "x.npy", tmp_path / "out")
    run(dense_bundle, tmp_path / "x.npy", tmp_path / "z.npy")
    assert pq.read_table(tmp_path / "out").column_names == ["file", "row", "code"]
    assert np.load(tmp_path / "z.npy").shape == (0, 7)


def test_an_empty_file_of_a_table_makes_no_rows(dense_bundle: Bundle, tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 0), tmp_path / "x.parquet")
    run(dense_bundle, tmp_path / "x.parquet", tmp_path / "out")
    assert pq.read_table(tmp_path / "out").num_rows == 0


@pytest.mark.parametrize(
    ("write", "error", "named"),
    [
        (lambda path: np.save(path, X[:, :19]), ArrayError, "float32[0, 19]"),
        (lambda path: np.save(path, X.astype(np.int64)), DataError, "int64"),
        (lambda path: np.save(path, np.asfortranarray(X)), DataError, "Fortran"),
        (lambda path: np.save(path, np.array([None] * 20)), DataError, "Python objects"),
        (lambda path: path.write_bytes(plain(X)[:-1]), DataError, "a whole file of plain numbers"),
        (lambda path: path.write_bytes(archive(a=X, b=X)), DataError, "--column"),
        (lambda path: path.write_bytes(b"PAR1 and no more"), DataError, "whole Parquet"),
        (lambda path: path.write_bytes(b"hello"), DataError, "68 65 6c 6c 6f"),
        (lambda path: pq.write_table(pa.table({"a": [1]}), path), DataError, "a: int64"),
        (lambda path: pq.write_table(TWINS, path), DataError, "key, key, image"),
    ],
)  # fmt: skip
def test_what_is_no_input_is_refused_before_anything_is_written(
    write: Callable[[Path], object], error: type[Exception], named: str,
    dense_bundle: Bundle, tmp_path: Path,
) -> None:  # fmt: skip
    write(tmp_path / "x.npy")
    with pytest.raises(error) as refused:
        run(dense_bundle, tmp_path / "x.npy", tmp_path / "out")
    assert named in str(refused.value)
    assert str(tmp_path / "x.npy") in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_pattern_without_a_match_and_a_file_named_twice_are_refused(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataError, match=r"y\*\.npy"):
        run(dense_bundle, str(tmp_path / "y*.npy"), tmp_path / "out")
    with pytest.raises(UsageError, match="twice"):
        run(dense_bundle, [tmp_path / "x.npy", str(tmp_path / "*.npy")], tmp_path / "out")


def test_inputs_with_different_columns_do_not_share_a_table(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", X)
    pq.write_table(TABLE, tmp_path / "x.parquet")
    inputs = [tmp_path / "x.npy", tmp_path / "x.parquet"]
    with pytest.raises(DataError, match="key: string"):
        run(dense_bundle, inputs, tmp_path / "out")
    run(dense_bundle, inputs, tmp_path / "z.npy")
    assert len(np.load(tmp_path / "z.npy")) == 2 * ROWS


def test_a_column_of_the_name_of_the_codes_is_refused(dense_bundle: Bundle, tmp_path: Path) -> None:
    pq.write_table(TABLE.rename_columns(["code", "image"]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="rename that column"):
        run(dense_bundle, tmp_path / "x.parquet", tmp_path / "out")
