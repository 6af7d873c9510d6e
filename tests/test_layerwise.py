"""Every layer of a good bundle is within its bound, in every runtime that shows its layers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import make_checkpoint, resign
from drawn_models import STACKS
from hypothesis import given, settings
from hypothesis import strategies as st
from layered import STAGES, layered, runtimes_that_show
from msgspec import structs

from tiedexport import layerwise
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.errors import BundleError
from tiedexport.export import build
from tiedexport.layerwise import Runner
from tiedexport.results import Comparison
from tiedexport.runtimes import all_runtimes
from tiedexport.spec import Precision
from tiedexport.verify import verify

FP32, *_ = Precision
SCHEMA_1 = Path(__file__).parent / "data" / "schema-1.tied"

# Good bundles.


@pytest.mark.parametrize("precision", Precision)
def test_every_layer_of_a_good_bundle_is_within_its_bound(bundle: Bundle, precision: Precision):
    result = layered(bundle, precision)
    assert result.passed
    assert result.strays == ()
    shown = runtimes_that_show(result)
    assert shown >= {"torch", "reference"}
    for stage in bundle.manifest.stages:
        names = [layer.output for layer in stage.layers]
        for runtime in shown:
            rows = [r for r in result.layers if (r.runtime, r.stage) == (runtime, stage.name)]
            assert [row.layer for row in rows] == names
            assert all(row.status == "passed" and row.error_in_bounds <= 1 for row in rows)
    for row in result.layers:
        assert row.status == "passed" or row.reason


def test_a_runtime_that_shows_no_layers_is_not_run_and_says_why(dense_bundle: Bundle, monkeypatch):
    hidden = all_runtimes()["torch"]
    monkeypatch.setattr(type(hidden), "layers", lambda *_: "it keeps them to itself")
    result = layered(dense_bundle, "fp16", ["torch"])
    assert result.passed
    assert [(row.status, row.reason) for row in result.layers] == [
        ("not run", "it keeps them to itself")
    ] * len(STAGES)


def test_without_fp32_weights_layers_are_judged_too(checkpoints, tmp_path: Path):
    build(checkpoints["conv"], tmp_path / "b.tied", precision="bf16", target=())
    result = layered(tmp_path / "b.tied", "bf16", ["torch", "reference"])
    assert result.passed
    assert result.strays == ()
    assert runtimes_that_show(result) == {"torch", "reference"}


@settings(max_examples=4, deadline=None)
@given(
    fields=STACKS,
    seed=st.integers(0, 99),
)
def test_no_layer_of_any_stack_strays(tmp_path_factory, fields: dict[str, Any], seed: int) -> None:
    folder = tmp_path_factory.mktemp("any")
    save_checkpoint(folder / "m.pt", make_checkpoint("autoencoder", fields, seed))
    build(folder / "m.pt", precision="fp32,fp16", target=())
    result = layered(folder / "m.tied", "fp32,fp16", ["onnxruntime", "torch"])
    assert result.passed, result.strays
    assert runtimes_that_show(result) == {"onnxruntime", "torch"}


# The rows themselves.


ROWS = st.builds(
    Comparison,
    runtime=st.sampled_from("ab"),
    stage=st.sampled_from(STAGES),
    precision=st.sampled_from(Precision),
    status=st.sampled_from(["passed", "failed", "not run"]),
    layer=st.sampled_from(["", "x", "y"]),
    remark=st.sampled_from(["", "from a file"]),
)


@given(st.lists(ROWS))
def test_one_stray_a_runner_and_stage_the_first_that_failed(rows: list[Comparison]):
    named = layerwise.strays(rows)
    keys = [(r.runtime, r.remark, r.precision, r.stage) for r in named]
    assert len(set(keys)) == len(keys)
    failed = [row for row in rows if row.status == "failed" and row.layer]
    assert set(keys) == {(r.runtime, r.remark, r.precision, r.stage) for r in failed}
    for key, row in zip(keys, named, strict=True):
        assert row is next(r for r in failed if (r.runtime, r.remark, r.precision, r.stage) == key)


def test_a_layer_that_is_not_among_the_outputs_is_not_run(dense_bundle: Bundle):
    stage = dense_bundle.manifest.stage("encoder")
    rows = layerwise.expected(dense_bundle, stage, FP32, FP32)
    runner = Runner("abacus", FP32, FP32, "by hand")
    judged = list(runner.judge_layers(stage, {rows[1].name: rows[1].golden}, rows))
    assert [row.status for row in judged] == ["not run", "passed", "not run", "not run"]
    assert [row.layer for row in judged] == [layer.output for layer in stage.layers]
    assert {(row.runtime, row.remark) for row in judged} == {("abacus", "by hand")}


def test_a_bundle_whose_layers_have_no_names_is_to_be_rebuilt():
    for precision in ("", "fp32"):
        with pytest.raises(BundleError, match="rebuild it"):
            verify(SCHEMA_1, layers=True, precision=precision)


def test_layers_that_do_not_fit_the_golden_output_are_an_error(
    dense_bundle: Bundle, tmp_path: Path
):
    path = shutil.copytree(dense_bundle.path, tmp_path / "b.tied")
    stages = [
        structs.replace(stage, layers=stage.layers[:-2]) for stage in dense_bundle.manifest.stages
    ]
    resign(path, stages=tuple(stages))
    with pytest.raises(BundleError, match="do not fit"):
        verify(path, runtime=["torch"], stage=["decoder"])
    opened = open_bundle(path)
    with pytest.raises(BundleError, match="do not fit"):
        layerwise.expected(opened, structs.replace(stages[0], layers=()), FP32, FP32)
