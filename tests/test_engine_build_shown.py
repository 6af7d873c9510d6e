"""What a build shows of its engines: one bar, why a type was chosen, what was really built."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import tiedexport
from conftest import needs_rtx
from fake_engines import TARGET, FakeBuilder
from hypothesis import given
from hypothesis import strategies as some
from safetensors.numpy import load_file

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.engine_build import EngineBuild
from tiedexport.engine_build.jobs import Job, Steps, Wanted
from tiedexport.engine_build.shelf import PlanShelf
from tiedexport.engine_options import EngineOptions
from tiedexport.export import build, plan
from tiedexport.spec import Precision, StageSpec

FP32, FP16, BF16 = Precision

pytestmark = pytest.mark.usefixtures("quick_export")


@pytest.fixture
def draft(plain: Path, dense_bundle: Bundle) -> Bundle:
    """A bundle in the making, with graphs and weights."""
    return Bundle(plain, dense_bundle.manifest)


# Progress.


def test_one_bar_goes_over_all_engines_and_only_forwards(
    draft: Bundle, builder: FakeBuilder, tmp_path: Path
):
    told: list[tuple[float, str]] = []
    wanted = Wanted((TARGET, "fake:2"), (FP16, BF16))
    engine_build = EngineBuild(draft, None, wanted, PlanShelf(tmp_path / "shelf"))
    assert engine_build.count == 12
    engine_build.run(lambda done, note: told.append((done, note)))
    done = [number for number, _ in told]
    assert done == sorted(done)
    assert done[-1] == 12
    assert set(range(1, 13)) < set(done)  # whole after each, and in between, too
    assert any("decoder bf16 for fake:2: tactics" in note for _, note in told)


@given(
    some.lists(
        some.tuples(some.sampled_from("abc"), some.integers(0, 9), some.integers(0, 9)), min_size=1
    )
)
def test_no_order_of_phases_moves_the_bar_back_or_to_the_next_engine(
    phases: list[tuple[str, int, int]],
):
    told: list[float] = []
    job = Job(TARGET, StageSpec("encoder", (), ()), FP16, "shared", EngineOptions())
    steps = Steps(lambda done, note: told.append(done), 4, job)
    for phase, done, of in phases:
        steps(phase, min(done, of), of)
    assert told == sorted(told)
    assert all(4 <= done < 5 for done in told)


def test_what_is_left_of_a_missing_target_is_not_waited_for(
    draft: Bundle, builder: FakeBuilder, tmp_path: Path
):
    builder.missing = {TARGET}
    told: list[float] = []
    wanted = Wanted((TARGET, "fake:2"), (FP16,))
    engine_build = EngineBuild(draft, None, wanted, PlanShelf(tmp_path / "shelf"))
    made = engine_build.run(lambda done, note: told.append(done))
    assert [row.status for row in made.outcomes] == ["not run", *["passed"] * 3]
    assert told[-1] == engine_build.count == 6


# Precisions.


def test_auto_says_why_in_the_result_and_where_nobody_watches(checkpoints, tmp_path: Path):
    arguments = ["build", checkpoints["dense"], "-o", "b.tied", "--target", "none"]
    done = tiedexport(*arguments, "--precision", "auto", "-q", "--json", "b.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ties = json.loads((tmp_path / "b.json").read_text())["precision_choice"]
    assert [tie["weights"] for tie in ties] == [["layers.0.weight"], ["layers.1.weight"]]
    for word in ("calibrated on 32 samples", "layers.0.weight  fp16:", "layers.1.weight  fp16:"):
        assert word in done.stdout
    assert open_bundle(tmp_path / "b.tied").manifest.precisions == (FP32, FP16)


def test_auto_follows_the_evidence(tmp_path: Path):
    """A hidden activation of 1e5 does not fit into fp16; the other tie keeps it."""
    import torch
    from conftest import make_checkpoint

    from tiedexport.checkpoint import save_checkpoint

    model = make_checkpoint("autoencoder", {"widths": [20, 13, 7], "output": "linear"})
    model.state["layers.0.encoder_bias"] += 1e5 * torch.ones(13)
    save_checkpoint(tmp_path / "model.pt", model)
    result = build(tmp_path / "model.pt", precision="auto", target=())
    assert {tie.weights: tie.precision for tie in result.precision_choice} != {}
    manifest = open_bundle(tmp_path / "model.tied").manifest
    chosen = {t.weights[0]: t.precision for t in result.precision_choice}
    assert chosen["layers.0.weight"] is not FP16
    for precision in manifest.precisions[1:]:
        stored = manifest.kept.get(precision, {})
        assert {n: stored.get(n, precision) for n in chosen} == chosen


def test_a_weight_that_is_kept_in_fp32_is_so_everywhere(
    checkpoints, builder: FakeBuilder, tmp_path: Path
):
    arguments = ["build", checkpoints["dense"], "-o", "b.tied", "--keep-fp32", "layers.0.weight"]
    done = tiedexport(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = open_bundle(tmp_path / "b.tied").manifest
    assert manifest.kept == {FP16: {"layers.0.weight": FP32}}
    kinds = {n: w.dtype for n, w in load_file(tmp_path / "b.tied/weights.fp16.safetensors").items()}
    wide = {name for name, kind in kinds.items() if kind == np.float32}
    assert wide == {"layers.0.weight", "layers.0.encoder_bias", "layers.0.decoder_bias"}
    assert {kind for name, kind in kinds.items() if name not in wide} == {np.dtype(np.float16)}
    assert {str(request.kept) for request in builder.requests} == {str(manifest.kept[FP16])}


def test_keeping_a_weight_changes_the_key_of_engines(
    checkpoints, builder: FakeBuilder, tmp_path: Path
):
    build(checkpoints["dense"], tmp_path / "b.tied")
    assert len(builder.built) == 3
    build(checkpoints["dense"], tmp_path / "b.tied", keep_fp32=["layers.1.weight"])
    assert len(builder.built) == 3


def test_a_plan_of_work_says_that_types_are_still_to_be_chosen(checkpoints, tmp_path: Path):
    text = plan(checkpoints["dense"], tmp_path / "b.tied", precision="auto", target=["rtx"])
    assert "choose  a precision for each tie" in text
    assert "build   rtx engines in chosen types, weights shared" in text


# The real builder.


@needs_rtx
def test_how_often_a_plan_holds_a_weight_is_searched_where_a_profile_is_of_batch_one(
    draft: Bundle, tmp_path: Path
):
    path = draft.path
    ask = ["build", path, "--target", "rtx:sm89", "--precision", "fp16", "--optShapes", "input:1"]
    done = tiedexport(*ask, "--weights", "baked", "-q", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "built for 1 to 2" in " ".join(done.stdout.split())
    assert done.stdout.count("the plan holds every weight once") == 1
    assert {p.profiles for p in open_bundle(path).manifest.plans} == {((1, 1, 2),)}
    done = tiedexport(*ask, "--weights", "baked", "--exactProfiles", "-q", cwd=tmp_path)
    words = " ".join(done.stdout.split())
    assert "as --exactProfiles insists" in words
    assert "layers.0.weight 2 times, layers.1.weight 2 times" in words


@needs_rtx
@pytest.mark.parametrize("weights", ["shared", "baked", "one-plan"])
def test_real_plans_are_recorded_with_what_made_them_and_taken_over(
    weights: str, draft: Bundle, tmp_path: Path
):
    arguments = {"target": ["rtx:sm89"], "precision": "fp16", "weights": weights}
    build(draft.path, **arguments)
    bundle = open_bundle(draft.path)
    least = 0 if weights == "one-plan" else 1
    for record in bundle.manifest.plans:
        assert (bundle.path / record.graph).is_file()
        assert record.package == "tensorrt_rtx"
        assert len(record.key) == 64
        assert any("MATRIX_MULTIPLY" in line for line in record.layers)
        assert record.options.profiles == ((least, 8, 256),)
    result = build(draft.path, **arguments)
    assert {row.reused for row in result.engines} == {True}
