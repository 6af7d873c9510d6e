"""What the key of an engine holds, and what it holds off."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import needs_rtx
from fake_engines import TARGET, FakeBuilder

import tiedexport
from tiedexport import trt
from tiedexport.bundle import open_bundle
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import MissingRuntimeError
from tiedexport.export import build
from tiedexport.manifest import PlanRecord
from tiedexport.results import Availability

ONE, FOUR = ((1, 1, 1),), ((4, 4, 4),)


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
    profiles: tuple, weights: str, built: int, plain: Path, builder: FakeBuilder
):
    ask = {"target": [TARGET], "precision": "fp16", "weights": weights}
    build(plain, **ask, engine_options=EngineOptions(profiles=profiles))
    assert builder.built
    build(plain, **ask, engine_options=EngineOptions(profiles=profiles, exact_profiles=True))
    assert len(builder.built) == built


def test_insisting_on_nothing_keeps_a_plan_whose_builder_is_missing(
    plain: Path, builder: FakeBuilder
):
    ask = {"target": [TARGET], "precision": "fp16", "weights": "baked"}
    build(plain, **ask, engine_options=EngineOptions(profiles=FOUR))
    builder.missing = {TARGET}
    insisting = EngineOptions(profiles=FOUR, exact_profiles=True)
    result = build(plain, **ask, engine_options=insisting)
    assert {row.reused for row in result.engines} == {True}


def test_another_version_of_ours_builds_again(
    plain: Path, builder: FakeBuilder, monkeypatch: pytest.MonkeyPatch
):
    build(plain, target=[TARGET], precision="fp16")
    assert len(builder.built) == 3
    monkeypatch.setattr(tiedexport, "__version__", "99.0")
    build(plain, target=[TARGET], precision="fp16")
    assert len(builder.built) == 3
    build(plain, target=[TARGET], precision="fp16")
    assert builder.built == []


def test_a_plan_that_stands_is_taken_over_where_it_could_not_be_built_now(
    plain: Path, builder: FakeBuilder
):
    build(plain, target=[TARGET], precision="fp16")
    assert len(builder.built) == 3
    builder.refused = {"encoder", "decoder", "autoencoder"}
    before = plans(plain)
    result = build(plain, target=[TARGET], precision="fp16")
    assert {(row.status, row.reused) for row in result.engines} == {("passed", True)}
    assert plans(plain) == before
    assert builder.built == []
    with pytest.raises(MissingRuntimeError, match="too large"):
        build(plain, target=[TARGET], precision="fp16", force=True)
    with pytest.raises(MissingRuntimeError, match="too large"):
        build(plain, target=[TARGET], precision="fp16", weights="baked")
    assert plans(plain) == before


@needs_rtx
def test_a_plan_to_refit_that_was_built_with_a_driver_is_kept_without_one(
    plain: Path, monkeypatch: pytest.MonkeyPatch
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
        build(plain, **ask)
    before = plans(plain, target)
    assert {plan.options.refit for plan in before} == {True}
    monkeypatch.setattr(trt, "driver", lambda: Availability(False, reason="no CUDA driver"))
    result = build(plain, **ask)
    assert {(row.status, row.reused) for row in result.engines} == {("passed", True)}
    assert plans(plain, target) == before
    with pytest.raises(MissingRuntimeError, match="needs a GPU for --refit"):
        build(plain, **ask, force=True)
