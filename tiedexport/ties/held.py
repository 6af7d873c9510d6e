"""Every tensor that a live module holds, and copies of the module that share storage as it does."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from tiedexport.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind = Literal["parameter", "buffer", "attribute"]


@dataclass(frozen=True, eq=False)
class Held:
    """One name for a tensor of a module.

    Attributes:
        name: dotted, as `named_parameters` has it; an element of a list is "name[0]".
        kind: "attribute" is a tensor that torch does not know of: it is in no state dict.
        owner: the submodule that holds it.
    """

    name: str
    tensor: Tensor
    kind: Kind
    owner: nn.Module


def held_tensors(module: nn.Module) -> list[Held]:
    """Every tensor by every name: parameters first, then buffers, then plain attributes.

    Raises:
        BadInputError: a weight is not in memory.
    """
    found = [one for path, owner in walk(module) for one in _of(path, owner)]
    for one in found:
        if one.tensor.is_meta or nn.parameter.is_lazy(one.tensor):
            raise BadInputError(
                "the module's weights are not in memory",
                where=one.name,
                got="device meta" if one.tensor.is_meta else "a lazy module that has not run",
                hint="load the weights, or run a lazy module once",
            )
    order: tuple[Kind, ...] = ("parameter", "buffer", "attribute")
    return sorted(found, key=lambda one: order.index(one.kind))


def walk(
    module: nn.Module, path: str = "", above: tuple[int, ...] = ()
) -> Iterator[tuple[str, nn.Module]]:
    """Each submodule by each path to it; one that contains itself is entered once."""
    yield path, module
    for name, child in module._modules.items():
        if child is not None and id(child) not in (*above, id(module)):
            yield from walk(child, join(path, name), (*above, id(module)))


def paths_by_id(module: nn.Module) -> dict[int, str]:
    """The first path of each submodule, by identity."""
    return {id(one): path for path, one in reversed(list(walk(module)))}


def join(path: str, name: str) -> str:
    """A dotted name."""
    return f"{path}.{name}" if path else name


def _of(path: str, owner: nn.Module) -> Iterator[Held]:
    registered: tuple[tuple[Kind, Any], ...] = (
        ("parameter", owner._parameters),
        ("buffer", owner._buffers),
        ("attribute", vars(owner)),
    )
    for kind, values in registered:
        for name, value in values.items():
            if isinstance(value, Tensor):
                yield Held(join(path, name), value, kind, owner)
            elif kind == "attribute" and isinstance(value, list | tuple):
                for index, element in enumerate(value):
                    if isinstance(element, Tensor):
                        yield Held(join(path, f"{name}[{index}]"), element, kind, owner)


def storage_of(tensor: Tensor) -> int | None:
    """The identity of a tensor's memory; None where it has none of its own."""
    if tensor.layout != torch.strided or type(tensor) not in (Tensor, nn.Parameter):
        return None
    storage = tensor.untyped_storage()
    return storage.data_ptr() or cast("int", storage._cdata)


def axes_between(original: Tensor, other: Tensor) -> tuple[int, ...] | None:
    """The axes for which `original.permute(axes)` is `other`, element by element in memory."""
    if (
        storage_of(original) is None
        or storage_of(original) != storage_of(other)
        or original.storage_offset() != other.storage_offset()
        or original.dtype != other.dtype
        or original.ndim != other.ndim
    ):
        return None
    steps = list(zip(original.shape, original.stride(), strict=True))
    wanted = list(zip(other.shape, other.stride(), strict=True))
    for axes in permutations(range(original.ndim)):
        pairs = zip((steps[axis] for axis in axes), wanted, strict=True)
        if all(a[0] == b[0] and (a[0] == 1 or a[1] == b[1]) for a, b in pairs):
            return axes
    return None


def is_hooked(tensor: Tensor) -> bool:
    """Whether a function of somebody's is called with its gradient, and may change it."""
    return bool(tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None))


def stand_ins(
    tensors: Iterable[Tensor],
    dtype: torch.dtype | None = None,
    thawed: frozenset[int] = frozenset(),
) -> dict[int, Tensor]:
    """For each tensor, by identity, a clone; clones share memory where the tensors do.

    Hooks on gradients stay behind: they are somebody's code, and may reach the module itself.

    Args:
        tensors: Parameters become Parameters; what was computed from a Parameter on the same
            memory (a stored `weight.t()`) is computed again from its stand-in.
        dtype: of the floating clones; their own where None.
        thawed: identities of frozen Parameters whose stand-ins require a gradient nevertheless.
    """
    bases: dict[tuple[int, torch.dtype], Tensor] = {}
    leaves: list[Tensor] = []
    made: dict[int, Tensor] = {}
    for tensor in sorted({id(t): t for t in tensors}.values(), key=lambda t: t.grad_fn is not None):
        parent, axes = _parent(tensor, leaves)
        if parent is not None:
            made[id(tensor)] = made[id(parent)].permute(axes)
            continue
        clone = _clone(tensor, bases, dtype)
        wants = tensor.is_leaf and (tensor.requires_grad or id(tensor) in thawed)
        if isinstance(tensor, nn.Parameter):
            clone = nn.Parameter(clone, requires_grad=wants)
            leaves.append(tensor)
        elif wants:
            clone.requires_grad_()
        made[id(tensor)] = clone
    return made


def _parent(tensor: Tensor, leaves: list[Tensor]) -> tuple[Tensor | None, tuple[int, ...]]:
    if tensor.grad_fn is not None:
        for leaf in leaves:
            if (axes := axes_between(leaf, tensor)) is not None:
                return leaf, axes
    return None, ()


@torch.no_grad()
def _clone(
    tensor: Tensor, bases: dict[tuple[int, torch.dtype], Tensor], dtype: torch.dtype | None
) -> Tensor:
    wider = (dtype or tensor.dtype) if tensor.is_floating_point() else tensor.dtype
    storage = storage_of(tensor)
    if storage is None:
        return tensor.detach().clone()
    key = (storage, tensor.dtype)
    if key not in bases:
        flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        flat.set_(tensor.untyped_storage())
        bases[key] = flat.to(wider, copy=True)
    return bases[key].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).detach()


def copied(module: nn.Module, tensors: dict[int, Tensor]) -> nn.Module:
    """A copy of a module in which these tensors stand for its own, by identity.

    Raises:
        BadInputError: it cannot be copied.
    """
    try:
        return copy.deepcopy(module, cast("dict[int, Any]", dict(tensors)))
    except Exception as error:
        raise BadInputError(
            "the module cannot be copied", where=type(module).__name__, got=repr(error)
        ) from error


def faithful_copy(module: nn.Module) -> nn.Module:
    """A copy whose tensors share memory and identity exactly where the module's do."""
    return copied(module, stand_ins(one.tensor for one in held_tensors(module)))
