"""tiedexport-run: a bundle and a .npy in, a .npy out."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from conftest import resign
from cpp_builds import BUNDLE, installed, needs_cpp
from msgspec.structs import replace

from tiedexport import __version__
from tiedexport.bundle import open_bundle
from tiedexport.session import open_session
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike

pytestmark = needs_cpp

X = np.random.default_rng(0).random((5, 6), dtype=np.float32)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    program = installed("shared") / "bin" / "tiedexport-run"
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)


def output(folder: Path, *words: object, bundle: Path = BUNDLE, x: ArrayLike = X) -> np.ndarray:
    np.save(folder / "x.npy", x)
    done = run(bundle, folder / "x.npy", folder / "y.npy", *words)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "y.npy")


def refusal(folder: Path, written: bytes, *words: object) -> str:
    """What it says of an input that holds these bytes, and no output is left."""
    (folder / "x.npy").write_bytes(written)
    done = run(BUNDLE, folder / "x.npy", folder / "y.npy", *words)
    assert done.returncode == 1
    assert [path.name for path in folder.iterdir()] == ["x.npy"]
    return done.stderr


def npy(array: ArrayLike, version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), version)
    return buffer.getvalue()


@pytest.mark.parametrize("stage", ["encoder", "decoder", "autoencoder"])
def test_stages_run_as_in_python(stage: str, tmp_path: Path) -> None:
    x = X[:, :2] if stage == "decoder" else X
    with open_session(BUNDLE, precision="fp32", threads=1) as session:
        expected = session.run(stage, x)
    got = output(tmp_path, "--stage", stage, "--precision=fp32", "--threads", 1, x=x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_options_reach_the_session(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    words = [BUNDLE, tmp_path / "x.npy", tmp_path / "y.npy", "--time", 5, "--check", "size"]
    done = run(
        *words, "--backend", "native", "--precision", "fp16", "--threads", 1, "--simd=scalar"
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("native fp16: ")
    assert "scalar" in first
    assert "1 thread" in first
    assert "median" in second
    assert "minimum" in second
    assert "5 calls" in second


def test_every_version_of_the_file_is_read(tmp_path: Path) -> None:
    expected = output(tmp_path)
    for version in ((1, 0), (2, 0), (3, 0)):
        (tmp_path / "x.npy").write_bytes(npy(X, version))
        assert run(BUNDLE, tmp_path / "x.npy", tmp_path / "y.npy").returncode == 0
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


@pytest.mark.parametrize("batch", [0, 1])
def test_a_batch_may_be_small(batch: int, tmp_path: Path) -> None:
    assert output(tmp_path, x=X[:batch]).shape == (batch, 6)


def with_io(bundle: Path, kind: Precision) -> None:
    """Make the stages of a bundle take and give another type; its graphs are then left behind."""
    manifest = open_bundle(bundle).manifest
    stages = tuple(
        replace(
            stage,
            inputs=tuple(replace(spec, dtype=kind) for spec in stage.inputs),
            outputs=tuple(replace(spec, dtype=kind) for spec in stage.outputs),
        )
        for stage in manifest.stages
    )
    resign(bundle, io_dtype=kind, stages=stages)


@pytest.mark.parametrize(("kind", "accuracy"), [("fp16", 2e-3), ("bf16", 2e-2)])
def test_half_types_are_read_and_written(kind: str, accuracy: float, tmp_path: Path) -> None:
    """What numpy calls V2 is bfloat16, whose name it does not know."""
    bundle = shutil.copytree(BUNDLE, tmp_path / "half.tied")
    with_io(bundle, Precision(kind))
    dtype = np.dtype(np.float16 if kind == "fp16" else ml_dtypes.bfloat16)
    expected = output(tmp_path, "--precision", "fp32")
    got = output(tmp_path, "--precision", "fp32", bundle=bundle, x=X.astype(dtype))
    assert got.dtype == (dtype if kind == "fp16" else np.dtype("V2"))
    np.testing.assert_allclose(got.view(dtype).astype(np.float32), expected, rtol=0, atol=accuracy)
    np.save(tmp_path / "x.npy", X)
    done = run(bundle, tmp_path / "x.npy", tmp_path / "y.npy")
    assert f"got: fp32\n  expected: {kind}" in done.stderr


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "it is no .npy file"),
        (b"\x93NUMPY\x07\x00", "its version is 7"),
        (npy(X)[:60], "it ends in its header"),
        (npy(X)[:-1], "got: 119 bytes of data\n  expected: 120 for [5, 6]"),
        (npy(X) + b"x", "got: 121 bytes of data"),
        (npy(X.astype(np.float64)), "its type is <f8"),
        (npy(X.astype(">f4")), "its type is >f4"),
        (npy(X.astype(np.float16)), "got: fp16\n  expected: fp32"),
        (npy(np.asfortranarray(X)), "Fortran order"),
        (npy(X[:, :5]), "got: [5, 5]\n  expected: [batch, 6]"),
        (npy(X[0]), "got: [6]\n  expected: [batch, 6]"),
        (npy(np.float32(1)), "got: []"),
        (npy(X).replace(b"(5, 6)", b"(5, x)"), "its shape is no tuple of numbers"),
        (npy(X).replace(b"'shape'", b"'shipe'"), "unknown entry: shipe"),
        (npy(X).replace(b"False", b"Maybe"), "lacks False"),
        (npy(X).replace(b"(5, 6), }" + b" " * 40, b"(" + b"9" * 40 + b",6), }  "), "too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_does_not_fit_is_refused(written: bytes, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, written)


def test_what_the_library_says_is_passed_on(tmp_path: Path) -> None:
    assert "unknown backend" in refusal(tmp_path, npy(X), "--backend", "nonsense")
    assert "no such stage" in refusal(tmp_path, npy(X), "--stage", "nonsense")
    done = run(tmp_path / "none.tied", tmp_path / "x.npy", tmp_path / "y.npy")
    assert done.returncode == 1
    assert "none.tied" in done.stderr


def test_a_folder_or_a_file_in_the_wrong_place_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    done = run(BUNDLE, tmp_path, tmp_path / "y.npy")
    assert done.returncode == 1
    assert "it is a folder" in done.stderr
    done = run(tmp_path / "x.npy", tmp_path / "x.npy", tmp_path / "y.npy")
    assert done.returncode == 1
    assert "got: a file\n  expected: a directory written by tiedexport build" in done.stderr


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    done = run(BUNDLE, tmp_path / "x.npy", tmp_path / "no" / "y.npy")
    assert done.returncode == 1
    assert "cannot write" in done.stderr


def test_a_former_output_is_replaced_whole_and_readable_to_others(tmp_path: Path) -> None:
    (tmp_path / "y.npy").write_bytes(b"former")
    output(tmp_path)
    assert (tmp_path / "y.npy").stat().st_mode & 0o777 == (
        tmp_path / "x.npy"
    ).stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "are needed"),
        (["a", "b", "c", "d"], "are needed"),
        (["--nonsense", "1"], "no such option: --nonsense"),
        (["--nonsense=1"], "no such option: --nonsense"),
        (["--nonsense"], "no such option: --nonsense"),
        (["--stage"], "--stage lacks its value"),
        (["--threads", "many"], "--threads takes a number"),
        (["--threads", "-1"], "--threads takes a number"),
        (["--time=0"], "--time takes a number from 1 on"),
        (["--check", "none"], "hash or size"),
    ],
)
def test_a_wrong_command_line_exits_with_2(words: list[str], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_what_nobody_asked_for_does_not_round(tmp_path: Path) -> None:
    """Whatever order the precisions were built in."""
    bundle = shutil.copytree(BUNDLE, tmp_path / "half-first.tied")
    resign(bundle, weights=dict(reversed(open_bundle(BUNDLE).manifest.weights.items())))
    np.save(tmp_path / "x.npy", X)
    done = run(bundle, tmp_path / "x.npy", tmp_path / "y.npy", "--time", 1)
    assert done.stdout.startswith("native fp32: "), done.stdout + done.stderr


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    """As a device does, which root could replace."""
    os.mkfifo(tmp_path / "pipe.npy")
    np.save(tmp_path / "x.npy", X)
    reader = os.open(tmp_path / "pipe.npy", os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = run(BUNDLE, tmp_path / "x.npy", tmp_path / "pipe.npy")
        assert done.returncode == 0, done.stderr
        assert np.load(io.BytesIO(os.read(reader, 1 << 16))).shape == X.shape
    finally:
        os.close(reader)
    assert (tmp_path / "pipe.npy").is_fifo()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "y.npy").symlink_to("elsewhere.npy")
    (tmp_path / "elsewhere.npy").touch()
    assert output(tmp_path).shape == X.shape
    assert (tmp_path / "y.npy").is_symlink()


def test_it_says_what_there_is() -> None:
    assert run("--version").stdout == f"tiedexport-run {__version__}\n"
    assert run("--help").stdout.startswith("usage: tiedexport-run")
    info = run("--info").stdout
    assert info.startswith(f"tiedexport {__version__}, ABI 1\n")
    assert "native: available" in info
    for backend in ("tensorrt", "onnxruntime"):
        assert f"  {backend}: " in info


def test_a_full_disk_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        program = installed("shared") / "bin" / "tiedexport-run"
        done = subprocess.run([program, "--info"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"standard output" in done.stderr
