"""A weight that is external data stays where the parser maps it; 16 bits are widened in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conftest import needs_rtx
from onnx import helper
from random_networks import ELEMENT_TYPES

from tiedexport import network, trt
from tiedexport.memory import PeakMemory
from tiedexport.network.evaluate import evaluate
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_rtx
SIDE, BUFFERS_BYTES = 3072, 20 << 20


def tied_graph(path: Path, precision: Precision) -> np.ndarray:
    """Write x Wᵀ W as a graph with W in a file beside it, and return W."""
    kind = ELEMENT_TYPES[precision]
    weight = np.random.default_rng(0).normal(size=(SIDE, SIDE), scale=1 / 64)
    stored = weight.astype(precision.dtype)
    stored.tofile(path.with_suffix(".bin"))
    tensor = onnx.TensorProto(name="w", data_type=kind, dims=stored.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=path.with_suffix(".bin").name)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["z"], transB=1),
        helper.make_node("Gemm", ["z", "w"], ["y"]),
    ]
    shape = ["n", SIDE]
    ends = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "tied", ends[:1], ends[1:], [tensor])
    opset = helper.make_opsetid("", 22)
    path.write_bytes(helper.make_model(graph, opset_imports=[opset]).SerializeToString())
    return stored


@pytest.mark.parametrize("precision", Precision)
def test_a_weight_is_in_memory_once_and_wider_only_in_parts(tmp_path: Path, precision: Precision):
    weight_bytes = tied_graph(tmp_path / "g.onnx", precision).nbytes
    parsed = network.parse(trt.load("tensorrt_rtx"), tmp_path / "g.onnx")
    x = np.ones((2, SIDE), precision.dtype)
    with PeakMemory(interval_s=0.01) as memory:
        y = evaluate(parsed, {"x": x}, ["y"])["y"]
    assert memory.peak_bytes - memory.start_bytes <= weight_bytes + BUFFERS_BYTES
    assert np.all(np.isfinite(y.astype(np.float32)))
