"""`run` turns one array file into another, or says what is wrong with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tiedexport.errors import ArrayError, BundleError, DataError, MissingRuntimeError, UsageError
from tiedexport.run import run
from tiedexport.runtimes import all_runtimes
from tiedexport.session import open_session

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle

VERBS = {"encode": "encoder", "decode": "decoder", "reconstruct": "autoencoder"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "input.npy"


@pytest.mark.parametrize("verb", VERBS)
def test_the_file_holds_what_a_session_answers(verb: str, bundle: Bundle, source: Path):
    x = bundle.golden[bundle.manifest.stage(VERBS[verb]).inputs[0].name].astype(np.float32)
    np.save(source, x)
    written = run(bundle.path, verb, source, source.parent / "out.npy", runtime="torch")
    with open_session(bundle, runtime="torch") as session:
        np.testing.assert_array_equal(np.load(written), getattr(session, verb)(x))
    assert sorted(os.listdir(source.parent)) == ["input.npy", "out.npy"]


@pytest.mark.parametrize("shape", [(6, 20), (6, 4, 5), (6, 2, 5, 2), (0, 20)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_samples_of_their_own_shape_and_any_floating_type_are_taken(
    shape, dtype, dense_bundle: Bundle, source: Path
):
    x = np.random.default_rng(0).random(shape).astype(dtype)
    np.save(source, x)
    found = np.load(run(dense_bundle.path, "encode", source, source.parent / "z.npy"))
    assert found.shape == (shape[0], 7)
    with open_session(dense_bundle) as session:
        expected = session.encode(x.reshape(-1, 20).astype(np.float32))
    np.testing.assert_array_equal(found, expected)


def test_images_with_their_channels_last_or_left_out_are_taken(
    bundles: dict[str, Bundle], source: Path
):
    bundle = bundles["conv"]
    image = bundle.golden["input"]
    answers = []
    for x in (image, np.moveaxis(image, 1, -1), image[:, 0]):
        np.save(source, x)
        answers.append(np.load(run(bundle.path, "encode", source, source.parent / "z.npy")))
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_an_output_in_a_new_folder_is_written_and_an_old_one_replaced(
    dense_bundle: Bundle, source: Path
):
    np.save(source, np.zeros((1, 20), np.float32))
    target = source.parent / "new" / "z.npy"
    run(dense_bundle.path, "encode", source, target)
    np.save(source, np.zeros((2, 20), np.float32))
    assert len(np.load(run(dense_bundle.path, "encode", source, target))) == 2
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("shape", [(3, 21), (20,), (), (3, 4, 4), (0, 21)])
def test_an_array_of_another_shape_is_refused_with_both_shapes(
    shape, dense_bundle: Bundle, source: Path
):
    np.save(source, np.zeros(shape, np.float32))
    with pytest.raises(ArrayError) as caught:
        run(dense_bundle.path, "encode", source, source.parent / "z.npy")
    assert caught.value.got == f"float32{list(shape)}"
    assert caught.value.expected == "input: fp32[batch, 20]"
    assert os.listdir(source.parent) == ["input.npy"]


@pytest.mark.parametrize(
    ("dtype", "verb", "width"),
    [
        (np.int64, "encode", 20),
        (np.complex64, "encode", 20),
        ("U3", "encode", 20),
        (np.uint8, "decode", 7),  # a code is no image
    ],
)
def test_numbers_that_are_neither_floating_point_nor_images_are_refused(
    dtype, verb, width, dense_bundle, source: Path
):
    np.save(source, np.zeros((2, width), dtype))
    with pytest.raises(DataError, match="floating-point") as caught:
        run(dense_bundle.path, verb, source, source.parent / "z.npy")
    assert caught.value.got == np.dtype(dtype)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def _pickled(path: Path) -> None:
    np.save(path, np.array([Hostile()], dtype=object), allow_pickle=True)


def _archived(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.zeros((2, 20), np.float32))


def _cut(path: Path) -> None:
    np.save(path, np.zeros((2, 20), np.float32))
    path.write_bytes(path.read_bytes()[:-8])


def _header_cut(path: Path) -> None:
    np.save(path, np.zeros((2, 20), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(2, 20), }", b"(2, 20,   "))


def _declaring(shape: bytes):
    def write(path: Path) -> None:
        np.save(path, np.zeros((2, 20), np.float32))
        declared = b"(2, 20), }" + b" " * 20
        content = path.read_bytes()
        assert declared in content
        path.write_bytes(content.replace(declared, (shape + b", }").ljust(len(declared))))

    return write


NO_ARRAYS = {
    "pickle": _pickled,
    "npz": _archived,
    "cut": _cut,
    "cut header": _header_cut,
    "285 TiB": _declaring(b"(4000000000000, 20)"),
    "more than 64 bits": _declaring(b"(9999999999999999999999,)"),
    "negative": _declaring(b"(-2, -20)"),
    "empty": lambda path: path.write_bytes(b""),
    "zip": lambda path: path.write_bytes(b"PK\3\4"),
    "directory": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("write", NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_what_is_no_array_file_is_refused_and_nothing_in_it_runs(
    write, dense_bundle: Bundle, source: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(source.parent)
    write(source)
    with pytest.raises(DataError, match=r"not an \.npy array") as caught:
        run(dense_bundle.path, "encode", source, source.parent / "z.npy")
    assert caught.value.where == source
    assert not (source.parent / "pwned").exists()


def test_a_failed_write_leaves_the_old_output(dense_bundle: Bundle, source: Path, monkeypatch):
    np.save(source, np.zeros((1, 20), np.float32))
    target = run(dense_bundle.path, "encode", source, source.parent / "z.npy")
    before = target.read_bytes()

    def fail(file, array):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        run(dense_bundle.path, "encode", source, target)
    assert target.read_bytes() == before
    assert sorted(os.listdir(source.parent)) == ["input.npy", "z.npy"]


def test_an_input_may_be_its_own_output(dense_bundle: Bundle, source: Path):
    np.save(source, np.zeros((3, 20), np.float32))
    assert np.load(run(dense_bundle.path, "encode", source, source)).shape == (3, 7)


def test_other_faults_have_their_own_errors(dense_bundle: Bundle, source: Path):
    np.save(source, np.zeros((1, 20), np.float32))
    output = source.parent / "z.npy"
    with pytest.raises(UsageError, match="unknown verb"):
        run(dense_bundle.path, "classify", source, output)
    with pytest.raises(UsageError, match="unknown runtime"):
        run(dense_bundle.path, "encode", source, output, runtime="abacus")
    with pytest.raises(BundleError, match="not a bundle"):
        run(source, "encode", source, output)
    absent = [r.name for r in all_runtimes().values() if not r.availability().available]
    for name in absent:
        with pytest.raises(MissingRuntimeError):
            run(dense_bundle.path, "encode", source, output, runtime=name)
    assert not output.exists()
