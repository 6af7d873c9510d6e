"""What the key of an engine holds, and what it holds off."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import needs_rtx
from fake_engines import TARGET, FakeBuilder, only_builder

import tiedexport
from tiedexport import trt
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import MissingRuntimeError
from tiedexport.export import build
from tiedexport.manifest import PlanRecord
from tiedexport.results import Availability

ONE, FOUR = ((1, 1, 1),), ((4, 4, 4),)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    return only_builder(monkeypatch)


@pytest.fixture
def path(dense_bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle without engines."""
    return Path(shutil.copytree(dense_bundle.path, tmp_path / "b.tied"))


def plans(path: Path, target: str = TARGET) -> tuple[PlanRecord, ...]:
    return tuple(plan for plan in open_bundle(path).manifest.plans if plan.target == target)


@pytest.mark.parametrize(
    ("profiles", "weights", "built"),
    [
        (FOUR, "baked", 0),
        (ONE, "baked", 3),
        ((*FOUR, *ONE), "baked", 3),
        (ONE, "one-plan", 0),
    ],
)
def test_insisting_on_profiles_counts_only_where_one_is_of_batch_one(
    profiles: tuple, weights: str, built: int, path: Path, builder: FakeBuilder
):
    ask = {"target": [TARGET], "precision": "fp16", "weights": weights}
    build(path, **ask, engine_options=EngineOptions(profiles=profiles))
    assert builder.built
    build(path, **ask, engine_options=EngineOptions(profiles=profiles, exact_profiles=True))
    assert len(builder.built) == built


def test_insisting_on_nothing_keeps_a_plan_whose_builder_is_missing(
    path: Path, builder: FakeBuilder
):
    ask = {"target": [TARGET], "precision": "fp16", "weights": "baked"}
    build(path, **ask, engine_options=EngineOptions(profiles=FOUR))
    builder.missing = {TARGET}
    insisting = EngineOptions(profiles=FOUR, exact_profiles=True)
    result = build(path, **ask, engine_options=insisting)
    assert {row.reused for row in result.engines} == {True}


def test_another_version_of_ours_builds_again(
    path: Path, builder: FakeBuilder, monkeypatch: pytest.MonkeyPatch
):
    build(path, target=[TARGET], precision="fp16")
    assert len(builder.built) == 3
    monkeypatch.setattr(tiedexport, "__version__", "99.0")
    build(path, target=[TARGET], precision="fp16")
    assert len(builder.built) == 3
    build(path, target=[TARGET], precision="fp16")
    assert builder.built == []


def test_a_plan_that_stands_is_taken_over_where_it_could_not_be_built_now(
    path: Path, builder: FakeBuilder
):
    build(path, target=[TARGET], precision="fp16")
    assert len(builder.built) == 3
    builder.refused = {"encoder", "decoder", "autoencoder"}
    before = plans(path)
    result = build(path, target=[TARGET], precision="fp16")
    assert {(row.status, row.reused) for row in result.engines} == {("passed", True)}
    assert plans(path) == before
    assert builder.built == []
    with pytest.raises(MissingRuntimeError, match="too large"):
        build(path, target=[TARGET], precision="fp16", force=True)
    with pytest.raises(MissingRuntimeError, match="too large"):
        build(path, target=[TARGET], precision="fp16", weights="baked")
    assert plans(path) == before


@needs_rtx
def test_a_plan_to_refit_that_was_built_with_a_driver_is_kept_without_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    """RTX refuses --refit without a driver; the plan itself is built without the flag here."""
    from tiedexport.engines import tensorrt

    target, configure = "rtx:sm89", tensorrt.configure
    ask = {"target": [target], "precision": "fp16", "weights": "baked"}
    ask["engine_options"] = EngineOptions(refit=True)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(trt, "driver", lambda: Availability(True, "CUDA 13.0"))
        elsewhere.setattr(
            tensorrt,
            "configure",
            lambda parsed, config, options, bindings: configure(
                parsed, config, EngineOptions(), bindings
            ),
        )
        build(path, **ask)
    before = plans(path, target)
    assert {plan.options.refit for plan in before} == {True}
    monkeypatch.setattr(trt, "driver", lambda: Availability(False, reason="no CUDA driver"))
    result = build(path, **ask)
    assert {(row.status, row.reused) for row in result.engines} == {("passed", True)}
    assert plans(path, target) == before
    with pytest.raises(MissingRuntimeError, match="needs a GPU for --refit"):
        build(path, **ask, force=True)
