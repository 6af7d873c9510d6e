"""Engines are added to a bundle without torch, and nothing else of it changes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from command_line import tiedexport
from conftest import contents
from fake_engines import TARGET, FakeBuilder, run_apart

from tiedexport.bundle import MANIFEST, open_bundle
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import BundleError, MissingRuntimeError, UsageError
from tiedexport.export import build, plan
from tiedexport.manifest import SCHEMA
from tiedexport.spec import Precision

FP32, FP16, BF16 = Precision


def plans_of(path: Path) -> list[tuple[str, str]]:
    return [(p.file.removeprefix("plans/"), p.weights) for p in open_bundle(path).manifest.plans]


# What changes.


@pytest.mark.parametrize("weights", ["shared", "baked", "one-plan"])
def test_every_other_file_stays_as_it_was(weights: str, plain: Path, builder: FakeBuilder):
    before = contents(plain)
    result = build(plain, target=[TARGET], weights=weights)
    assert {row.status for row in result.engines} == {"passed"}
    after = contents(plain)
    assert {n for n in before if after[n] != before[n]} == {MANIFEST}
    manifest = open_bundle(plain).manifest
    assert after.keys() - before.keys() == manifest.engine_files
    assert {p.precision for p in manifest.plans} == {FP16, BF16}
    assert result.file_bytes + result.engine_bytes == sum(map(len, after.values()))
    assert os.listdir(plain.parent) == [plain.name]


def test_weights_have_one_name_while_and_after_engines_are_added(plain: Path, builder: FakeBuilder):
    """Readers of ONNX refuse external data that has a second name."""
    links: list[int] = []
    builder.before = lambda request: links.extend(
        file.stat().st_nlink for file in plain.parent.rglob("weights.*")
    )
    build(plain, target=[TARGET])
    links += [file.stat().st_nlink for file in plain.rglob("*") if file.is_file()]
    assert set(links) == {1}


def test_another_output_is_a_bundle_of_its_own(plain: Path, builder: FakeBuilder, tmp_path: Path):
    build(plain, target=[TARGET])
    before = contents(plain)
    result = build(plain, tmp_path / "other.tied", target=["fake:2"])
    assert result.bundle == str(tmp_path / "other.tied")
    assert contents(plain) == before
    assert {p.target for p in open_bundle(tmp_path / "other.tied").manifest.plans} == {
        TARGET,
        "fake:2",
    }
    assert {file.stat().st_nlink for file in tmp_path.rglob("*") if file.is_file()} == {1}


def test_plans_of_other_targets_and_precisions_stay(plain: Path, builder: FakeBuilder):
    build(plain, target=[TARGET], precision="fp16")
    build(plain, target=["fake:2"], precision="bf16", weights="baked")
    assert builder.built == [
        f"{s}.{p}" for p in ("fp16", "bf16") for s in ("encoder", "decoder", "autoencoder")
    ]
    assert {(file.split("/")[0], mode) for file, mode in plans_of(plain)} == {
        ("fake", "shared"),
        ("fake-2", "baked"),
    }
    assert len(plans_of(plain)) == 6


def test_a_plan_of_both_directions_takes_the_place_of_the_stages_and_gives_it_back(
    plain: Path, builder: FakeBuilder
):
    build(plain, target=[TARGET, "fake:2"], precision="fp16")
    build(plain, target=[TARGET], precision="fp16", weights="one-plan")
    assert [row for row in plans_of(plain) if row[0].startswith("fake/")] == [
        ("fake/autoencoder.fp16.plan", "one-plan")
    ]
    assert len(plans_of(plain)) == 4
    assert (plain / "halves.fp16.onnx").is_file()
    build(plain, target=[TARGET], precision="fp16", weights="shared")
    assert {mode for _, mode in plans_of(plain)} == {"shared"}
    assert not (plain / "halves.fp16.onnx").exists()
    assert set(contents(plain)) == {MANIFEST, *open_bundle(plain).manifest.files}


def test_graphs_that_no_plan_has_are_dropped(plain: Path, builder: FakeBuilder):
    build(plain, target=[TARGET], precision="fp16")
    build(plain, target=[TARGET], precision="fp16", weights="baked")
    assert not (plain / "plans" / "graphs").exists() or not contents(plain / "plans" / "graphs")
    assert set(contents(plain)) == {MANIFEST, *open_bundle(plain).manifest.files}


def test_by_default_engines_are_built_for_what_is_here_or_what_stands(
    plain: Path, builder: FakeBuilder
):
    assert _targets(plain) == ["fake"]
    build(plain, target=["fake:2"], precision="fp16")
    assert _targets(plain) == ["fake:2"]
    assert _targets(plain, target="fake") == ["fake"]
    assert _targets(plain, target=()) == []


def _targets(path: Path, **options: object) -> list[str]:
    lines = (line.split() for line in plan(path, **options).splitlines())
    return [words[1] for words in lines if words[0] == "build"]


# Without torch, and without onnx.

WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[2].split(",")))
from fake_engines import FakeBuilder, TARGET
from tiedexport import engines
from tiedexport.errors import TiedExportError
from tiedexport.export import build

engines.all_builders = lambda: (FakeBuilder(),)
try:
    result = build(sys.argv[1], target=[TARGET, "fake:2"], precision="fp16", weights=sys.argv[3])
except TiedExportError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(*(row.status for row in result.engines))
"""


@pytest.mark.parametrize("weights", ["shared", "one-plan"])
def test_torch_is_not_needed(weights: str, plain: Path):
    done = run_apart(WITHOUT, plain, "torch", weights)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"passed"}


@pytest.mark.parametrize("weights", ["shared", "one-plan"])
def test_onnx_is_not_needed_where_the_graphs_are_there(
    weights: str, plain: Path, builder: FakeBuilder
):
    build(plain, target=[TARGET], precision="fp16", weights=weights)
    done = run_apart(WITHOUT, plain, "torch,onnx,onnx_ir", weights)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"passed"}


@pytest.mark.parametrize("weights", ["shared", "one-plan"])
def test_what_is_missing_to_make_a_graph_is_said(weights: str, plain: Path):
    before = contents(plain)
    done = run_apart(WITHOUT, plain, "torch,onnx,onnx_ir", weights)
    assert done.returncode == 1
    assert done.stderr.startswith("MissingRuntimeError: ")
    assert "takes onnx and onnx-ir" in done.stderr
    assert "--weights baked" in done.stderr
    assert contents(plain) == before
    assert run_apart(WITHOUT, plain, "torch,onnx,onnx_ir", "baked").returncode == 0


@pytest.mark.parametrize("schema", ["schema-1.tied", "schema-2.tied"])
def test_bundles_of_every_schema_get_engines(schema: str, builder: FakeBuilder, tmp_path: Path):
    path = Path(shutil.copytree(Path(__file__).parent / "data" / schema, tmp_path / "b.tied"))
    result = build(path, target=[TARGET])
    assert {row.status for row in result.engines} == {"passed"}
    assert open_bundle(path).manifest.schema == SCHEMA
    assert {row.reused for row in build(path, target=[TARGET]).engines} == {True}


# Refusals.


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"opset": 20}, "--opset"),
        ({"io_dtype": "fp16"}, "--io-dtype"),
        ({"samples": "x.npy"}, "--samples"),
        ({"family": "autoencoder"}, "--family"),
        ({"settings": {"activation": "tanh"}}, "--set"),
        ({"input_shape": (20,)}, "--input-shape"),
        ({"keep_fp32": ("layers.0.weight",)}, "--keep-fp32"),
        ({"precision": "auto"}, "auto"),
        ({"precision": "fp8"}, "fp8"),
        ({"target": ["abacus"]}, "abacus"),
        ({"weights": "inside"}, "inside"),
        ({"profile_shapes": {"input": (21,)}}, "Nx21"),
        ({"profile_shapes": {"image": ()}}, "image"),
        ({"engine_options": EngineOptions(profiles=((4, 2, 1),))}, "impossible"),
        ({"engine_options": EngineOptions(refit=True), "weights": "shared"}, "--refit"),
    ],
)
def test_what_makes_no_sense_for_a_bundle_is_refused_by_name(
    options: dict, word: str, plain: Path, builder: FakeBuilder
):
    before = contents(plain)
    with pytest.raises(UsageError) as caught:
        build(plain, **options)
    assert word in str(caught.value)
    assert contents(plain) == before
    assert builder.built == []


def test_a_precision_that_the_bundle_does_not_hold_is_refused(
    plain: Path, builder: FakeBuilder, checkpoints, quick_export
):
    build(checkpoints["dense"], plain, precision="fp32,fp16", target=())
    with pytest.raises(UsageError, match="does not hold this precision") as caught:
        build(plain, precision="fp16,bf16")
    assert caught.value.got == "bf16"


def test_a_damaged_bundle_is_refused_before_anything_is_built(plain: Path, builder: FakeBuilder):
    weights = plain / "weights.fp16.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(BundleError, match="altered"):
        build(plain)
    assert builder.built == []


def test_an_engine_that_fails_leaves_the_bundle_as_it_was(plain: Path, builder: FakeBuilder):
    before = contents(plain)
    builder.failing = {"decoder"}
    with pytest.raises(MissingRuntimeError, match="is left as it was"):
        build(plain, target=[TARGET])
    assert contents(plain) == before


def test_an_engine_that_stands_is_not_lost_where_building_it_anew_fails(
    plain: Path, builder: FakeBuilder
):
    build(plain, target=[TARGET], precision="fp16")
    before = contents(plain)
    builder.failing = {"decoder"}
    with pytest.raises(MissingRuntimeError, match="is left as it was"):
        build(plain, force=True)
    assert contents(plain) == before


# The command line.


def test_on_the_command_line_a_bundle_gets_engines(plain: Path, builder: FakeBuilder):
    arguments = ["build", plain.name, "--target", TARGET, "--precision", "fp16"]
    shapes = ["--minShapes", "input:2x20", "--optShapes", "input:4", "--maxShapes", "input:8"]
    done = tiedexport(*arguments, *shapes, "-q", cwd=plain.parent)
    assert done.returncode == 0, done.stderr
    assert {r.options.profiles for r in builder.requests} == {((2, 4, 8),)}
    again = tiedexport(*arguments, "-q", cwd=plain.parent)
    assert len(builder.built) == 3  # what was not said again is as it stands
    assert again.stdout.count("unchanged") == 3
    shown = tiedexport("inspect", plain.name, cwd=plain.parent)
    assert "2-4-8" in shown.stdout
    wrong = tiedexport(*arguments, "--optShapes", "input:4x21", cwd=plain.parent)
    assert wrong.returncode == 2
    assert "Nx20" in wrong.stderr


def test_what_is_to_be_known_of_several_engines_is_said_once(plain: Path, builder: FakeBuilder):
    build(plain, target=[TARGET], precision="fp16")
    builder.missing = {TARGET}
    done = tiedexport("build", plain.name, "--precision", "fp16", cwd=plain.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kept: built by fakert 1.0 elsewhere") == 1
    assert done.stdout.count("unchanged") == 3
