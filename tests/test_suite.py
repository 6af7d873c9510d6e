"""The standing matrix: every model is built, measured and kept, but no path of this machine."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import handmade
import msgspec
import pytest
from msgspec.structs import replace

from tiedexport import environment
from tiedexport import suite as module
from tiedexport.bundle import open_bundle
from tiedexport.errors import UsageError
from tiedexport.results.suite import SuiteResult
from tiedexport.suite import MODELS, suite


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(module, "MODELS", {"one": (12, 5), "two": (9, 6, 3)})


def test_the_models_are_the_two_stacks_and_layers_of_1_16_and_256_mib():
    recipes = Path(__file__).parent.parent / "models"
    for name in ("digits", "hinton2006"):
        assert f"widths = {list(MODELS[name])}" in (recipes / f"{name}.toml").read_text()
    for mib in (1, 16, 256):
        (layer,) = pairwise(MODELS[f"layer-{mib}"])
        assert 4 * layer[0] * layer[1] == mib << 20


def test_every_model_is_built_measured_and_kept(tmp_path, tiny, quick_export):
    result, path = suite(
        tmp_path / "results",
        models=("one", "two"),
        bundles=tmp_path / "kept",
        runtime=("onnxruntime",),
        batch=(1, 2),
        warmup_ms=0,
        duration_s=0,
        iterations=1,
    )
    assert result.passed
    text = path.read_text()
    assert str(tmp_path) not in text
    kept = msgspec.json.decode(text, type=SuiteResult)
    assert kept == result
    assert json.loads(text)["passed"] is True
    assert [(m.name, m.widths, m.weight_bytes) for m in kept.models] == [
        ("one", (12, 5), 4 * 60),
        ("two", (9, 6, 3), 4 * (54 + 18)),
    ]
    for model in kept.models:
        ran = {(r.precision.value, r.batch) for r in model.bench.latencies if r.status == "passed"}
        assert ran == {(precision, batch) for precision in ("fp32", "fp16") for batch in (1, 2)}
    assert path.name == f"{environment.cpu_slug(kept.environment.cpu)}-1.json"
    assert kept.commit == environment.commit(tmp_path / "results")
    assert open_bundle(tmp_path / "kept" / "two.tied").manifest.config["widths"] == [9, 6, 3]


def test_bundles_that_are_kept_are_not_built_again_unless_they_are_others(
    tmp_path, tiny, monkeypatch
):
    built = []
    monkeypatch.setattr(module.export, "build", lambda checkpoint, path, **_: built.append(path))
    monkeypatch.setattr(module, "bench", lambda *_, **__: handmade.bench_result("/where/it/lay"))
    bundle = handmade.bundle(tmp_path / "kept" / "one.tied")
    other = module.MODELS | {"one": tuple(bundle.manifest.config["widths"])}
    monkeypatch.setattr(module, "MODELS", other)
    result, _ = suite(tmp_path / "results", models=("one", "two"), bundles=tmp_path / "kept")
    assert built == [tmp_path / "kept" / "two.tied"]
    assert [model.bench.bundle for model in result.models] == ["one.tied", "two.tied"]
    monkeypatch.setattr(module, "MODELS", other | {"one": (4, 2)})
    suite(tmp_path / "results", models=("one",), bundles=tmp_path / "kept")
    assert built[-1] == tmp_path / "kept" / "one.tied"


def test_a_failure_in_any_model_is_the_suite_s(tmp_path, tiny, monkeypatch):
    fine = handmade.bench_result()
    row = replace(fine.latencies[0], status="failed", reason="out of memory")
    results = iter([fine, replace(fine, latencies=(row,))])
    monkeypatch.setattr(module, "untrained_bundle", lambda folder, name, _: name)
    monkeypatch.setattr(module, "bench", lambda *_, **__: next(results))
    result, _ = suite(tmp_path, models=("one", "two"))
    assert result.failed
    assert not result.passed


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": ("digits", "nonesuch")},
        {"models": ()},
        {"runtime": ("abacus",)},
        {"batch": (0,)},
        {"threads": 0},
        {"duration_s": -1.0},
    ],
)
def test_a_mistake_is_refused_before_anything_is_built(tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(module, "untrained_bundle", lambda *_: pytest.fail("built"))
    with pytest.raises(UsageError):
        suite(tmp_path / "results", **wrong)
    assert not (tmp_path / "results").exists()
