"""What a `torch.export` program computes, as a chain of layers split at its code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from msgspec.structs import replace
from torch import Tensor

from tiedexport import passes
from tiedexport.chain import ANY_NETWORK, layers_from_graph
from tiedexport.errors import GraphError
from tiedexport.families.module import Chain
from tiedexport.foreign.sharing import share_copies
from tiedexport.golden import INPUT
from tiedexport.passes import extract_stage
from tiedexport.spec import WEIGHTED_OPS, Layer, Precision
from tiedexport.trace import graph_from_program, unwrap_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from torch.export import ExportedProgram

_OPSET = 22  # of the graph that is read here; the bundle's are written anew
PROVIDE = "give the module encode and decode methods, or let forward return (reconstruction, code)"


@dataclass(frozen=True)
class SplitChain:
    """What a model computes.

    Attributes:
        layers: from the input to the reconstruction.
        encoder_layers: how many of them come before the code.
        parameters: what the layers name.
        merged: name of a weight that gave way to an equal one → which one, and how it follows.
        code: how the code was found, in words; "" where the model itself told.
    """

    layers: tuple[Layer, ...]
    encoder_layers: int
    parameters: dict[str, Tensor]
    merged: dict[str, str]
    code: str = ""


def chain_from_program(
    program: ExportedProgram, parameters: Mapping[str, Tensor], *, wrapped: bool
) -> SplitChain:
    """Read the layers off the program's graph, equal weights made one.

    Args:
        program: of one input, and one output (the code is then found by the ties) or two (the
            code is the one on the way to the other).
        parameters: of the program; a tensor of several names keeps the first.
        wrapped: the module stood inside `BothStages`.

    Raises:
        GraphError: it is no chain of layers that can be described, or its code cannot be found.
    """
    model = graph_from_program(program, _OPSET)
    if wrapped:
        unwrap_names(model.graph)
    model = passes.run(model, passes.CANONICAL[:1], _plan())
    _take_first_names(model.graph, parameters)
    merged = dict(share_copies(model.graph))
    _keep_clear_of_attributes(model.graph)
    model = passes.run(model, passes.CANONICAL[1:], _plan())
    outputs = [str(value.name) for value in model.graph.outputs]
    chains = sorted((_layers(model, output) for output in outputs), key=len)
    whole, code = chains[-1], ""
    if len(chains) == 1:
        encoder_layers = _second_use(whole)
        code = f"what goes into the second use of {whole[encoder_layers].weight}"
    elif len(chains) == 2 and whole[: len(chains[0])] == chains[0] != whole:
        encoder_layers = len(chains[0])
    else:
        raise GraphError(
            "no code and reconstruction",
            got=f"outputs {', '.join(outputs)}",
            expected="one output, or two of which one is computed from the other",
            hint=PROVIDE,
        )
    _refuse_weightless(whole, encoder_layers)
    return SplitChain(whole, encoder_layers, _parameters(model.graph, whole), merged, code)


def _take_first_names(graph: ir.Graph, parameters: Mapping[str, Tensor]) -> None:
    """Name a parameter of several names by the first, where the exporter takes the last."""
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in parameters.items():
        first.setdefault(_identity(tensor), name)
    for value in list(graph.initializers.values()):
        raw = getattr(value.const_value, "raw", None)
        own = first.get(_identity(raw)) if isinstance(raw, Tensor) else None
        if own is not None and own not in graph.initializers:
            _rename(graph, value, own)


def _keep_clear_of_attributes(graph: ir.Graph) -> None:
    """`encode.weight` becomes `encode_.weight`: in our module, `encode` is a method."""
    taken = {*dir(Chain), "input_shape", "_encoder", "_decoder"}
    for value in list(graph.initializers.values()):
        head, dot, rest = str(value.name).partition(".")
        if head in taken:
            _rename(graph, value, f"{head}_{dot}{rest}")


def _rename(graph: ir.Graph, value: ir.Value, name: str) -> None:
    del graph.initializers[str(value.name)]
    value.name = name
    graph.register_initializer(value)


def _identity(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _plan(output: str = "") -> passes.Plan:
    return passes.Plan((), (INPUT,), (output,), Precision.FP32, Precision.FP32, Path())


def _layers(model: ir.Model, output: str) -> tuple[Layer, ...]:
    layers = layers_from_graph(extract_stage.apply(model, _plan(output)).graph)
    # How this export names values is no property of the model.
    return tuple(replace(layer, output="") for layer in layers)


def _second_use(layers: tuple[Layer, ...]) -> int:
    """The layer that first uses a weight again: with nested ties, the innermost."""
    seen: set[str] = set()
    for i, layer in enumerate(layers):
        if layer.weight in seen:
            return i
        if layer.weight is not None:
            seen.add(layer.weight)
    raise GraphError(
        "the code cannot be found: no weight is used twice",
        got=f"the weights {', '.join(sorted(seen)) or '(none)'}",
        expected="a weight that encodes, and then decodes",
        hint=PROVIDE,
    )


def _refuse_weightless(layers: tuple[Layer, ...], encoder_layers: int) -> None:
    parts = {"encoder": layers[:encoder_layers], "decoder": layers[encoder_layers:]}
    for name, part in parts.items():
        if not any(layer.op in WEIGHTED_OPS for layer in part):
            raise GraphError(
                f"the {name} has no weight",
                got=", ".join(layer.op for layer in part) or "nothing",
                expected="dense layers or convolutions on both sides of the code",
                hint=ANY_NETWORK,
            )


def _parameters(graph: ir.Graph, layers: tuple[Layer, ...]) -> dict[str, Tensor]:
    """The tensors that layers name, in their order, without a copy where torch holds them."""
    names = dict.fromkeys(
        name for layer in layers for name in (layer.weight, layer.bias) if name is not None
    )
    found = {}
    for name in names:
        tensor = graph.initializers[name].const_value
        assert tensor is not None  # an initializer has a tensor
        raw = tensor.raw
        found[name] = raw.detach() if isinstance(raw, Tensor) else torch.tensor(tensor.numpy())
    return found
