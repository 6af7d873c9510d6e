"""A record loads its own data again and nothing else; one from a stranger cannot do harm."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from tiedexport import data
from tiedexport.errors import DataError
from tiedexport.spec import DataRecord

RNG = np.random.default_rng(0)


def saved(tmp_path: Path, array: np.ndarray) -> Path:
    path = tmp_path / "data.npy"
    np.save(path, array)
    return path


def floats(*shape: int) -> np.ndarray:
    return RNG.random(shape).astype("float32")


@pytest.mark.parametrize("source", ["synthetic-digits", "sklearn-digits", "file"])
def test_a_record_that_went_through_json_loads_the_same_data(tmp_path, source) -> None:
    origin = saved(tmp_path, floats(50, 3)) if source == "file" else source
    first = data.load(origin, train=30, held_back=20, seed=5)
    record = msgspec.json.decode(msgspec.json.encode(first.record), type=type(first.record))
    again = data.reload(record)
    assert again.record == first.record
    np.testing.assert_array_equal(again.test, first.test)


@pytest.mark.parametrize("change", ["a value", "the order", "the shape"])
def test_reload_refuses_data_that_has_changed(tmp_path, change) -> None:
    array = floats(10, 2, 3)
    path = saved(tmp_path, array)
    record = data.load(path).record
    changed = {
        "a value": np.where(np.arange(60).reshape(10, 2, 3) == 59, 0.125, array),
        "the order": array[::-1],
        "the shape": array.reshape(10, 3, 2),
    }[change].astype("float32")
    np.save(path, changed)
    with pytest.raises(DataError, match="changed since the model was trained") as caught:
        data.reload(record)
    assert record.sha256 in str(caught.value)


def recorded(source: object, **options: int) -> DataRecord:
    return DataRecord(str(source), options, (3,), 6, 2, 2, "0" * 64)


@pytest.fixture
def nothing_is_loaded(monkeypatch) -> None:
    """Whoever loads data in this test fails it."""
    monkeypatch.setattr(data, "load", lambda *_, **__: pytest.fail("loaded on a stranger's word"))


@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        ("/", {}, "a folder"),
        (".", {"train": 6, "held_back": 4, "seed": 0}, "a folder"),
        (
            "synthetic-digits",
            {"train": 10**12, "held_back": 10, "seed": 0},
            "1000000000010 samples",
        ),
        ("synthetic-digits", {"train": 10, "held_back": 10**12}, "1000000000010 samples"),
        ("synthetic-digits", {"foo": 1}, "unknown options foo"),
        ("x.npy", {"foo": 1}, "unknown options foo"),
    ],
)
@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_record_cannot_make_reload_walk_a_folder_or_draw_without_end(
    source: str, options: dict[str, int], reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        data.reload(recorded(source, **options))
    assert "--data" in str(caught.value.hint)


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_record_cannot_make_reload_read_a_file_of_any_size(tmp_path) -> None:
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        file.truncate(data.RELOAD_LIMIT_BYTES + 1)
    with pytest.raises(DataError, match="a file of 1073741825 bytes"):
        data.reload(recorded(path))


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("/dev/zero", {}),
        ("a\0b", {}),
        ("x" * 5000, {}),
        ("synthetic-digits", {"train": -1}),
        ("synthetic-digits", {"train": 10**12, "held_back": 1 - 10**12}),
        ("sklearn-digits", {"seed": -1}),
    ],
)
def test_a_record_that_makes_no_sense_is_a_data_error(source, options) -> None:
    with pytest.raises(DataError):
        data.reload(recorded(source, **options))


def test_a_folder_is_loaded_where_the_user_names_it_and_not_where_a_record_does(tmp_path) -> None:
    for index in range(10):
        pixels = np.full((4, 4), 20 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    record = data.load(tmp_path).record
    with pytest.raises(DataError, match="a folder"):
        data.reload(record)
