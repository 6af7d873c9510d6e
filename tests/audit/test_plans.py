"""Plans that TensorRT-RTX really builds, beside the weights that they were built from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import needs_rtx
from safetensors.numpy import save_file

sys.path.append(str(Path(__file__).parents[1] / "engines"))
from conftest import make_checkpoint
from tied_graphs import SHAPES, baked_request, shared_request

from tiedexport.audit import audit
from tiedexport.checkpoint import save_checkpoint
from tiedexport.engine_options import EngineOptions
from tiedexport.engines import EngineRequest, builder_for
from tiedexport.export import build

if TYPE_CHECKING:
    from tiedexport.results.ties import Stage


def plan_row(*things: Path) -> Stage:
    (row,) = [row for row in audit(things).stages if row.name == "engine plan"]
    return row


def built(path: Path, request: EngineRequest) -> Path:
    path.write_bytes(builder_for(request.target).build(request).plan)
    return path


@needs_rtx
def test_a_baked_plan_beside_its_graph_has_one_copy_at_the_offset_told(tmp_path: Path) -> None:
    request = baked_request(tmp_path)
    plan = built(tmp_path / "tied.plan", request)
    row = plan_row(plan, tmp_path / "autoencoder.onnx")
    assert row.status == "one copy"
    (tie,) = row.ties
    (copy,) = tie.copies
    raw = plan.read_bytes()[copy.offset :][: copy.size_bytes]
    weights = np.fromfile(tmp_path / "weights.bin", np.float16)[: int(np.prod(SHAPES["w"]))]
    assert raw == weights.tobytes()
    assert len(tie.uses) == 2


@needs_rtx
def test_a_plan_for_batch_one_stores_the_transpose_as_well(tmp_path: Path) -> None:
    options = EngineOptions(profiles=((1, 1, 1),), exact_profiles=True)
    plan = built(tmp_path / "one.engine", baked_request(tmp_path, options=options))
    row = plan_row(plan, tmp_path / "autoencoder.onnx")
    assert row.status == "copies"
    (tie,) = [tie for tie in row.ties if len(tie.copies) > 1]
    assert [copy.form for copy in tie.copies] in (
        ["original", "transposed"],
        ["original", "same"],
    )
    assert row.stored_bytes - row.needed_bytes == tie.needed_bytes


@needs_rtx
def test_a_weight_in_two_plans_is_stored_twice(tmp_path: Path) -> None:
    plans = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        plans.append(built(tmp_path / f"{name}.plan", baked_request(tmp_path / name)))
    row = plan_row(*plans, tmp_path / "a" / "autoencoder.onnx")
    assert row.status == "copies"
    assert {Path(copy.file).name for tie in row.ties for copy in tie.copies} == {"a.plan", "b.plan"}


@needs_rtx
def test_a_plan_without_the_weights_says_so(tmp_path: Path) -> None:
    plan = built(tmp_path / "inputs.plan", shared_request())
    others = np.random.default_rng(0).random((2, 32, 48))
    save_file({"encoder": others[0], "decoder": others[1]}, tmp_path / "w.safetensors")
    row = plan_row(plan, tmp_path / "w.safetensors")
    assert (row.status, row.stored_bytes) == ("no tie", 0)
    assert "they are its inputs, or it was built from others" in row.reason


@pytest.mark.parametrize(
    ("first", "dtypes", "form"),
    [
        ("same", "ff", "transposed"),
        ("transposed", "ff", "transposed"),
        ("same", "fe", "cast and transposed"),
        ("transposed", "ee", "transposed"),
        ("transposed", "ef", "cast and transposed"),
    ],
)
def test_the_second_occurrence_is_told_from_the_first(
    first: str, dtypes: str, form: str, tmp_path: Path
) -> None:
    w = np.random.default_rng(0).standard_normal((24, 40)).astype(np.float32)
    pair = (w, w.T) if first == "same" else (w.T, w)
    plan = b"".join(half.astype(t).tobytes() for half, t in zip(pair, dtypes, strict=True))
    (tmp_path / "hand.plan").write_bytes(plan)
    save_file({"w": w}, tmp_path / "w.safetensors")
    (tie,) = plan_row(tmp_path / "hand.plan", tmp_path / "w.safetensors").ties
    assert [copy.form for copy in tie.copies] == ["original", form]


def test_plans_large_enough_to_hide_a_weight_prove_nothing(tmp_path: Path) -> None:
    plan = tmp_path / "opaque.plan"
    plan.write_bytes(np.random.default_rng(1).bytes(4 << 20))
    save_file({"w": np.random.default_rng(0).random((512, 512))}, tmp_path / "w.safetensors")
    row = plan_row(plan, tmp_path / "w.safetensors")
    assert row.status == "not proven"
    assert "hide" in row.reason


@needs_rtx
@pytest.mark.parametrize(("weights", "status"), [("shared", "one copy"), ("baked", "copies")])
def test_a_bundle_is_judged_by_all_plans_of_a_target(
    weights: str, status: str, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "m.pt", make_checkpoint("autoencoder", {"widths": [48, 32]}))
    options = {"precision": "fp16", "target": ("rtx:sm89",), "weights": weights}
    build(tmp_path / "m.pt", tmp_path / "m.tied", **options)
    row = plan_row(tmp_path / "m.tied")
    assert row.status == status
    tie = next(tie for tie in row.ties if tie.name == "layers.0.weight")
    assert len(tie.copies) == (1 if weights == "shared" else 3)
    if weights == "shared":
        assert tie.copies[0].file.endswith("weights.fp16.safetensors")
        assert len(tie.uses) == 2
