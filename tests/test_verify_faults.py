"""Every fault planted in a bundle fails, in the row where it was planted and in no other."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conftest import MODELS, make_checkpoint, resign, sign_files
from safetensors.numpy import load_file, save_file

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.errors import BundleError
from tiedexport.export import build
from tiedexport.results import VerifyResult
from tiedexport.spec import Precision
from tiedexport.verify import verify
from tiedexport.weights_file import write_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FP32, FP16, BF16 = Precision
ON_GRAPHS = ("onnxruntime", "reference")
STAGES = ("encoder", "decoder", "autoencoder")


def failed(result: VerifyResult) -> set[tuple[str, Precision | None]]:
    return {(row.stage, row.precision) for row in result.comparisons if row.status == "failed"}


# Planted faults.


@pytest.fixture
def copied(dense_bundle: Bundle, tmp_path: Path) -> Path:
    return shutil.copytree(dense_bundle.path, tmp_path / "b.tied")


def alter_graph(path: Path, edit: Callable[[onnx.GraphProto], None]) -> None:
    model = onnx.load(path, load_external_data=False)
    edit(model.graph)
    onnx.save(model, path)
    sign_files(path.parent)


def node_of(graph: onnx.GraphProto, operator: str) -> onnx.NodeProto:
    return next(node for node in graph.node if node.op_type == operator)


def _drop_bias(graph: onnx.GraphProto) -> None:
    del node_of(graph, "Gemm").input[2]


def _drop_activation(graph: onnx.GraphProto) -> None:
    relu = node_of(graph, "Relu")
    relu.op_type = "Identity"


def _leak(graph: onnx.GraphProto) -> None:
    relu = node_of(graph, "Relu")
    relu.op_type = "LeakyRelu"


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", [_drop_bias, _drop_activation, _leak])
def test_a_fault_in_one_graph_fails_that_graph_and_no_other(copied, stage, precision, fault):
    alter_graph(copied / f"{stage}.{precision}.onnx", fault)
    result = verify(copied, runtime=["reference"])
    assert not result.passed
    assert failed(result) == {(stage, precision)}


def test_a_square_weight_transposed_wrongly_fails(tmp_path: Path):
    save_checkpoint(tmp_path / "m.pt", make_checkpoint("autoencoder", {"widths": [9, 9]}))
    build(tmp_path / "m.pt", target=(), precision="fp32,fp16")
    path = tmp_path / "m.tied"
    assert verify(path, runtime=ON_GRAPHS).passed

    def transpose(graph: onnx.GraphProto) -> None:
        (flag,) = (a for a in node_of(graph, "Gemm").attribute if a.name == "transB")
        flag.i = 0

    alter_graph(path / "encoder.fp16.onnx", transpose)
    result = verify(path, runtime=ON_GRAPHS)
    assert not result.passed
    assert failed(result) == {("encoder", FP16)}


@pytest.mark.parametrize("precision", Precision)
def test_weights_of_another_model_fail_every_stage(copied: Path, precision: Precision):
    other = make_checkpoint(*MODELS["dense"], seed=1).state
    weights = {name: tensor.numpy().astype(precision.dtype) for name, tensor in other.items()}
    save_file(weights, copied / f"weights.{precision}.safetensors")
    sign_files(copied)
    result = verify(copied, runtime=["torch"])
    assert {(stage, precision) for stage in STAGES} <= failed(result)


@pytest.mark.parametrize("stripped", [False, True])
@pytest.mark.parametrize("precision", [FP16, BF16])
def test_weights_of_another_model_fail_where_no_fp32_weights_can_tell(
    checkpoints, precision: Precision, stripped: bool, tmp_path: Path
):
    build(checkpoints["dense"], tmp_path / "b.tied", precision=precision, target=())
    other = make_checkpoint(*MODELS["dense"], seed=1).state
    weights = {name: tensor.numpy().astype(precision.dtype) for name, tensor in other.items()}
    save_file(weights, tmp_path / "b.tied" / f"weights.{precision}.safetensors")
    sign_files(tmp_path / "b.tied")
    if stripped:
        resign(tmp_path / "b.tied", tolerances=())
    result = verify(tmp_path / "b.tied", runtime=["torch"])
    assert failed(result) == {(stage, precision) for stage in STAGES}


@pytest.mark.parametrize(("value", "counter"), [(np.nan, "nan_count"), (np.inf, "inf_count")])
def test_outputs_that_are_not_finite_are_counted_and_fail(copied: Path, value: float, counter: str):
    path = copied / "weights.fp16.safetensors"
    weights = load_file(path)
    weights["layers.1.encoder_bias"][0] = value
    write_weights(path, weights)
    sign_files(copied)
    result = verify(copied, runtime=["reference"])
    (row,) = (r for r in result.comparisons if (r.stage, r.precision) == ("encoder", FP16))
    assert row.status == "failed"
    assert getattr(row, counter) == len(open_bundle(copied).golden["code"])
    assert not result.passed


def test_a_graph_that_its_runtime_refuses_is_a_failed_row_in_the_runtimes_words(copied: Path):
    (copied / "decoder.fp32.onnx").write_bytes(b"\xff" * 100)
    sign_files(copied)
    result = verify(copied, runtime=ON_GRAPHS)
    assert failed(result) == {("decoder", FP32)}
    for row in result.comparisons:
        assert row.status == "passed" or "decoder" in row.reason or row.status == "not run"


def test_tampering_is_an_error_before_anything_is_compared(copied: Path):
    (copied / "golden.npz").write_bytes(b"")
    with pytest.raises(BundleError):
        verify(copied)
