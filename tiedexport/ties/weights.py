"""Which tensors of a module are one weight: by identity, by memory, and by content."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from tiedexport.copies import find
from tiedexport.stored import Place
from tiedexport.tensors import readable, stored_tensor
from tiedexport.ties.held import axes_between, held_tensors, storage_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from tiedexport.stored import StoredTensor
    from tiedexport.ties.held import Held, Kind


@dataclass(frozen=True, eq=False)
class Member:
    """One tensor of a weight, with all of its names.

    Attributes:
        axes: `weight.members[0].tensor.permute(axes)` has this tensor's elements.
        aliased: it lies in the first member's memory; otherwise it repeats its content.
    """

    tensor: Tensor
    names: tuple[str, ...]
    kind: Kind
    owners: tuple[nn.Module, ...]
    axes: tuple[int, ...]
    aliased: bool = True

    @property
    def name(self) -> str:
        """The first name."""
        return self.names[0]


@dataclass(frozen=True, eq=False)
class Weight:
    """Tensors that are, or should be, one weight; the first is a Parameter."""

    members: tuple[Member, ...]

    @property
    def first(self) -> Member:
        """What the others are compared with."""
        return self.members[0]

    @property
    def parameters(self) -> tuple[Member, ...]:
        """The members that torch knows as Parameters."""
        return tuple(one for one in self.members if one.kind == "parameter")

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of every member."""
        return tuple(name for one in self.members for name in one.names)

    @property
    def is_shared(self) -> bool:
        """Whether there are two tensors, or one that two modules hold."""
        return len(self.members) > 1 or len({id(owner) for owner in self.first.owners}) > 1


def weights_in_memory(module: nn.Module) -> list[Weight]:
    """Every Parameter, together with what shares its memory."""
    by_tensor: dict[int, list[Held]] = {}
    for one in held_tensors(module):
        if one.tensor.is_floating_point():
            by_tensor.setdefault(id(one.tensor), []).append(one)
    groups: dict[int, list[list[Member]]] = {}
    for names in by_tensor.values():
        tensor, kind = names[0].tensor, names[0].kind
        known = [one for one in names if one.kind == kind]
        group, axes = _joined(tensor, groups.setdefault(storage_of(tensor) or id(tensor), []))
        owners = tuple(one.owner for one in known)
        group.append(Member(tensor, tuple(one.name for one in known), kind, owners, axes))
    found = [Weight(tuple(group)) for groups_here in groups.values() for group in groups_here]
    return [weight for weight in found if weight.first.kind == "parameter" or _loose(weight)]


def _joined(tensor: Tensor, groups: list[list[Member]]) -> tuple[list[Member], tuple[int, ...]]:
    """The group that a tensor belongs to, a new one where it shares with none."""
    for group in groups:
        if (axes := axes_between(group[0].tensor, tensor)) is not None:
            return group, axes
    groups.append([])
    return groups[-1], tuple(range(tensor.ndim))


def _loose(weight: Weight) -> bool:
    """A Parameter in a plain list, which torch does not see."""
    return weight.first.kind == "attribute" and weight.first.tensor.requires_grad


def weights_of(module: nn.Module) -> list[Weight]:
    """`weights_in_memory`, and those of equal content joined: what a lost tie leaves behind.

    Modules that are copies of one another as a whole (the layers of a fresh
    `nn.TransformerEncoder`) were cloned on purpose and are left apart.
    """
    weights = weights_in_memory(module)
    others = [one for one in held_tensors(module) if one.kind != "parameter"]
    taken = {id(member.tensor) for weight in weights for member in weight.members}
    loose = [
        Weight((Member(one.tensor, (one.name,), one.kind, (one.owner,), ()),))
        for one in {id(one.tensor): one for one in others}.values()
        if id(one.tensor) not in taken
    ]
    candidates = [*weights, *loose]
    stored = [(weight, _stored(weight, i)) for i, weight in enumerate(candidates)]
    joined: dict[int, Weight] = {id(weight): weight for weight in weights}
    for group in find(tensor for _, tensor in stored if tensor is not None):
        first = candidates[group.original.place.offset]
        copies = [(candidates[c.tensor.place.offset], c.axes) for c in group.copies]
        if first.first.kind != "parameter":
            continue
        for other, axes in copies:
            if len(axes) == first.first.tensor.ndim and not _cloned(first, other, axes):
                joined.pop(id(other), None)
                joined[id(first)] = _merged(joined[id(first)], other, axes)
    return list(joined.values())


def _merged(weight: Weight, other: Weight, axes: Sequence[int]) -> Weight:
    more = (
        Member(
            one.tensor,
            one.names,
            one.kind,
            one.owners,
            tuple(axes[axis] for axis in one.axes) if one.axes else tuple(axes),
            aliased=False,
        )
        for one in other.members
    )
    return Weight((*weight.members, *more))


def _stored(weight: Weight, number: int) -> StoredTensor | None:
    tensor = weight.first.tensor
    if not (tensor.is_floating_point() and readable(tensor)):
        return None
    stored = stored_tensor(weight.first.name, tensor)
    # The offset is the weight's number: each has a place of its own and is found again by it.
    return replace(stored, place=Place("memory", number, stored.place.size_bytes))


def _cloned(first: Weight, other: Weight, axes: Sequence[int]) -> bool:
    """Whether the modules that hold the two are equal in every Parameter, and have several."""
    if tuple(axes) != tuple(range(len(axes))):
        return False
    one, two = first.first.owners[0], other.first.owners[0]
    mine, theirs = dict(one.named_parameters()), dict(two.named_parameters())
    if type(one) is not type(two) or len(mine) < 2 or mine.keys() != theirs.keys():
        return False
    return all(torch.equal(mine[name], theirs[name]) for name in mine)
