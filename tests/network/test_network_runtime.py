"""The runtime `tensorrt_network`: what TensorRT is told to compute, judged as any runtime is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import MODELS, inputs_of, needs_rtx
from deployed import MODES, deployed
from msgspec.structs import replace
from recording_runtime import Recording, recording_runtimes

from tiedexport import rounding, trt
from tiedexport.bundle import open_bundle
from tiedexport.errors import MissingRuntimeError
from tiedexport.export import build
from tiedexport.results import Availability
from tiedexport.runtimes import runtime_named
from tiedexport.session import open_session
from tiedexport.spec import Precision
from tiedexport.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.engine_words import Weights

pytestmark = needs_rtx
NAME = "tensorrt_network"
FP32, FP16, BF16 = Precision


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> Weights:
    return request.param


@pytest.fixture(scope="module", params=MODELS)
def plans(
    request: pytest.FixtureRequest,
    bundles: dict[str, Bundle],
    mode: Weights,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """The bundle of each model, with plans of each mode."""
    return deployed(bundles[request.param], tmp_path_factory.mktemp("deployed"), mode)


def test_it_is_no_run_of_tensorrt_and_says_so():
    row = runtime_named(NAME)
    assert (row.remark, row.slow, row.rank) == ("network, simulated", True, 95)


def test_a_session_never_takes_a_simulation_unasked(
    dense_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    simulation = Recording(NAME, slow=True)
    simulation.remark = "network, simulated"
    recording_runtimes(monkeypatch)(simulation, Recording("absent", reason="no driver"))
    with pytest.raises(MissingRuntimeError, match="absent: no driver"):
        open_session(dense_bundle)
    with open_session(dense_bundle, runtime=NAME) as session:
        assert session.runtime == NAME


def test_every_stage_and_precision_of_every_kind_of_plan_stays_within_its_bound(plans: Bundle):
    result = verify(plans, runtime=[NAME])
    assert len(result.comparisons) == 9
    assert [row.reason for row in result.comparisons if row.status != "passed"] == []
    assert {row.accumulation for row in result.comparisons} == {FP32}


@pytest.mark.parametrize("precision", Precision)
def test_every_layer_shows_its_output_and_the_last_one_that_of_the_stage(
    plans: Bundle, precision: Precision
):
    row, weights = runtime_named(NAME), plans.weights(FP32)
    with open_session(plans, runtime=NAME, precision=precision) as session:
        for stage in plans.manifest.stages:
            x = inputs_of(session, stage.name, 3)
            shown = row.layers(plans, precision, stage, x)
            assert isinstance(shown, dict)
            assert list(shown) == [layer.output for layer in stage.layers]
            np.testing.assert_array_equal(shown[stage.outputs[0].name], session.run(stage.name, x))
            for layer, bounded in rounding.layer_bounds(
                stage.layers, weights, x, precision=precision, accumulation=FP32, io=FP32
            ):
                error = np.abs(shown[layer.output].astype(np.float64) - bounded.value)
                assert np.all(error <= bounded.bound), layer.output


def test_a_bundle_that_does_not_name_its_layers_shows_none(dense_bundle: Bundle):
    stage = dense_bundle.manifest.stage("encoder")
    nameless = replace(stage, layers=tuple(replace(layer, output="") for layer in stage.layers))
    reason = runtime_named(NAME).layers(dense_bundle, FP16, nameless, dense_bundle.golden["input"])
    assert isinstance(reason, str)
    assert "tiedexport build" in reason


def test_a_bundle_with_real_engines_is_judged_by_the_graphs_of_these(
    checkpoints: dict[str, Path], tmp_path: Path
):
    build(checkpoints["dense"], tmp_path / "b.tied", precision="fp16", target=["rtx:sm89"])
    bundle = open_bundle(tmp_path / "b.tied")
    assert {plan.graph for plan in bundle.manifest.plans} & bundle.manifest.files.keys()
    assert verify(bundle, runtime=[NAME]).passed


def test_weights_that_stay_in_fp32_are_computed_in_fp32(
    checkpoints: dict[str, Path], tmp_path: Path
):
    build(
        checkpoints["dense"], tmp_path / "b.tied",
        precision="fp16", target=(), keep_fp32=["layers.1.weight"],
    )  # fmt: skip
    bundle = open_bundle(tmp_path / "b.tied")
    assert bundle.manifest.kept
    stage = bundle.manifest.stage("autoencoder")
    shown = runtime_named(NAME).layers(bundle, FP16, stage, bundle.golden["input"])
    types = [shown[layer.output].dtype for layer in stage.layers if layer.weight]
    assert types == [np.float16, np.float32, np.float32, np.float16]
    for mode in MODES:
        assert verify(deployed(bundle, tmp_path, mode), runtime=[NAME]).passed


# Where it cannot work.


def absent(monkeypatch: pytest.MonkeyPatch, *packages: str, driver: bool = False) -> None:
    def availability(package: str) -> Availability:
        if package in packages:
            return Availability(False, reason=f"no {package}", remedy=f"install {package}")
        return Availability(True, "11.0")

    monkeypatch.setattr(trt, "availability", availability)
    monkeypatch.setattr(trt, "driver", lambda: Availability(driver, reason="no driver"))


def test_without_either_package_it_says_what_to_install(
    dense_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    absent(monkeypatch, "tensorrt_rtx", "tensorrt")
    row = runtime_named(NAME)
    assert row.availability().why == "no tensorrt_rtx; install tensorrt_rtx"
    stage = dense_bundle.manifest.stages[0]
    assert row.layers(dense_bundle, FP16, stage, dense_bundle.golden["input"]) == (
        "no tensorrt_rtx; install tensorrt_rtx"
    )
    with pytest.raises(MissingRuntimeError, match="install tensorrt_rtx"):
        open_session(dense_bundle, runtime=NAME)


def test_tensorrt_alone_needs_a_driver(monkeypatch: pytest.MonkeyPatch):
    absent(monkeypatch, "tensorrt_rtx")
    availability = runtime_named(NAME).availability()
    assert not availability.available
    assert "without a driver" in availability.why
    absent(monkeypatch, "tensorrt_rtx", driver=True)
    assert runtime_named(NAME).availability() == Availability(True, "11.0")
