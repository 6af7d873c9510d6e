"""`verify` with Polygraphy's files: what they hold is judged, and stands in for nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command_line import tiedexport
from msgspec import structs
from polygraphy.comparator import RunResults

from tiedexport import layerwise
from tiedexport import verify as module
from tiedexport.errors import DataError, MissingRuntimeError, UsageError
from tiedexport.runtimes import runtime_named
from tiedexport.spec import Precision
from tiedexport.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tiedexport.bundle import Bundle

FP32, FP16, BF16 = Precision


def golden_run(bundle: Bundle, stage: str, precision: Precision) -> dict[str, np.ndarray]:
    """The right output of every layer of a stage."""
    rows = layerwise.expected(bundle, bundle.manifest.stage(stage), precision, precision)
    return {row.name: row.golden.astype(np.float32) for row in rows}


@pytest.mark.parametrize("option", ["save_inputs", "save_outputs", "load_outputs"])
def test_without_polygraphy_it_says_what_to_install_before_anything_runs(
    dense_bundle: Bundle, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy.comparator", None)
    monkeypatch.setattr(module, "open_session", None)
    with pytest.raises(MissingRuntimeError, match="pip install polygraphy"):
        verify(dense_bundle, **{option: tmp_path / "o.json"})
    assert list(tmp_path.iterdir()) == []


def saved(path: Path, runner: str, outputs: dict[str, np.ndarray]) -> Path:
    results = RunResults()
    results.add([outputs], runner_name=runner)
    results.save(str(path))
    return path


@pytest.mark.parametrize(
    ("runner", "asked", "precision", "accumulation"),
    [
        ("onnxruntime fp16", "", FP16, FP32),
        ("somebody's fp16", "", FP16, FP16),
        ("a stranger", "", FP32, FP32),
        ("a stranger", "bf16", BF16, BF16),
        ("a stranger", "fp32,fp16", FP32, FP32),
    ],
)
def test_loaded_outputs_are_judged_by_what_their_runner_says(
    dense_bundle: Bundle, tmp_path: Path, runner, asked, precision, accumulation
) -> None:
    file = saved(tmp_path / "o.json", runner, golden_run(dense_bundle, "autoencoder", FP32))
    result = verify(
        dense_bundle, runtime=["torch"], precision=asked, layers=True, load_outputs=file
    )
    assert result.passed
    (row,) = (row for row in result.comparisons if row.remark == "from o.json")
    assert row.runtime == runner.removesuffix(" fp16")
    assert (row.stage, row.precision, row.accumulation) == (
        "autoencoder",
        precision,
        accumulation,
    )
    names = [layer.output for layer in dense_bundle.manifest.stage("autoencoder").layers]
    assert [row.layer for row in result.layers if row.remark == "from o.json"] == names


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda y: y + 1, "outputs beyond their bound"),
        (lambda y: y[:, :-1], "output of shape"),
        (lambda y: y * np.float32("nan"), "not finite"),
    ],
)
def test_loaded_outputs_that_are_wrong_fail(
    dense_bundle: Bundle, tmp_path: Path, spoil: Callable, words: str
) -> None:
    outputs = golden_run(dense_bundle, "encoder", FP32)
    file = saved(tmp_path / "o.json", "torch fp32", outputs | {"code": spoil(outputs["code"])})
    result = verify(
        dense_bundle, runtime=["torch"], stage=["encoder"], layers=True, load_outputs=file
    )
    assert result.failed
    (row,) = (row for row in result.comparisons if row.status == "failed")
    assert (row.remark, words in row.reason) == ("from o.json", True)
    assert [(row.layer, row.remark) for row in result.strays] == [("code", "from o.json")]


def test_loaded_outputs_of_another_stage_are_an_error_that_says_which(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    outputs = {"code": golden_run(dense_bundle, "encoder", FP32)["code"]}
    file = saved(tmp_path / "o.json", "torch fp32", outputs)
    with pytest.raises(DataError, match="--stage encoder") as caught:
        verify(dense_bundle, runtime=["torch"], load_outputs=file)
    assert (caught.value.got, caught.value.expected) == ("code", "reconstruction")


def test_a_file_does_not_stand_in_for_a_runtime_that_is_required(
    dense_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "o.json"
    verify(dense_bundle, runtime=["torch"], precision="fp32", save_outputs=file)
    row = type(runtime_named("torch"))
    absent = structs.replace(runtime_named("torch").availability(), available=False, reason="gone")
    monkeypatch.setattr(row, "availability", lambda self: absent)
    result = verify(dense_bundle, runtime=["torch"], require=["torch"], load_outputs=file)
    assert result.ran == 1
    assert result.missing == ("torch",)
    assert not result.passed


@pytest.mark.parametrize("option", ["save_inputs", "save_outputs", "load_outputs"])
def test_several_stages_do_not_go_into_one_file(
    dense_bundle: Bundle, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_session", None)  # so that nothing can run before
    with pytest.raises(UsageError, match="several stages"):
        verify(dense_bundle, stage=["encoder", "decoder"], **{option: tmp_path / "i.json"})
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_over_no_input_and_over_no_bundle(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    before_that = saved(tmp_path / "o.json", "torch fp32", {"y": np.ones(3)}).read_bytes()
    manifest = dense_bundle.path / "manifest.json"
    before = manifest.read_bytes()
    for option, place in (("--save-outputs", "o.json"), ("--save-outputs", manifest)):
        call = ("verify", dense_bundle.path, "--load-outputs", "o.json", option, place)
        done = tiedexport(*call, cwd=tmp_path)
        assert done.returncode == UsageError.exit_code, done.stderr
        assert "would overwrite" in done.stderr
    assert manifest.read_bytes() == before
    assert (tmp_path / "o.json").read_bytes() == before_that
