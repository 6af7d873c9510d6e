"""What a parsed network takes and gives, held to what its stage declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tiedexport.manifest import Binding
from tiedexport.network import type_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.network import Parsed
    from tiedexport.spec import StageSpec


def bindings_of(
    parsed: Parsed, stage: StageSpec, weight_names: Sequence[str] | None
) -> tuple[Binding, ...]:
    """Inputs and weights, then outputs, as the network declares them.

    Args:
        parsed: the network.
        stage: what it computes; of several inputs, each has a batch axis of its own.
        weight_names: inputs that are parameters of the model, where those of the stage must be
            inputs; None where they must be constants.

    Raises:
        RuntimeError: the network lacks or adds an input or output, has one of another type, or
            couples two batches.
    """
    tensors = (*parsed.inputs, *parsed.outputs)
    roles = {spec.name: "input" for spec in stage.inputs}
    roles |= {spec.name: "output" for spec in stage.outputs}
    needed = set(roles)
    if weight_names is not None:
        roles |= dict.fromkeys(weight_names, "weight")
        needed |= {n for layer in stage.layers for n in (layer.weight, layer.bias) if n}
    names = {tensor.name for tensor in tensors}
    if missing := needed - names:
        raise RuntimeError(f"the network does not take or give {', '.join(sorted(missing))}")
    if unknown := names - roles.keys():
        raise RuntimeError(f"the network has undeclared {', '.join(sorted(unknown))}")
    for spec in (*stage.inputs, *stage.outputs):
        found = type_name(next(tensor for tensor in tensors if tensor.name == spec.name))
        if found != spec.dtype:
            raise RuntimeError(f"{spec.name} is {found} in the network, {spec.dtype} in the stage")
    _refuse_one_batch([tensor for tensor in parsed.inputs if roles[tensor.name] == "input"])
    return tuple(_binding(parsed, tensor, roles[tensor.name]) for tensor in tensors)


def _binding(parsed: Parsed, tensor: Any, role: str) -> Binding:
    return Binding(tensor.name, role, parsed.handle.precision(tensor.dtype), tuple(tensor.shape))


def _refuse_one_batch(inputs: Sequence[Any]) -> None:
    """TensorRT holds axes of one name to one size, but an idle half has a batch of its own."""
    axes = [tensor.get_dimension_name(0) for tensor in inputs]
    if len({axis for axis in axes if axis}) < len([axis for axis in axes if axis]):
        names = " and ".join(tensor.name for tensor in inputs)
        raise RuntimeError(f"{names} have the same batch axis, {axes[0]}")
