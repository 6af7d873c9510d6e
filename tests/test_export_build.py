"""A build repeats itself, checks itself and its arguments, and survives engines that fail."""

from __future__ import annotations

import filecmp
import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from conftest import MODELS, make_checkpoint

from tiedexport import engines, passes, rounding
from tiedexport.bundle import MANIFEST, Bundle, open_bundle
from tiedexport.checkpoint import Checkpoint, save_checkpoint
from tiedexport.engines import Engine
from tiedexport.errors import CheckpointError, GraphError, RuntimeFailedError, UsageError
from tiedexport.export import build, plan
from tiedexport.results import Availability
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

FP32, FP16, BF16 = Precision
STAGES = ("encoder", "decoder", "autoencoder")
ONNX_TYPES = {
    FP32: onnx.TensorProto.FLOAT,
    FP16: onnx.TensorProto.FLOAT16,
    BF16: onnx.TensorProto.BFLOAT16,
}
LAYERS = {"dense": 2, "dense-gelu-linear": 2, "untied": 1, "conv": 2}

FP32, FP16, BF16 = Precision
STAGES = ("encoder", "decoder", "autoencoder")


# Determinism.


def test_a_bundle_built_twice_differs_in_its_time_stamp_only(
    checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trees = [tmp_path / side / "b.tied" for side in ("one", "two")]
    for epoch, tree in zip(("1700000000", "1700000001"), trees, strict=True):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        build(checkpoint_path, tree, target=())
    names, others = (sorted(p.name for p in tree.iterdir()) for tree in trees)
    assert names == others
    assert filecmp.cmpfiles(*trees, names, shallow=False)[1:] == ([MANIFEST], [])
    manifests = [(tree / MANIFEST).read_text() for tree in trees]
    assert [json.loads(text)["created"][-3:] for text in manifests] == ["20Z", "21Z"]
    lines = zip(*map(str.splitlines, manifests), strict=True)
    differing = [one.split(":")[0].strip() for one, two in lines if one != two]
    assert differing == ['"created"', '"digest"']


def test_a_bundle_built_twice_at_one_time_is_the_same_in_every_byte(
    checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    trees = [tmp_path / side / "b.tied" for side in ("one", "two")]
    for tree in trees:
        build(checkpoints["dense"], tree, target=(), precision="fp16")
    names = sorted(p.name for p in trees[0].iterdir())
    assert filecmp.cmpfiles(*trees, names, shallow=False) == (names, [], [])


# Golden pairs.


def test_golden_pairs_are_the_models_own_answers_in_float64(bundle: Bundle, model_name: str):
    module = make_checkpoint(*MODELS[model_name]).module().double()
    golden = bundle.golden
    assert set(golden) == {"input", "code", "reconstruction"}
    assert golden["input"].dtype == np.float32
    assert golden["code"].dtype == golden["reconstruction"].dtype == np.float64
    x = torch.from_numpy(golden["input"]).double()
    code = module.encode(x)
    np.testing.assert_allclose(golden["code"], code.numpy(), rtol=1e-12)
    np.testing.assert_allclose(golden["reconstruction"], module.decode(code).numpy(), rtol=1e-12)


def test_a_summary_of_the_bound_is_recorded_for_every_stage_and_precision(bundle: Bundle):
    recorded = {(row.stage, row.precision): row for row in bundle.manifest.tolerances}
    assert set(recorded) == {(s, p) for s in STAGES for p in bundle.manifest.precisions}
    for (stage, precision), row in recorded.items():
        spec = bundle.manifest.stage(stage)
        x = bundle.golden[spec.inputs[0].name][:1].astype(np.float64)
        kinds = {"precision": precision, "accumulation": FP32, "io": FP32}
        bound = rounding.forward_bound(spec.layers, bundle.weights(FP32), x, **kinds).bound
        assert row.largest_bound == pytest.approx(bound.max(), rel=1e-9)
        assert row.median_bound == pytest.approx(np.median(bound), rel=1e-9)


def test_a_graph_that_computes_something_else_is_refused(
    checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def swap_activation(model, names, plan):
        model = run(model, names, plan)
        for node in model.graph:
            if node.op_type == "Relu":
                node.op_type = "Tanh"
        return model

    run = passes.run
    monkeypatch.setattr(passes, "run", swap_activation)
    with pytest.raises(GraphError, match="does not compute what the model computes"):
        build(checkpoints["dense"], tmp_path / "b.tied", target=())
    assert not list(tmp_path.iterdir())


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"precision": "fp8"}, "unknown precision"),
        ({"precision": "fp16,,fp32"}, "unknown precision"),
        ({"precision": "auto,fp16"}, r"unknown precision[^$]*auto stands alone"),
        ({"weights": "inside"}, "unknown weights mode"),
        ({"io_dtype": "bf16"}, "unknown I/O dtype"),
        ({"opset": 17}, "unsupported opset"),
        ({"opset": 24}, "unsupported opset"),
        ({"target": ("abacus",)}, "target"),
    ],
)
def test_a_bad_argument_is_an_error_of_usage_and_writes_nothing(
    arguments, what, checkpoints, tmp_path: Path
):
    with pytest.raises(UsageError, match=what):
        build(checkpoints["dense"], tmp_path / "b.tied", **{"target": (), **arguments})
    assert not list(tmp_path.iterdir())


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no such checkpoint") as caught:
        build(tmp_path / "model.pt", target=())
    assert str(tmp_path / "model.pt") in str(caught.value)


def test_a_weight_beyond_fp16_is_named_and_bf16_is_the_way_out(tmp_path: Path):
    large = make_checkpoint(*MODELS["dense"])
    large.state["layers.1.weight"][2, 3] = -1e5
    save_checkpoint(tmp_path / "model.pt", large)
    with pytest.raises(GraphError, match="does not fit into fp16") as caught:
        build(tmp_path / "model.pt", target=())
    assert caught.value.where == "layers.1.weight"
    assert "bf16" in str(caught.value.hint)
    assert not (tmp_path / "model.tied").exists()
    build(tmp_path / "model.pt", precision="fp32,bf16", target=())
    open_bundle(tmp_path / "model.tied")


def test_by_default_the_bundle_lies_beside_the_checkpoint_in_fp32_and_fp16(tmp_path: Path):
    save_checkpoint(tmp_path / "model.pt", make_checkpoint(*MODELS["dense"]))
    result = build(tmp_path / "model.pt", target=())
    assert result.bundle == str(tmp_path / "model.tied")
    assert result.precisions == (FP32, FP16)


def test_a_plan_of_work_writes_nothing(tmp_path: Path):
    save_checkpoint(tmp_path / "model.pt", make_checkpoint(*MODELS["dense"]))
    text = plan(tmp_path / "model.pt", precision="bf16", target=["rtx:sm89"])
    for word in ("bf16", "rtx:sm89", "model.tied", "encoder, decoder, autoencoder"):
        assert word in text
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_a_checkpoint_saved_from_transposed_memory_gives_the_same_weights(tmp_path: Path):
    plain = make_checkpoint(*MODELS["dense"])
    state = {k: v.t().contiguous().t() if v.ndim == 2 else v for k, v in plain.state.items()}
    strided = Checkpoint(
        plain.family, plain.config, state, plain.sample_shape, plain.samples, plain.training
    )
    save_checkpoint(tmp_path / "model.pt", strided)
    build(tmp_path / "model.pt", target=(), precision="fp32")
    weights = open_bundle(tmp_path / "model.tied").weights(FP32)
    for name, tensor in plain.state.items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())


# Engines.


class FakeBuilder:
    """Builds, fails, refuses or is unavailable, as told."""

    name, forms = "fake", ("fake",)

    def __init__(self, behaviour: str) -> None:
        self._behaviour = behaviour

    def availability(self, target: str) -> Availability:
        if self._behaviour == "unavailable":
            return Availability(False, reason="no driver", remedy="install one")
        return Availability(True, "1.0")

    def fingerprint(self, target: str) -> tuple[str, ...]:
        return self.name, "1.0"

    def refusal(self, request: engines.EngineRequest) -> str | None:
        refused = self._behaviour == "refusing" and request.stage.name == "autoencoder"
        return "too large for this device" if refused else None

    def build(self, request: engines.EngineRequest, progress: engines.Progress) -> Engine:
        progress("tactics", 1, 2)
        if self._behaviour == "failing" and request.stage.name == "decoder":
            raise RuntimeFailedError("the builder failed", got="out of memory")
        return Engine(b"plan of " + request.stage.name.encode(), "fake", "1.0", (89,), ())


@pytest.mark.parametrize(
    ("behaviour", "statuses"),
    [
        ("unavailable", ["not run"]),
        ("refusing", ["passed", "passed", "not run"]),
        ("failing", ["passed", "failed", "passed"]),
        ("building", ["passed"] * 3),
    ],
)
def test_an_engine_that_cannot_be_built_is_a_row_and_leaves_the_bundle_whole(
    behaviour, statuses, checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engines, "builder_for", lambda target: FakeBuilder(behaviour))
    result = build(checkpoints["dense"], tmp_path / "b.tied", target=["fake"])
    assert [row.status for row in result.engines] == statuses
    assert all(row.reason for row in result.engines if row.status != "passed")
    manifest = open_bundle(tmp_path / "b.tied").manifest
    built = [row for row in result.engines if row.status == "passed"]
    assert [record.file for record in manifest.plans] == [row.file for row in built]
    graphs = {f"plans/graphs/{record.stage}.fp16.onnx" for record in manifest.plans}
    assert {record.graph for record in manifest.plans} == graphs
    on_disk = {path for path in (tmp_path / "b.tied" / "plans").rglob("*") if path.is_file()}
    assert on_disk == {tmp_path / "b.tied" / f for f in graphs | {row.file for row in built}}
    assert result.engine_bytes == sum(path.stat().st_size for path in on_disk)
    for record in manifest.plans:
        assert record.file == f"plans/fake/{record.stage}.fp16.plan"
        assert manifest.files[record.file].size_bytes == len(f"plan of {record.stage}")
