"""An engine is built again where something changed for it, and only there."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest
from conftest import MODELS, contents, make_checkpoint, resign, sign_files
from fake_engines import FP16_STAGES, TARGET, FakeBuilder

from tiedexport.bundle import MANIFEST, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import MissingRuntimeError
from tiedexport.export import build
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tiedexport.results import BuildResult

FP32, FP16, BF16 = Precision
WIDE = EngineOptions(profiles=((1, 4, 1024),))

pytestmark = pytest.mark.usefixtures("quick_export")


def statuses(result: BuildResult) -> set[tuple[str, bool]]:
    return {(row.status, row.reused) for row in result.engines}


@pytest.fixture
def path(plain: Path, builder: FakeBuilder) -> Path:
    """A bundle with weight-free fp16 engines for one target."""
    result = build(plain, target=[TARGET], precision="fp16")
    assert statuses(result) == {("passed", False)}
    assert builder.built == FP16_STAGES
    return plain


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights of the same model."""
    path = tmp_path_factory.mktemp("retrained") / "new.pt"
    save_checkpoint(path, make_checkpoint(*MODELS["dense"], seed=5))
    return path


# Unchanged.


def test_what_stands_is_taken_over_without_a_call_of_the_builder(path: Path, builder: FakeBuilder):
    before = contents(path)
    result = build(path, precision="fp16")
    assert statuses(result) == {("passed", True)}
    assert builder.built == []
    assert contents(path) == before


def test_force_builds_what_stands(path: Path, builder: FakeBuilder):
    result = build(path, precision="fp16", force=True)
    assert statuses(result) == {("passed", False)}
    assert builder.built == FP16_STAGES


def newer(builder: FakeBuilder, path: Path) -> None:
    builder.version = "1.1"


def damaged(builder: FakeBuilder, path: Path) -> None:
    """Same length, so that opening the bundle by size lets it pass."""
    for plan in path.rglob("*.plan"):
        raw = plan.read_bytes()
        plan.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))


def nothing(builder: FakeBuilder, path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "options", "built"),
    [
        (newer, {}, 3),
        (nothing, {"engine_options": WIDE}, 3),
        (nothing, {"engine_options": EngineOptions()}, 0),
        (nothing, {"weights": "shared"}, 0),
        (nothing, {"weights": "baked"}, 3),
        (nothing, {"weights": "one-plan"}, 1),
        (nothing, {"target": [TARGET, "fake:2"]}, 3),
        (nothing, {"precision": "fp16,bf16"}, 3),
    ],
)
def test_every_part_of_the_key_counts(
    change: Callable[[FakeBuilder, Path], None],
    options: dict,
    built: int,
    path: Path,
    builder: FakeBuilder,
):
    change(builder, path)
    options = {"target": [TARGET], "precision": "fp16", **options}
    build(path, **options)
    assert len(builder.built) == built
    build(path, **options)
    assert builder.built == []


@pytest.mark.parametrize("weights", ["shared", "baked", "one-plan"])
def test_new_weights_change_only_the_plans_that_hold_them(
    weights: str, retrained: Path, checkpoints, builder: FakeBuilder, tmp_path: Path
):
    path = tmp_path / "b.tied"
    build(checkpoints["dense"], path, weights=weights, engine_options=WIDE)
    assert len(builder.built) == {"shared": 3, "baked": 3, "one-plan": 1}[weights]
    before = contents(path)
    build(retrained, path)  # neither mode nor options are said again
    assert len(builder.built) == {"shared": 0, "baked": 3, "one-plan": 1}[weights]
    after = contents(path)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    expected = {MANIFEST, "golden.npz", "weights.fp32.safetensors", "weights.fp16.safetensors"}
    assert changed == expected | {name for name in after if weights != "shared" and "plan" in name}
    assert {p.weights for p in open_bundle(path).manifest.plans} == {weights}
    assert open_bundle(path).manifest.plans[0].options.profiles[0][1:] == (4, 1024)


def test_a_plan_whose_bytes_are_not_those_of_the_manifest_is_built_again(
    path: Path, checkpoints, builder: FakeBuilder
):
    damaged(builder, path)
    result = build(checkpoints["dense"], path, precision="fp32,fp16")
    assert statuses(result) == {("passed", False)}
    open_bundle(path)


# The builder or its GPU is elsewhere.


def test_weight_free_plans_outlive_a_checkpoint_where_their_builder_is_missing(
    path: Path, retrained: Path, builder: FakeBuilder
):
    builder.missing = {TARGET}
    before = contents(path)
    result = build(retrained, path, precision="fp32,fp16,bf16")
    kept = [row for row in result.engines if row.precision is FP16]
    assert [(row.status, row.reused) for row in kept] == [("passed", True)] * 3
    assert {row.notes for row in kept} == {("kept: built by fakert 1.0 elsewhere",)}
    rest = [row for row in result.engines if row.precision is BF16]
    assert {(row.status, row.reason) for row in rest} == {("not run", "no such GPU; buy one")}
    after = contents(path)
    weights = {f"weights.{kind}.safetensors" for kind in Precision}
    assert {n for n in after if after[n] != before[n]} == {MANIFEST, "golden.npz", *weights}
    assert after.keys() == before.keys()
    records = open_bundle(path).manifest.plans
    assert [plan.file for plan in records] == [f"plans/fake/{name}.plan" for name in FP16_STAGES]


def test_where_all_plans_are_kept_the_build_has_done_what_it_was_asked_for(
    path: Path, retrained: Path, builder: FakeBuilder
):
    builder.missing = {TARGET}
    assert build(retrained, path, precision="fp32,fp16", target=[TARGET]).passed


@pytest.mark.parametrize("weights", ["baked", "one-plan"])
def test_plans_that_hold_old_weights_are_never_kept(
    weights: str, path: Path, retrained: Path, builder: FakeBuilder
):
    build(path, weights=weights, precision="fp16")
    builder.missing = {TARGET}
    result = build(retrained, path, precision="fp32,fp16")
    assert {row.status for row in result.engines} == {"not run"}
    assert all("other weights" in row.reason for row in result.engines)
    assert not [name for name in contents(path) if "plan" in name or "halves" in name]


@pytest.mark.parametrize("weights", ["baked", "one-plan"])
def test_plans_that_hold_these_very_weights_are_kept(
    weights: str, path: Path, builder: FakeBuilder
):
    build(path, weights=weights, precision="fp16")
    builder.missing = {TARGET}
    before = contents(path)
    assert statuses(build(path, precision="fp16")) == {("passed", True)}
    assert contents(path) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine_options": WIDE}, "other options"),
        ({"weights": "baked"}, "other options"),
        ({"io_dtype": "fp16"}, "other graph"),
    ],
)
def test_what_the_missing_builder_would_build_differently_is_not_kept(
    options: dict, words: str, path: Path, retrained: Path, builder: FakeBuilder
):
    builder.missing = {TARGET}
    result = build(retrained, path, precision="fp32,fp16", **options)
    assert {row.status for row in result.engines} == {"not run"}
    assert all(words in row.reason for row in result.engines)
    assert not open_bundle(path).manifest.plans


def test_a_damaged_plan_is_not_kept(path: Path, checkpoints, builder: FakeBuilder):
    damaged(builder, path)
    builder.missing = {TARGET}
    result = build(checkpoints["dense"], path, precision="fp32,fp16")
    assert all("other bytes than the manifest says" in row.reason for row in result.engines)
    assert not open_bundle(path).manifest.plans


def test_a_bundle_is_not_replaced_by_one_without_the_engines_asked_for(
    path: Path, retrained: Path, builder: FakeBuilder
):
    builder.missing = {TARGET}
    before = contents(path)
    ask = partial(build, retrained, path, precision="fp32,fp16", target=[TARGET])
    with pytest.raises(MissingRuntimeError, match="is left as it was"):
        ask(weights="baked")
    assert contents(path) == before
    assert os.listdir(path.parent) == [path.name]


# Bundles of other hands.


def test_plans_of_a_bundle_that_has_no_keys_are_built_again(path: Path, builder: FakeBuilder):
    plans = open_bundle(path).manifest.plans
    resign(path, plans=tuple(msgspec.structs.replace(p, key="", graph="") for p in plans))
    sign_files(path)
    build(path, precision="fp16")
    assert builder.built == FP16_STAGES
    build(path, precision="fp16")
    assert builder.built == []
