r"""How far a node may stray when a weight gives way to one that is nearly equal.

With ΔW between the two, y = x W sums n products, and in floating point, in any order,
|fl(x W) - x W| ≤ γ_n |x| |W|, γ_n = n u / (1 - n u) (Higham, "Accuracy and Stability of Numerical
Algorithms", 2002, §3.1). So two evaluations may differ by at most

    |Δy| ≤ |x| |ΔW| + 2 γ_n |x| |W| + 2 u' / (1 - u') |y|

with u of the type that sums are kept in (fp32 for half precision on a CPU) and u' of the type that
the result is stored in, where that is narrower; and half the smallest number of the type more for
each rounding that may underflow. Everything that is linear in the weight has this form; what only
moves elements has ΔW alone, and nothing is known of what reads it. All of it is computed in
float64, by the node itself on absolute values.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from tiedexport.retie import single, write
from tiedexport.retie.graph import GraphFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.feeds import Feed
    from tiedexport.retie.mend import Change
    from tiedexport.retie.proof import Runner

_SUMMING = {"MatMul", "Gemm", "Conv", "ConvTranspose", "Add", "Sub", "Mul"}
_MOVING = {"Gather", "Transpose", "Reshape", "Identity", "Flatten", "Squeeze", "Unsqueeze"}
_EXTRA_TERMS = 3  # a bias, and scaling by alpha and beta


class UnboundedError(Exception):
    """A node for which no bound is known, in words."""


class Strayed(NamedTuple):
    """How far the nodes that read changed weights stray.

    Attributes:
        ratio: the largest |Δy| over its bound.
        passed_on: nodes that only move a changed weight on, to others that have no bound.
    """

    ratio: float
    passed_on: tuple[str, ...]


def worst(
    original: Path,
    changes: Sequence[Change],
    feeds: Sequence[Feed],
    runner: type[Runner],
    near: Path,
) -> Strayed:
    """The largest |Δy| over its bound, of all nodes that read a changed weight.

    Args:
        original: the graph as it was given.
        changes: its changed weights.
        feeds: inputs of the graph.
        runner: runs a graph.
        near: a folder for a copy of the graph that returns the nodes' inputs as well.

    Raises:
        UnboundedError: a node that this knows no bound for.
    """
    file = GraphFile(original)
    uses = [(node, change) for change in changes for node in _readers(file, change.old.name)]
    if not uses:
        return Strayed(0.0, ())
    wanted = sorted({str(v.name) for node, _ in uses for v in node.inputs if v is not None})
    with tempfile.TemporaryDirectory(dir=near) as folder:
        probe = runner(_probe(file, wanted, Path(folder)))
        probed = [dict(zip(wanted, probe.run(feed)[-len(wanted) :], strict=True)) for feed in feeds]
    opsets = dict(file.model.opset_imports)
    ratios = [
        _ratio(node, opsets, change, inputs, runner) for node, change in uses for inputs in probed
    ]
    moving = {node for node, _ in uses if node.op_type in _MOVING and node.outputs[0].uses()}
    return Strayed(max(ratios), tuple(sorted(node.name or node.op_type for node in moving)))


def _readers(file: GraphFile, name: str) -> list[ir.Node]:
    """The nodes that read an initializer, each once.

    Raises:
        UnboundedError: one of them is in a subgraph, or of a kind that has no bound here.
    """
    nodes = list(dict.fromkeys(use.node for use in file.model.graph.initializers[name].uses()))
    for node in nodes:
        label = f"{node.name or node.op_type} reads {name}"
        if node.graph is not file.model.graph:
            raise UnboundedError(f"{label} in a subgraph, where its change cannot be bounded")
        if node.domain or node.op_type not in _SUMMING | _MOVING or len(node.outputs) != 1:
            raise UnboundedError(f"{label}: no bound is known for {node.op_type}")
    return nodes


def _probe(file: GraphFile, wanted: Sequence[str], folder: Path) -> Path:
    """The graph with the named values as its last outputs."""
    graph = file.model.graph
    values = {v.name: v for v in (*graph.inputs, *graph.initializers.values())}
    values.update((v.name, v) for node in graph for v in node.outputs)
    for name in wanted:
        copied = ir.Value(name=file.free(name))
        graph.append(ir.node("Identity", [values[name]], outputs=[copied]))
        graph.outputs.append(copied)
    layout = write.Layout([file], "probe.data")
    layout.place(budget_bytes=0)
    return layout.write(folder)[0]


def _ratio(
    node: ir.Node, opsets: dict[str, int], change: Change, inputs: Feed, runner: type[Runner]
) -> float:
    """The largest |Δy| over its bound for one node and one set of its inputs."""
    name = change.old.name
    changed = {**inputs, name: change.new()}
    proto = ir.to_proto(node)
    feed = {key: inputs[key] for key in dict.fromkeys(proto.input) if key}
    run = runner(single.model_of(proto, opsets, feed).SerializeToString())
    before = run.run(feed)[0]
    after = run.run({key: changed[key] for key in feed})[0]
    with np.errstate(all="ignore"):
        limit = _limit(proto, opsets, feed, name, changed[name]) + _storing(before, after)
        ratios = differences(before, after) / limit
    ratios = np.where(same_numbers(before, after), 0.0, ratios)
    return float(np.max(np.where(np.isnan(ratios), np.inf, ratios), initial=0.0))


def differences(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """|before - after|, float64; infinite where only one is a number, or they are infinities."""
    one, other = before.astype(np.float64), after.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gaps: np.ndarray = np.where(same_numbers(one, other), 0.0, np.abs(one - other))
    gaps[np.isnan(gaps)] = np.inf
    return gaps


def same_numbers(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where both are equal, or both NaN: booleans."""
    same: np.ndarray = (before == after) | (np.isnan(before) & np.isnan(after))
    return same


def _limit(
    node: onnx.NodeProto, opsets: dict[str, int], feed: Feed, name: str, new: np.ndarray
) -> Any:
    """The bound of every element of the node's output before it is stored, float64."""
    old = feed[name].astype(np.float64)
    sized = {
        key: np.abs(x.astype(np.float64)) if x.dtype.kind == "f" else x for key, x in feed.items()
    }
    magnitude = _of_magnitudes(node)

    def of(**weights: np.ndarray) -> Any:
        return single.evaluate(magnitude, opsets, {**sized, **weights})

    difference = np.abs(new.astype(np.float64) - old)
    if node.op_type in _MOVING:
        return of(**{name: difference})
    # Linear in each of its inputs: also right where the node reads the weight twice.
    moved = of(**{name: np.abs(old) + difference}) - of(**{name: np.abs(old)})
    largest = np.maximum(np.abs(old), np.abs(new.astype(np.float64)))
    terms = _terms(node, opsets, sized)
    kept_in = np.finfo(np.float64 if feed[name].dtype == np.float64 else np.float32)
    u = float(kept_in.eps) / 2
    gamma = terms * u / (1 - terms * u) if terms * u < 1 else np.inf
    underflow = terms * float(kept_in.smallest_subnormal)
    return moved + 2 * gamma * of(**{name: largest}) + underflow


def _of_magnitudes(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node that adds up what the node might subtract."""
    magnitude = onnx.NodeProto()
    magnitude.CopyFrom(node)
    magnitude.op_type = "Add" if node.op_type == "Sub" else node.op_type
    for attribute in magnitude.attribute:
        attribute.f = abs(attribute.f)  # alpha and beta
    return magnitude


def _terms(node: onnx.NodeProto, opsets: dict[str, int], feed: Feed) -> float:
    """The most terms that an element of the output is a sum of."""
    counting = _of_magnitudes(node)
    for attribute in counting.attribute:
        if attribute.name in ("alpha", "beta"):
            attribute.f = 1.0
    ones = {key: np.ones_like(x) if x.dtype.kind == "f" else x for key, x in feed.items()}
    return float(np.max(single.evaluate(counting, opsets, ones), initial=0.0)) + _EXTRA_TERMS


def _storing(before: np.ndarray, after: np.ndarray) -> Any:
    """Two roundings to a type that is narrower than the sums."""
    if before.dtype != np.float16:
        return 0.0
    kept_in = np.finfo(np.float16)
    u, underflow = float(kept_in.eps) / 2, float(kept_in.smallest_subnormal)
    largest = np.maximum(np.abs(before), np.abs(after)).astype(np.float64)
    return 2 * u / (1 - u) * largest + underflow
