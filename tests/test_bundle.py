"""Opening refuses every alteration before anything is parsed; writing is all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors
from conftest import resign
from hypothesis import given, settings
from hypothesis import strategies as st

from tiedexport.bundle import (
    MANIFEST,
    Bundle,
    file_sha256,
    open_bundle,
)
from tiedexport.errors import BundleError, UsageError
from tiedexport.manifest import FileRecord, PlanRecord, decode_manifest
from tiedexport.session import open_session
from tiedexport.spec import Precision

PLAN = "plans/rtx/encoder.fp16.plan"
BUNDLE_FILES = (
    MANIFEST,
    "golden.npz",
    PLAN,
    *(f"weights.{p}.safetensors" for p in Precision),
    *(f"{s}.{p}.onnx" for s in ("encoder", "decoder", "autoencoder") for p in Precision),
)


@pytest.fixture(scope="module")
def whole_bundle(dense_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with every kind of file; its plan is bytes that no runtime has to understand."""
    path = Path(shutil.copytree(dense_bundle.path, tmp_path_factory.mktemp("whole") / "dense.tied"))
    (path / PLAN).parent.mkdir(parents=True)
    (path / PLAN).write_bytes(bytes(range(256)) * 4)
    plan = PlanRecord(
        file=PLAN,
        stage="encoder",
        precision=Precision.FP16,
        target="rtx",
        package="tensorrt_rtx",
        package_version="1.7",
        compute_capabilities=(89,),
        weights="shared",
        bindings=(),
        graph_sha256="0" * 64,
    )
    files = dense_bundle.manifest.files | {PLAN: FileRecord(1024, file_sha256(path / PLAN))}
    resign(path, plans=(plan,), files=files)
    return open_bundle(path)


@pytest.fixture
def copied(whole_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_bundle.path, tmp_path / "copy.tied"))


@pytest.fixture
def copied_without_plan(dense_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dense_bundle.path, tmp_path / "copy.tied"))


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever parses a file of the bundle in this test fails it."""

    def parse(*args: object, **kwargs: object) -> None:
        pytest.fail(f"parsed before it was checked: {args}")

    monkeypatch.setattr(np, "load", parse)
    monkeypatch.setattr(np, "memmap", parse)
    monkeypatch.setattr(safetensors, "safe_open", parse)
    monkeypatch.setattr(onnxruntime, "InferenceSession", parse)


# Tampering.


@st.composite
def alterations(draw: st.DrawFn, original: bytes) -> bytes:
    """Other bytes than the original: a range flipped, cut, replaced, doubled or put in between."""
    begin = draw(st.integers(0, len(original) - 1))
    end = draw(st.integers(begin + 1, min(len(original), begin + 64)))
    head, middle, tail = original[:begin], original[begin:end], original[end:]
    kind = draw(st.sampled_from(["flip", "cut", "truncate", "replace", "insert", "append"]))
    if kind == "flip":
        mask = draw(st.integers(1, 255))
        return head + bytes(byte ^ mask for byte in middle) + tail
    if kind == "cut":
        return head + tail
    if kind == "truncate":
        return head
    new = draw(st.binary(min_size=1, max_size=64))
    altered = {
        "replace": head + new + tail,
        "insert": head + new + middle + tail,
        "append": original + new,
    }[kind]
    return altered if altered != original else original + b"\0"


def test_the_list_of_files_below_is_all_that_a_bundle_holds(whole_bundle):
    files = [path for path in whole_bundle.path.rglob("*") if path.is_file()]
    found = {path.relative_to(whole_bundle.path).as_posix() for path in files}
    assert found == set(BUNDLE_FILES)
    assert set(whole_bundle.manifest.files) == found - {MANIFEST}


@pytest.mark.parametrize("name", BUNDLE_FILES)
@pytest.mark.usefixtures("no_parser")
def test_any_altered_bytes_of_any_file_are_refused_before_a_parser_sees_them(
    name: str, whole_bundle: Bundle
):
    original = (whole_bundle.path / name).read_bytes()

    @settings(max_examples=15, deadline=None, database=None)
    @given(altered=alterations(original))
    def refused(altered: bytes) -> None:
        (folder / name).write_bytes(altered)
        with pytest.raises(BundleError):
            open_bundle(folder)

    with tempfile.TemporaryDirectory() as parent:
        folder = Path(shutil.copytree(whole_bundle.path, Path(parent) / "altered.tied"))
        refused()


@pytest.mark.parametrize("name", BUNDLE_FILES)
@pytest.mark.usefixtures("no_parser")
def test_a_missing_file_is_named(name: str, copied: Path):
    (copied / name).unlink()
    with pytest.raises(BundleError) as caught:
        open_bundle(copied)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", BUNDLE_FILES)
@pytest.mark.usefixtures("no_parser")
def test_a_link_is_refused_even_to_a_file_with_the_right_bytes(name: str, copied: Path):
    outside = copied.parent / "outside"
    (copied / name).rename(outside)
    (copied / name).symlink_to(outside)
    with pytest.raises(BundleError, match="a link or special file"):
        open_bundle(copied)


@pytest.mark.usefixtures("no_parser")
def test_a_link_to_a_directory_is_refused_even_with_the_right_files_behind_it(
    copied_without_plan: Path,
):
    outside = copied_without_plan.parent / "outside"
    outside.mkdir()
    (outside / "e.plan").write_bytes(b"engine")
    (copied_without_plan / "plans").symlink_to(outside)
    files = dict(
        decode_manifest((copied_without_plan / MANIFEST).read_bytes(), copied_without_plan).files
    )
    files["plans/e.plan"] = FileRecord(6, file_sha256(outside / "e.plan"))
    resign(copied_without_plan, files=files)
    with pytest.raises(BundleError, match="a link or special file"):
        open_bundle(copied_without_plan)


@pytest.mark.usefixtures("no_parser")
def test_a_directory_or_a_pipe_in_the_place_of_a_file_is_refused(copied: Path):
    (copied / "golden.npz").unlink()
    (copied / "golden.npz").mkdir()
    with pytest.raises(BundleError, match="a directory where a file should be"):
        open_bundle(copied)
    (copied / "golden.npz").rmdir()
    os.mkfifo(copied / "golden.npz")
    with pytest.raises(BundleError, match="a link or special file"):
        open_bundle(copied)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../outside", "a/../../outside", "/etc/passwd", "a//b", "./a", "a/", "a\\b",
     "c:a", "a\0b"],
)  # fmt: skip
@pytest.mark.usefixtures("no_parser")
def test_a_file_name_that_could_leave_the_bundle_is_refused_in_a_signed_manifest(
    name: str, copied: Path
):
    files = dict(decode_manifest((copied / MANIFEST).read_bytes(), copied).files)
    resign(copied, files=files | {name: FileRecord(0, "0" * 64)})
    with pytest.raises(BundleError, match="could leave the bundle"):
        open_bundle(copied)


@pytest.mark.usefixtures("no_parser")
def test_every_file_that_the_manifest_names_must_have_a_digest(copied: Path):
    resign(copied, golden="other.npz")
    with pytest.raises(BundleError, match=r"files without a digest[^$]*other\.npz"):
        open_bundle(copied)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None])
def test_what_is_no_bundle_is_refused_with_the_command_that_makes_one(make, tmp_path: Path):
    make(tmp_path / "x.tied")
    with pytest.raises(BundleError, match="not a bundle") as caught:
        open_bundle(tmp_path / "x.tied")
    assert "tiedexport build" in str(caught.value.hint)


# What does not matter.


def test_unlisted_files_do_not_matter(copied: Path):
    (copied / "NOTES.txt").write_text("mine")
    assert open_bundle(copied).manifest.name == "dense"


def test_size_check_sees_a_cut_file_but_not_flipped_bits(copied: Path):
    path = copied / "encoder.fp32.onnx"
    flipped = bytes(byte ^ 1 for byte in path.read_bytes())
    path.write_bytes(flipped)
    assert open_bundle(copied, check="size").manifest.name == "dense"
    path.write_bytes(flipped[:-1])
    with pytest.raises(BundleError, match="wrong size"):
        open_bundle(copied, check="size")


def test_an_unknown_check_is_an_error_of_usage(whole_bundle: Bundle):
    with pytest.raises(UsageError, match="unknown check"):
        open_bundle(whole_bundle.path, check="none")


def test_a_moved_bundle_opens_and_runs(copied: Path, tmp_path: Path):
    moved = tmp_path / "else where" / "b"
    moved.parent.mkdir()
    copied.rename(moved)
    with open_session(moved, runtime="onnxruntime", precision="fp32", threads=1) as session:
        golden = session.bundle.golden
        np.testing.assert_allclose(session.encode(golden["input"]), golden["code"], atol=1e-5)
