"""Bundles of several types, from the checkpoint to every runtime: chosen, or kept in fp32."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import make_checkpoint, needs_rtx, resign

from tiedexport.audit import audit
from tiedexport.bundle import open_bundle, safetensors_layout
from tiedexport.checkpoint import save_checkpoint
from tiedexport.errors import UsageError
from tiedexport.export import build
from tiedexport.rounding import forward
from tiedexport.runtimes import choose_precision, runtime_named
from tiedexport.session import open_session
from tiedexport.spec import Precision
from tiedexport.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.results import BuildResult, VerifyResult

FP32, FP16, BF16 = Precision
FIRST, SECOND, THIRD = (f"layers.{i}.weight" for i in range(3))
FIELDS = {"widths": [40, 26, 18, 9], "output": "linear", "code": "linear"}

SCALES = {
    "fine": {},
    # A hidden activation of 1e5, and one of 1e-6, which the layer behind brings back.
    "huge": {
        FIRST: 5e4,
        "layers.0.encoder_bias": 5e4,
        SECOND: 2e-5,
        "layers.1.decoder_bias": 2e-5,
    },
    "tiny": {
        FIRST: 1e-6,
        "layers.0.encoder_bias": 1e-6,
        SECOND: 1e3,
        "layers.1.encoder_bias": 1e-3,
        "layers.2.encoder_bias": 1e-3,
        "layers.2.decoder_bias": 1e-3,
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for name, scales in SCALES.items():
        checkpoint = make_checkpoint("autoencoder", FIELDS)
        for tensor, scale in scales.items():
            checkpoint.state[tensor].mul_(scale)
        save_checkpoint(folder / f"{name}.pt", checkpoint)
    return {name: folder / f"{name}.pt" for name in SCALES}


BUILDS = {
    "fine, auto": ("fine", {"precision": "auto"}),
    "huge, auto": ("huge", {"precision": "auto"}),
    "tiny, auto": ("tiny", {"precision": "auto"}),
    "huge, kept": ("huge", {"precision": "fp32,fp16", "keep_fp32": [FIRST, SECOND]}),
    "huge, kept alone": ("huge", {"precision": "fp16", "keep_fp32": [FIRST, SECOND]}),
    "huge, fp16": ("huge", {"precision": "fp32,fp16"}),
    "tiny, fp16": ("tiny", {"precision": "fp32,fp16"}),
}
GOOD = [name for name in BUILDS if not name.endswith("fp16")]


@pytest.fixture(scope="module")
def built(
    models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, quick_export: None
) -> dict[str, tuple[Bundle, BuildResult]]:
    folder, found = tmp_path_factory.mktemp("bundles"), {}
    for name, (model, options) in BUILDS.items():
        path = folder / f"{name.replace(', ', '-')}.tied"
        result = build(models[model], path, target=(), **options)
        found[name] = open_bundle(path), result
    return found


def rows(result: VerifyResult, runtime: str, precision: Precision) -> dict[str, str]:
    return {
        row.stage: f"{row.status} {row.reason}".strip()
        for row in result.comparisons
        if (row.runtime, row.precision) == (runtime, precision)
    }


# What is in the bundle.


@pytest.mark.parametrize(
    ("name", "precisions", "kept"),
    [
        ("fine, auto", (FP32, FP16), {}),
        ("huge, auto", (FP32, BF16), {BF16: {THIRD: FP16}}),
        ("tiny, auto", (FP32, BF16), {BF16: {THIRD: FP16}}),
        ("huge, kept", (FP32, FP16), {FP16: {FIRST: FP32, SECOND: FP32}}),
        ("huge, kept alone", (FP16,), {FP16: {FIRST: FP32, SECOND: FP32}}),
    ],
)
def test_a_bundle_says_what_it_keeps_in_which_type_and_stores_it_so(built, name, precisions, kept):
    manifest = built[name][0].manifest
    assert (manifest.precisions, manifest.kept) == (precisions, kept)
    for precision in precisions:
        layout = safetensors_layout(built[name][0].weights_path(precision))
        for i, weight in enumerate((FIRST, SECOND, THIRD)):
            kind = kept.get(precision, {}).get(weight, precision)
            names = (weight, f"layers.{i}.encoder_bias", f"layers.{i}.decoder_bias")
            assert [layout[name][0] for name in names] == [kind] * 3


@pytest.mark.parametrize("name", BUILDS)
def test_a_build_reports_its_evidence_where_it_chose(built, name):
    choice = built[name][1].precision_choice
    assert [tie.weights for tie in choice] == [(w,) for w in (FIRST, SECOND, THIRD)] * (
        "auto" in name
    )


@pytest.mark.parametrize("name", GOOD)
def test_every_runtime_agrees_with_a_bundle_of_several_types(built, name):
    bundle = built[name][0]
    result = verify(bundle)
    assert result.passed
    base = bundle.manifest.precisions[-1]
    for runtime in ("torch", "reference"):
        verdicts = rows(result, runtime, base)
        assert set(verdicts.values()) == {"passed"}
        assert len(verdicts) == 3


@pytest.mark.parametrize("name", ["huge, auto", "huge, kept"])
def test_onnx_runtime_runs_it_where_it_has_all_types_and_says_which_it_has_not(built, name):
    bundle = built[name][0]
    base = bundle.manifest.precisions[-1]
    verdicts = rows(verify(bundle, runtime=["onnxruntime"]), "onnxruntime", base)
    if base is FP16:
        assert set(verdicts.values()) == {"passed"}
    else:
        assert all(verdict.startswith("not run") for verdict in verdicts.values())


@pytest.mark.parametrize("name", GOOD)
def test_a_bundle_of_several_types_holds_each_weight_once(built, name):
    result = audit(built[name][0].path)
    counted = [stage for stage in result.stages if stage.counts]
    assert {stage.status for stage in counted} <= {"one copy", "not run"}
    files = next(stage for stage in result.stages if stage.name == "ONNX files")
    assert files.status == "one copy"


# What it is good for.


def test_fp16_without_a_choice_overflows(built):
    result = verify(built["huge, fp16"][0], runtime=["torch"])
    verdicts = rows(result, "torch", FP16)
    assert verdicts["encoder"].startswith("failed")
    assert "may overflow fp16" in verdicts["encoder"]
    assert set(rows(result, "torch", FP32).values()) == {"passed"}


@pytest.mark.parametrize(("name", "good"), [("tiny, fp16", False), ("tiny, auto", True)])
def test_fp16_without_a_choice_loses_the_digits_of_tiny_numbers(built, name, good):
    bundle = built[name][0]
    stage, x = bundle.manifest.stage("encoder"), bundle.golden["input"].astype(np.float32)
    exact = forward(stage.layers, bundle.weights(FP32), x)
    base = bundle.manifest.precisions[-1]
    with open_session(bundle, runtime="torch", precision=base, threads=1) as session:
        error = float(np.abs(session.encode(x) - exact).max() / np.abs(exact).max())
    assert (error < 4 * BF16.unit_roundoff) is good


def test_a_runtime_without_one_of_the_types_refuses_by_its_name(built, tmp_path):
    path = tmp_path / "b.tied"
    shutil.copytree(built["huge, kept"][0].path, path)
    resign(path, kept={FP16: {SECOND: BF16}})
    bundle = open_bundle(path)
    chosen, reason = choose_precision(runtime_named("onnxruntime"), bundle, FP16)
    assert chosen is None
    assert reason == f"it has no bf16 kernels, and {SECOND} is in bf16"
    assert choose_precision(runtime_named("torch"), bundle, FP16) == (FP16, "")


@needs_rtx
@pytest.mark.parametrize("name", ["huge, auto", "huge, kept"])
@pytest.mark.parametrize("weights", ["shared", "baked", "one-plan"])
def test_tensorrt_rtx_builds_engines_of_several_types(built, tmp_path, name, weights):
    plain = built[name][0].path
    result = build(plain, tmp_path / "b.tied", target=["rtx:sm89"], weights=weights)
    assert result.passed
    assert {engine.status for engine in result.engines} == {"passed"}
    bundle = open_bundle(tmp_path / "b.tied")
    assert bundle.manifest.kept
    kinds = {(b.name, b.dtype) for plan in bundle.manifest.plans for b in plan.bindings}
    if weights == "shared":
        base = bundle.manifest.precisions[-1]
        kept = bundle.manifest.kept[base]
        assert {(w, kept.get(w, base)) for w in (FIRST, SECOND, THIRD)} <= kinds
    evaluated = verify(bundle, runtime=["tensorrt_network"])
    assert evaluated.passed
    assert set(rows(evaluated, "tensorrt_network", bundle.manifest.precisions[-1]).values()) == {
        "passed"
    }


# Mistakes.


@pytest.mark.parametrize("precision", ["auto", "fp16"])
def test_an_unknown_name_is_refused_and_leaves_nothing_behind(models, tmp_path, precision):
    with pytest.raises(UsageError, match="no weight of this model") as caught:
        build(
            models["fine"],
            tmp_path / "b.tied",
            precision=precision,
            keep_fp32=["layers.7.weight"],
            target=(),
        )
    assert FIRST in caught.value.expected
    assert not list(tmp_path.iterdir())
