"""A good bundle passes, every planted fault fails, and what did not run is never a success."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import handmade
import msgspec
import numpy as np
import pytest
import torch
from conftest import MODELS, make_checkpoint

from tiedexport import data as data_sets
from tiedexport import rating as module
from tiedexport.bundle import Bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.comparison import compare
from tiedexport.errors import BundleError, DataError, UsageError
from tiedexport.export import build
from tiedexport.results import VerifyResult
from tiedexport.rounding import Bounded
from tiedexport.runtimes import all_runtimes
from tiedexport.spec import Precision
from tiedexport.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

FP32, FP16, BF16 = Precision
ON_GRAPHS = ("onnxruntime", "reference")
STAGES = ("encoder", "decoder", "autoencoder")


def verdicts(result: VerifyResult) -> dict[tuple[str, str, Precision | None], str]:
    return {(row.runtime, row.stage, row.precision): row.status for row in result.comparisons}


# Good bundles.


def test_a_good_bundle_passes_in_every_runtime_stage_and_precision(bundle: Bundle):
    result = verify(bundle)
    assert result.passed
    assert result.missing == ()
    rows = verdicts(result)
    for name, row in all_runtimes().items():
        if not row.availability().available:
            assert rows[name, "", None] == "not run"
            continue
        for precision in Precision:
            if row.refusal(bundle, precision) is not None:
                assert rows[name, "", precision] == "not run"
                continue
            assert all(rows[name, stage, precision] == "passed" for stage in STAGES)
    assert result.ran == sum(status == "passed" for status in rows.values())


def test_each_row_has_its_figures_or_its_reason(dense_bundle: Bundle):
    for row in verify(dense_bundle).comparisons:
        if row.status == "not run":
            assert row.reason
            assert row.error_in_bounds is None
            continue
        assert row.accumulation is not None
        assert row.absolute_error >= 0
        assert row.bound > 0
        assert 0 <= row.error_in_bounds <= 1
        assert row.cosine == pytest.approx(1, abs=1e-3)
        assert row.psnr_db is None or row.psnr_db > 20
        assert (row.nan_count, row.inf_count) == (0, 0)
        assert len(row.worst_index) == 2


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp16,bf16"])
def test_a_bundle_without_fp32_weights_passes_too(checkpoints, precision: str, tmp_path: Path):
    build(checkpoints["dense"], tmp_path / "b.tied", precision=precision, target=())
    result = verify(tmp_path / "b.tied")
    assert result.passed
    assert result.ran >= 6


def test_reconstructions_are_pictures_of_the_samples_shape(bundles: dict[str, Bundle]):
    bundle = bundles["conv"]
    result = verify(bundle, runtime=["torch"])
    assert [row.precision for row in result.reconstructions] == list(Precision)
    for row in result.reconstructions:
        assert row.shape[1:] == bundle.manifest.sample_shape
        pixels = np.frombuffer(row.pixels, np.uint8).reshape(row.shape)
        golden = bundle.golden["reconstruction"][: len(pixels)].reshape(pixels.shape)
        assert np.max(np.abs(pixels / 255 - golden)) < 0.05


# The comparison itself.


def judged(output: np.ndarray, golden: np.ndarray, bound: float):
    bounded = Bounded(golden, np.full(golden.shape, bound))
    return compare(output, golden, bounded, "r", "encoder", FP32, FP32)


def test_an_error_of_exactly_its_bound_passes_and_the_next_number_fails():
    golden = np.array([[1.0, 0.0]])
    at_bound = judged(np.array([[1.0, 0.25]]), golden, 0.25)
    beyond = judged(np.array([[1.0, np.nextafter(0.25, 1)]]), golden, 0.25)
    assert (at_bound.status, at_bound.error_in_bounds) == ("passed", 1.0)
    assert beyond.status == "failed"
    assert beyond.reason == "1 outputs beyond their bound"
    assert beyond.worst_index == (0, 1)


def test_figures_are_what_their_names_say():
    golden = np.array([[3.0, 0.0], [4.0, -1.0]])
    output = golden + np.array([[0.3, 0.1], [0.0, 0.0]])
    row = judged(output, golden, 1.0)
    assert row.absolute_error == pytest.approx(0.3)
    assert row.relative_error == pytest.approx(0.1)
    assert row.error_in_bounds == pytest.approx(0.3)
    assert row.psnr_db == pytest.approx(20 * np.log10(5 / np.sqrt(0.1 / 4)))
    cosine = (output * golden).sum() / np.sqrt((output**2).sum() * (golden**2).sum())
    assert row.cosine == pytest.approx(cosine)


def test_an_output_of_another_shape_fails_and_is_not_broadcast():
    row = judged(np.ones((2, 1)), np.ones((2, 3)), 1.0)
    assert row.status == "failed"
    assert row.reason == "output of shape [2, 1], expected [2, 3]"


# Stages and precisions.


def test_stages_and_precisions_that_are_not_asked_for_are_left_out(dense_bundle: Bundle):
    result = verify(dense_bundle, runtime=["torch"], stage=["decoder"], precision="bf16,fp32")
    assert list(verdicts(result)) == [("torch", "decoder", BF16), ("torch", "decoder", FP32)]
    assert result.passed
    assert (result.quality, result.reconstructions, result.layers) == ((), (), ())


def test_an_unknown_stage_or_precision_is_an_error(dense_bundle: Bundle):
    with pytest.raises(BundleError, match="no such stage"):
        verify(dense_bundle, stage=["middle"])
    with pytest.raises(UsageError, match="unknown precision"):
        verify(dense_bundle, precision="fp8")


def test_what_a_runtime_remarks_stands_in_each_of_its_rows(dense_bundle: Bundle, monkeypatch):
    monkeypatch.setattr(type(all_runtimes()["torch"]), "remark", "by hand")
    result = verify(dense_bundle, runtime=["torch", "reference"], precision="fp16", layers=True)
    rows = (*result.comparisons, *result.layers, *result.quality, *result.reconstructions)
    assert {(row.runtime, row.remark) for row in rows} == {("torch", "by hand"), ("reference", "")}


# Nothing that did not run is a success.


def unavailable() -> list[str]:
    return [r.name for r in all_runtimes().values() if not r.availability().available]


def test_a_verify_in_which_nothing_ran_has_not_passed(dense_bundle: Bundle):
    absent = unavailable() or pytest.skip("every runtime is available here")
    result = verify(dense_bundle, runtime=absent)
    assert result.ran == 0
    assert not result.passed
    assert all(row.status == "not run" and row.reason for row in result.comparisons)


def test_a_required_runtime_that_did_not_run_is_missing(dense_bundle: Bundle):
    absent = unavailable() or pytest.skip("every runtime is available here")
    result = verify(dense_bundle, runtime=["torch"], require=["torch", absent[0]])
    assert result.missing == (absent[0],)
    assert not result.passed
    assert {row.runtime for row in result.comparisons} == {"torch", absent[0]}


def test_a_required_runtime_that_ran_is_not_missing(dense_bundle: Bundle):
    assert verify(dense_bundle, runtime=["torch"], require=["reference"]).passed


@pytest.mark.parametrize("argument", ["runtime", "require"])
def test_an_unknown_runtime_is_an_error_of_usage(dense_bundle: Bundle, argument: str):
    with pytest.raises(UsageError, match="unknown runtime"):
        verify(dense_bundle, **{argument: ["abacus"]})


# The test set.


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, np.ndarray, torch.nn.Module]:
    """A bundle whose checkpoint records its data; the test samples; the model."""
    source = tmp_path / "images.npy"
    np.save(source, np.random.default_rng(0).random((700, 4, 5)).astype(np.float32))
    data = data_sets.load(source, train=20)
    record = msgspec.structs.replace(handmade.training_record(), data=data.record)
    checkpoint = dataclasses.replace(
        make_checkpoint(*MODELS["dense"]), sample_shape=(4, 5), training=record
    )
    save_checkpoint(tmp_path / "m.pt", checkpoint)
    build(tmp_path / "m.pt", target=(), precision="fp32,fp16")
    return tmp_path / "m.tied", data.test, checkpoint.module()


def test_every_runtime_is_rated_on_the_test_set_that_training_held_back(trained):
    path, samples, model = trained
    assert len(samples) > 256
    result = verify(path)
    assert result.passed
    rated = {(row.runtime, row.precision): row for row in result.quality}
    assert {(r.runtime, r.precision) for r in result.comparisons if r.stage} == set(rated)
    for (name, precision), row in rated.items():
        used = samples[:64] if all_runtimes()[name].slow else samples
        x = torch.from_numpy(used.reshape(len(used), -1)).double()
        rmse = float(((model.double()(x) - x) ** 2).mean().sqrt())
        assert row.status == "passed"
        assert row.samples == len(used)
        # Each reconstruction is off by its rounding; an RMSE by no more than the RMS of those.
        assert row.test_rmse == pytest.approx(rmse, abs=32 * precision.unit_roundoff)
        assert row.test_psnr_db == pytest.approx(10 * np.log10(1.0 / row.test_rmse**2))


def test_an_exact_reconstruction_has_no_signal_to_noise_ratio():
    assert module.psnr_db(0.0) is None
    assert module.psnr_db(0.01) == pytest.approx(40.0)


def test_a_test_set_that_is_gone_or_changed_is_not_run_and_says_what_to_pass(trained):
    path = trained[0]
    source = path.parent / "images.npy"
    np.save(source, np.load(source) * 0.5)
    for change in (lambda: None, source.unlink):
        change()
        result = verify(path, runtime=["torch"])
        assert result.passed
        assert {row.status for row in result.quality} == {"not run"}
        assert all("--data" in row.reason for row in result.quality)


def test_data_given_by_hand_is_used_and_its_faults_are_errors(trained, tmp_path: Path):
    path = trained[0]
    other = tmp_path / "other.npy"
    np.save(other, np.zeros((10, 20), np.float32))
    (row, *_) = verify(path, runtime=["torch"], data=other).quality
    assert (row.status, row.samples) == ("passed", 1)
    np.save(other, np.zeros((10, 21), np.float32))
    with pytest.raises(DataError, match="does not fit the model"):
        verify(path, runtime=["torch"], data=other)
    with pytest.raises(DataError):
        verify(path, runtime=["torch"], data=tmp_path / "missing.npy")


def test_a_reconstruction_that_is_not_finite_fails_the_rating(trained, monkeypatch):
    monkeypatch.setattr(module, "_rmse", lambda reconstruct, samples: float("nan"))
    result = verify(trained[0], runtime=["torch"])
    assert {row.status for row in result.quality} == {"failed"}
    assert not result.passed


def test_a_bundle_without_a_training_record_is_not_rated_and_says_so(dense_bundle: Bundle):
    assert all(
        row.status == "not run" and "--data" in row.reason
        for row in verify(dense_bundle, runtime=["torch"]).quality
    )
