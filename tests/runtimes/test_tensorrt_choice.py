"""Which of a bundle's plans is taken, and why none is: recorded, not run on a GPU."""

from __future__ import annotations

import logging

import handmade
import msgspec
import pytest
from handmade import images
from recorded_machine import (
    FP16,
    PROFILE,
    bundle_with_plans,
    give_plans,
    plan_of,
    plan_of_halves,
    recorded_machine,
    session_on,
    with_plans,
)

from tiedexport.engine_options import EngineOptions
from tiedexport.errors import MissingRuntimeError
from tiedexport.runtimes import runtime_named


@pytest.fixture
def gpu(monkeypatch):
    return recorded_machine(monkeypatch)


def plans_of_kinds(bundle, kinds):
    stages, stored = bundle.manifest.stages, bundle.weights(FP16)
    plans = []
    for kind in kinds:
        if kind == "one-plan":
            plans.append(plan_of_halves(bundle.manifest))
            continue
        weights = stored if kind == "shared" else {}
        plans += [
            plan_of(stage, weights, file=f"plans/rtx/{stage.name}.{kind}.plan") for stage in stages
        ]
    return with_plans(bundle, tuple(plans))


@pytest.mark.parametrize(
    ("kinds", "taken"),
    [
        (["baked", "one-plan", "shared"], "shared"),
        (["baked", "one-plan"], "one-plan"),
        (["one-plan", "shared"], "shared"),
        (["baked"], "baked"),
    ],
)
def test_the_plan_that_stores_least_on_the_device_is_taken(tmp_path, gpu, kinds, taken):
    bundle = plans_of_kinds(handmade.bundle(tmp_path / "m.tied"), kinds)
    chosen = runtime_named("tensorrt_rtx").fitting_plans(bundle, FP16)
    assert {plan.weights for plan in chosen.values()} == {taken}
    give_plans(gpu, bundle)
    with session_on(bundle) as session:
        session.reconstruct(images(2))


def test_plans_of_a_kind_that_is_not_known_are_left_alone(tmp_path, gpu):
    bundle = bundle_with_plans(tmp_path / "m.tied")
    strange = [msgspec.structs.replace(p, weights="elsewhere") for p in bundle.manifest.plans]
    with pytest.raises(
        MissingRuntimeError, match="has no tensorrt_rtx plan of its encoder in fp16"
    ):
        session_on(with_plans(bundle, tuple(strange)))


def with_options(bundle, version="1.7.1", number=89, **fields):
    plans = tuple(
        msgspec.structs.replace(
            plan,
            options=EngineOptions(profiles=(PROFILE,), **fields),
            package_version=version,
            compute_capabilities=(number,),
        )
        for plan in bundle.manifest.plans
    )
    return with_plans(bundle, plans)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strip_weights": True}, "built with --stripWeights and hold no weights"),
        ({"version": "1.6.0"}, r"pip install tensorrt-rtx==1\.6\.0"),
        ({"version": "1.8.0", "version_compatible": True}, r"pip install tensorrt-rtx==1\.8\.0"),
        ({"version": "0.9.0", "version_compatible": True}, r"pip install tensorrt-rtx==0\.9\.0"),
        ({"number": 120}, "plans are for sm120, GeForce Test is sm89"),
        ({"number": 120, "hardware_compatibility": "sameComputeCapability"}, "plans are for sm120"),
    ],
)
def test_options_that_keep_a_plan_from_running_here_are_explained(tmp_path, gpu, changes, words):
    bundle = with_options(bundle_with_plans(tmp_path / "m.tied"), **changes)
    assert runtime_named("tensorrt_rtx").refusal(bundle, FP16) is not None
    with pytest.raises(MissingRuntimeError, match=words):
        session_on(bundle)
    assert gpu.memory.blocks == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "1.6.0", "version_compatible": True},
        {"number": 80, "hardware_compatibility": "ampere+"},
        {"refit": True},
    ],
)
def test_recorded_plans_for_other_versions_and_devices_run(tmp_path, gpu, changes):
    bundle = with_options(bundle_with_plans(tmp_path / "m.tied"), **changes)
    give_plans(gpu, bundle)
    with session_on(bundle) as session:
        assert session.reconstruct(images(2)).any()


def test_recorded_streaming_is_left_to_tensorrt_which_is_said(tmp_path, gpu, caplog):
    bundle = bundle_with_plans(tmp_path / "m.tied", weights="baked")
    bundle = with_options(bundle, weight_streaming=True)
    give_plans(gpu, bundle)
    with caplog.at_level(logging.WARNING), session_on(bundle):
        pass
    assert caplog.text.count("TensorRT's own budget is kept") == len(bundle.manifest.stages)
