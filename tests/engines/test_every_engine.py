"""Real TensorRT-RTX engines for every device, stage, type and mode, without a GPU."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import make_checkpoint, needs_rtx

from tiedexport.audit import given, plans, weights
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.export import build
from tiedexport.plan_search import PlanSearch
from tiedexport.spec import WEIGHTED_OPS, Precision

if TYPE_CHECKING:
    from tiedexport.manifest import PlanRecord
    from tiedexport.plan_search import PlanContents
    from tiedexport.results import EngineOutcome
    from tiedexport.results.ties import Stage

pytestmark = needs_rtx

TARGETS = ("rtx:sm80", "rtx:sm86", "rtx:sm89", "rtx:sm120")
PRECISIONS = (Precision.FP16, Precision.BF16)
STAGES = ("encoder", "decoder", "autoencoder")
MODELS = {
    "dense": ("autoencoder", {"widths": [256, 128, 64]}),
    "conv": ("conv", {"image": [16, 16], "channels": [8, 16, 32]}),
}
LAYER_BYTES = 0.15 * 2**20
"""A plan without weights may take so much a layer and direction,"""

PLAN_BYTES = {"dense": LAYER_BYTES, "conv": 2 * LAYER_BYTES}
"""and so much more: convolutions also turn images to channels-last and back."""

every_build = pytest.mark.parametrize(
    ("model", "mode"), list(product(MODELS, ("shared", "baked", "one-plan")))
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, quick_export: None) -> dict[str, Bundle]:
    """Model → its bundle without engines."""
    folder = tmp_path_factory.mktemp("plain")
    for name, model in MODELS.items():
        save_checkpoint(folder / f"{name}.pt", make_checkpoint(*model))
        build(folder / f"{name}.pt", precision="fp16,bf16", target=())
    return {name: open_bundle(folder / f"{name}.tied") for name in MODELS}


@pytest.fixture(scope="module")
def built(plain: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory):
    """(model, mode) → its bundle for all devices, and what became of every engine."""
    folder = tmp_path_factory.mktemp("every-engine")

    @cache
    def bundle_of(model: str, mode: str) -> tuple[Bundle, tuple[EngineOutcome, ...]]:
        bundle, options = plain[model].path, {"target": TARGETS, "weights": mode}
        result = build(bundle, folder / f"{model}-{mode}.tied", precision="fp16,bf16", **options)
        return open_bundle(result.bundle), tuple(result.engines)

    return bundle_of


def weighted_layers(bundle: Bundle, plan: PlanRecord) -> int:
    """Products of a plan, one a layer and direction."""
    return sum(layer.op in WEIGHTED_OPS for layer in bundle.manifest.stage(plan.stage).layers)


@cache
def search(stored: Path) -> PlanSearch:
    return PlanSearch(weights.safetensors(stored))


@cache
def held_in(plan: Path, stored: Path) -> PlanContents:
    return search(stored).contents(plan)


@pytest.fixture(scope="module")
def contents(plain: dict[str, Bundle]):
    """(model, bundle, plan) → what the plan holds of the weights, which all bundles share."""

    def contents_of(model: str, bundle: Bundle, plan: PlanRecord) -> PlanContents:
        return held_in(bundle.path / plan.file, plain[model].weights_path(plan.precision))

    return contents_of


def matrices(bundle: Bundle) -> list[str]:
    return [tie.weight for tie in bundle.manifest.ties]


@every_build
def test_all_are_built_but_transposed_convolutions_in_bf16(model, mode, built) -> None:
    bundle, outcomes = built(model, mode)
    stages = STAGES if mode != "one-plan" else ("autoencoder",)
    wanted = set(product(TARGETS, PRECISIONS, stages))
    refused = {
        one for one in wanted if model == "conv" and one[1] == "bf16" and one[2] != "encoder"
    }
    there = {(plan.target, plan.precision, plan.stage) for plan in bundle.manifest.plans}
    assert there == wanted - refused
    lacking = {(one.target, one.precision, one.stage) for one in outcomes if one.status != "passed"}
    assert lacking == refused


@every_build
def test_kernels_take_no_more_than_stated(model, mode, built, contents) -> None:
    bundle, _ = built(model, mode)
    for plan in bundle.manifest.plans:
        stated = LAYER_BYTES * weighted_layers(bundle, plan) + PLAN_BYTES[model]
        size = bundle.manifest.files[plan.file].size_bytes
        beside = size if mode == "shared" else contents(model, bundle, plan).unaccounted_bytes
        assert beside <= stated, plan.file


@every_build
def test_the_bytes_of_each_plan_hold_each_weight_as_often_as_stated(
    model, mode, built, contents
) -> None:
    bundle, _ = built(model, mode)
    for plan in bundle.manifest.plans:
        names = Counter(found.weight.name for found in contents(model, bundle, plan).found)
        held = {name: names[name] for name in matrices(bundle)}
        assert held == dict.fromkeys(held, 0 if mode == "shared" else 1), plan.file


@every_build
def test_the_audit_says_so_of_each_device(model, mode, built) -> None:
    bundle, _ = built(model, mode)
    rows = plans.examine(given.sort_out(given.listed(bundle.path), None, False), ())
    groups = Counter(
        f"{plan.target} {plan.precision}, weights {mode}" for plan in bundle.manifest.plans
    )
    assert {row.subject for row in rows} == groups.keys()
    for row in rows:
        several = mode == "baked" and groups[row.subject] > 1
        assert row.status == ("copies" if several else "one copy")
        copies = files_of_copies(row, bundle)
        places = groups[row.subject] if mode == "baked" else 1
        assert all(len(files) == len(set(files)) == places for files in copies.values())


def files_of_copies(row: Stage, bundle: Bundle) -> dict[str, list[str]]:
    """Tied weight → the file of each of its copies."""
    found = {tie.name: [copy.file for copy in tie.copies] for tie in row.ties}
    return {name: found[name] for name in matrices(bundle)}


@pytest.mark.parametrize("model", MODELS)
def test_a_plan_of_both_halves_is_smaller_than_two_of_one_each(model, built) -> None:
    sizes = {}
    for mode in ("baked", "one-plan"):
        bundle, _ = built(model, mode)
        sizes[mode] = sum(
            bundle.manifest.files[plan.file].size_bytes
            for plan in bundle.manifest.plans
            if (plan.target, plan.precision) == ("rtx:sm89", "fp16")
            and (plan.stage != "autoencoder" or mode == "one-plan")
        )
    assert sizes["one-plan"] < sizes["baked"]


def test_a_kernel_of_few_channels_is_filled_up_twice_in_one_plan(tmp_path: Path) -> None:
    """TensorRT-RTX fills up channels below eight: to an even number forwards, to eight back."""
    save_checkpoint(
        tmp_path / "m.pt", make_checkpoint("conv", {"image": [8, 8], "channels": [1, 8]})
    )
    build(tmp_path / "m.pt", precision="fp16", target=("rtx:sm89",), weights="one-plan")
    bundle = open_bundle(tmp_path / "m.tied")
    (plan,) = bundle.manifest.plans
    held = held_in(bundle.path / plan.file, bundle.weights_path(plan.precision))
    kernels = [found for found in held.found if found.weight.name in matrices(bundle)]
    assert len(kernels) == 2
    assert len({found.size_bytes for found in kernels}) == 2
