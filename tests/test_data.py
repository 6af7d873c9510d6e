"""Loading by name or path, the split, the record, and what samples must be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tiedexport
from tiedexport import data
from tiedexport.errors import DataError, MissingRuntimeError, UsageError

RNG = np.random.default_rng(0)
ROOT = Path(tiedexport.__file__).parents[1]


def saved(tmp_path: Path, array: np.ndarray) -> Path:
    path = tmp_path / "data.npy"
    np.save(path, array)
    return path


def floats(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.random(shape).astype(dtype)


def test_importing_the_package_loads_numpy_and_nothing_heavier() -> None:
    code = "import sys, tiedexport.data; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    roots = {name.partition(".")[0] for name in loaded}
    assert "numpy" in roots
    assert not roots & {"torch", "onnx", "PIL", "matplotlib", "sklearn", "scipy", "onnxruntime"}


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, (80, 12, 8)),
        ({"train": 50}, (50, 30, 20)),
        ({"held_back": 10}, (90, 6, 4)),
        ({"train": 10, "held_back": 7}, (10, 4, 3)),
        ({"train": 98, "held_back": 2}, (98, 1, 1)),
    ],
)
def test_a_file_is_split_80_to_20_unless_told(tmp_path, options, sizes) -> None:
    loaded = data.load(saved(tmp_path, floats(100, 3)), **options)
    assert tuple(map(len, (loaded.train, loaded.validation, loaded.test))) == sizes
    assert (loaded.record.train, loaded.record.validation, loaded.record.test) == sizes


@pytest.mark.parametrize("count", range(3, 12))
def test_every_default_split_has_something_to_train_validate_and_test_with(tmp_path, count) -> None:
    record = data.load(saved(tmp_path, floats(count, 2))).record
    sizes = (record.train, record.validation, record.test)
    assert sum(sizes) == count
    assert min(sizes) >= 1


def test_the_split_is_a_permutation_that_the_seed_decides(tmp_path) -> None:
    array = (np.arange(60, dtype=np.uint8)).reshape(60, 1)
    path = saved(tmp_path, array)

    def order(seed: int) -> list[int]:
        loaded = data.load(path, seed=seed)
        values = np.concatenate([loaded.train, loaded.validation, loaded.test])
        return np.rint(values[:, 0] * 255).astype(int).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert sorted(order(0)) == list(range(60))


@pytest.mark.parametrize("sample_shape", [(1,), (7,), (5, 4), (3, 5, 4), (2, 3, 2, 2)])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_arrays_are_contiguous_float32_of_the_sample_shape(tmp_path, sample_shape, layout) -> None:
    array = np.array(floats(10, *sample_shape), order=layout)
    loaded = data.load(saved(tmp_path, array))
    assert loaded.record.sample_shape == sample_shape
    assert loaded.train_labels is None
    for part in (loaded.train, loaded.validation, loaded.test):
        assert type(part) is np.ndarray
        assert part.dtype == np.float32
        assert part.flags.c_contiguous
        assert part.flags.writeable
        assert part.shape[1:] == sample_shape


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "uint8", "bool"])
def test_every_sample_is_scaled_to_the_unit_interval_as_its_type_says(tmp_path, dtype) -> None:
    largest = 255 if dtype == "uint8" else 1
    array = np.rint(RNG.random((40, 6)) * largest).astype(dtype)
    loaded = data.load(saved(tmp_path, array))
    order = np.random.Generator(np.random.PCG64(0)).permutation(40)
    expected = array.astype(np.float32)[order] / np.float32(largest)
    np.testing.assert_array_equal(
        np.concatenate([loaded.train, loaded.validation, loaded.test]), expected
    )


def with_value(value: float, dtype: str = "float32") -> np.ndarray:
    array = np.full((10, 2, 3), 0.5, dtype)
    array[4, 1, 2] = value
    array[7, 0, 0] = value
    return array


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (with_value(np.nan), ["2 of 60", "nan", "[4, 1, 2]"]),
        (with_value(np.inf), ["2 of 60", "inf", "[4, 1, 2]"]),
        (with_value(-np.inf, "float16"), ["2 of 60", "-inf", "[4, 1, 2]"]),
        (with_value(-0.25), ["outside [0, 1]", "minimum -0.25, maximum 0.5"]),
        (with_value(255.0, "float64"), ["float64, minimum 0.5, maximum 255"]),
        (np.zeros((10, 3), "int64"), ["int64 of shape [10, 3]", "uint8"]),
        (np.zeros((10, 3), "uint16"), ["uint16", "uint8"]),
        (np.zeros((10, 3), "complex64"), ["complex64"]),
        (np.zeros((10, 3), "U4"), ["<U4"]),
        (np.zeros((10, 3), "datetime64[s]"), ["datetime64[s]"]),
        (np.zeros(10, "float32"), ["shape [10]", "[n, features]"]),
        (np.float32(0.5), ["shape []", "[n, features]"]),
        (np.zeros((0, 3), "float32"), ["empty", "shape [0, 3]"]),
        (np.zeros((10, 0), "float32"), ["empty", "shape [10, 0]"]),
        (floats(2, 3), ["too few samples", "2 samples", "at least 3"]),
    ],
)
def test_what_is_no_data_set_is_refused_with_what_it_holds(tmp_path, array, words) -> None:
    path = saved(tmp_path, array)
    with pytest.raises(DataError) as caught:
        data.load(path)
    assert caught.value.exit_code == 4
    assert caught.value.hint
    for word in [str(path), "expected:", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"train": 9}, "at least 11"),
        ({"train": 11}, "at least 13"),
        ({"held_back": 10}, "at least 11"),
        ({"train": 6, "held_back": 5}, "at least 11"),
    ],
)
def test_asking_for_more_samples_than_there_are_says_how_many(tmp_path, options, needed) -> None:
    with pytest.raises(DataError, match="10 samples") as caught:
        data.load(saved(tmp_path, floats(10, 3)), **options)
    assert needed in str(caught.value)


@pytest.mark.parametrize("options", [{"train": 0}, {"train": -1}, {"held_back": 1}, {"seed": -1}])
@pytest.mark.parametrize("source", ["synthetic-digits", "sklearn-digits"])
def test_arguments_that_make_no_sense_are_a_usage_error(source, options) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        data.load(source, **options)


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("syntetic-digits", "did you mean synthetic-digits?"),
        ("sklearn_digits", "did you mean sklearn-digits?"),
        ("mnist", "--data synthetic-digits"),
        ("absent.npy", "ls ."),
        ("absent/data.npy", "ls absent"),
    ],
)
def test_an_unknown_name_or_missing_file_suggests_the_next_step(
    tmp_path, monkeypatch, source, hint
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        data.load(source)
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    assert source in str(caught.value)


def test_a_misspelt_path_suggests_the_file_beside_it(tmp_path) -> None:
    path = saved(tmp_path, floats(10, 3))
    with pytest.raises(DataError, match=r"did you mean .*data\.npy"):
        data.load(tmp_path / "dta.npy")
    assert path.is_file()


def test_sklearn_digits_are_the_real_ones_with_their_labels() -> None:
    loaded = data.load("sklearn-digits")
    record = loaded.record
    assert record.sample_shape == (8, 8)
    assert record.train + record.validation + record.test == 1797
    values = np.unique(loaded.train * 16)
    np.testing.assert_array_equal(values, np.arange(17))
    assert loaded.train_labels is not None
    assert np.bincount(loaded.train_labels, minlength=10).min() > 100


@pytest.mark.parametrize(
    ("source", "library", "module"),
    [
        ("synthetic-digits", "Pillow", "PIL"),
        ("synthetic-digits", "matplotlib", "matplotlib"),
        ("sklearn-digits", "scikit-learn", "sklearn.datasets"),
        ("folder", "Pillow", "PIL"),
    ],
)
def test_a_missing_library_is_named_with_what_to_install(
    tmp_path, monkeypatch, source, library, module
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingRuntimeError, match=library) as caught:
        data.load(source)
    assert caught.value.hint == "pip install 'tiedexport[train]'"
    assert caught.value.exit_code == 3


def test_the_digest_covers_every_part(tmp_path) -> None:
    array = floats(10, 3)
    path = saved(tmp_path, array)
    digests = {data.load(path).record.sha256}
    for index in range(10):
        changed = array.copy()
        changed[index, 0] = 1 - changed[index, 0] / 2
        np.save(path, changed)
        digests.add(data.load(path).record.sha256)
    assert len(digests) == 11
