"""Graph passes over onnx_ir, and the pipelines that order them.

Every file in this package is one pass: a function `apply(model, plan)` that returns the model it
made; `halves`, which makes one graph of two, is called by `join_halves`. After each pass the ties
are asserted, and an error names the pass that broke one.
"""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tiedexport import copies
from tiedexport.errors import TieBrokenError
from tiedexport.stored import in_memory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from tiedexport.spec import Precision, Tie

CANONICAL = ("canonical", "layer_form", "stable_names")
"""What every exported graph goes through first."""

STAGE_FILE = ("extract_stage", "lower_precision", "external_weights")
"""The canonical graph → the graph of one stage, its weights in the bundle's safetensors file."""

WEIGHT_INPUTS = ("weight_inputs", "whole_bias")
"""The graph of a stage → one that takes its weights as inputs."""


@dataclass(frozen=True)
class Plan:
    """What a pipeline is to make.

    Attributes:
        ties: the weights that must be stored exactly once after every pass.
        inputs, outputs: names of the values that bound the stage.
        precision: the type to compute in; `io_dtype` the type of the stage's inputs and outputs.
        weights: the safetensors file of that precision, which all graphs share.
        kept: weight → the type that its layers compute in instead of `precision`.
    """

    ties: tuple[Tie, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    precision: Precision
    io_dtype: Precision
    weights: Path
    kept: Mapping[str, Precision] = field(default_factory=dict)


def run(model: ir.Model, names: tuple[str, ...], plan: Plan) -> ir.Model:
    """Run passes in order.

    Raises:
        TieBrokenError: after a pass, a tied weight is not stored exactly once.
        GraphError: a pass met something it cannot transform.
    """
    for name in names:
        model = importlib.import_module(f"{__name__}.{name}").apply(model, plan)
        assert_tied(model, plan.ties, after=name)
    return model


def join_halves(encoder: ir.Model, decoder: ir.Model, ties: tuple[Tie, ...]) -> ir.Model:
    """The graphs of two stages as one, for an engine that holds their weights once.

    Raises:
        TieBrokenError: it does not hold each tied weight exactly once.
        GraphError: the graphs do not fit together.
    """
    from tiedexport.passes import halves

    model = halves.join(encoder, decoder)
    assert_tied(model, ties, after="halves")
    return model


def assert_tied(model: ir.Model, ties: tuple[Tie, ...], after: str) -> None:
    """Each tie has exactly one tensor in the graph, by name and by content.

    A weight that has become an input of the graph is stored nowhere in it, which is as good.

    Raises:
        TieBrokenError: a tied weight is missing, or a copy of it (transposed, cast) is stored too.
    """
    tensors = _stored_tensors(model)
    inputs = {value.name for value in model.graph.inputs}
    for tie in ties:
        if tie.weight not in tensors and tie.weight not in inputs:
            raise TieBrokenError(
                "a tied weight is gone", where=f"pass {after}", got="no tensor", expected=tie.weight
            )
    tied = {tie.weight: tie for tie in ties if tie.weight in tensors}
    sizes = {tensors[name].size for name in tied}
    # A tensor alone of its size has no copy, and its numbers may not be computed yet.
    sizes &= {size for size, n in Counter(t.size for t in tensors.values()).items() if n > 1}
    stored = [
        in_memory(name, tensor.numpy()) for name, tensor in tensors.items() if tensor.size in sizes
    ]
    for group in copies.find(stored):
        for copy in group.copies:
            names = [copy.tensor.name, group.original.name]
            if (weight := next((name for name in names if name in tied), None)) is None:
                continue
            names.remove(weight)
            raise TieBrokenError(
                "a tied weight is stored twice",
                where=f"pass {after}",
                got=f"{names[0]} is {weight} ({copy.form})",
                expected=f"one tensor for {', '.join(tied[weight].uses)}",
            )


def _stored_tensors(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Every initializer and every tensor inside a Constant node, by name."""
    stored = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    for node in model.graph.all_nodes():
        if node.op_type == "Constant" and "value" in node.attributes:
            stored[node.outputs[0].name or node.name or ""] = node.attributes["value"].as_tensor()
    return stored
