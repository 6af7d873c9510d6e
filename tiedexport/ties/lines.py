"""The line to write instead, with the names of the module at hand."""

from __future__ import annotations

import linecache
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from tiedexport.ties.uses import Line
    from tiedexport.ties.weights import Member


def access(name: str) -> str:
    """Python that reads a parameter: "layers.0.weight" → "self.layers[0].weight"."""
    parts = (f"[{part}]" if part.isdecimal() else f".{part}" for part in name.split("."))
    return "self" + "".join(parts)


def turned(kept: Member, other: Member) -> str:
    """Python that reads `other`'s elements from the Parameter that is kept."""
    axes = tuple(kept.axes.index(axis) for axis in other.axes)
    expression = access(kept.name)
    if axes == tuple(range(len(axes))):
        return expression
    return f"{expression}.t()" if axes == (1, 0) else f"{expression}.permute{axes}"


def tie_again(kept: Member, other: Member) -> str:
    """The line that ties `other` to the Parameter that is kept.

    A shared Parameter where both lie alike; otherwise the functional form, in the place where the
    other's module was called (a dense layer) or its weight was read (anything else).
    """
    expression, owner = turned(kept, other), other.owners[0]
    if expression == access(kept.name) and other.kind == "parameter":
        return f"{access(other.name)} = {expression}"
    if isinstance(owner, nn.Linear) and other.kind == "parameter":
        bias = "" if owner.bias is None else f", {access(_sibling(other.name, 'bias'))}"
        return f"torch.nn.functional.linear(z, {expression}{bias})"
    return f"{expression}  # in forward, where {access(other.name)} stood"


def share_again(member: Member) -> str:
    """The lines that give one Parameter to all modules that should hold it."""
    read = access(member.name)
    return "; ".join(f"{access(name)} = {read}" for name in member.names[1:])


def _sibling(name: str, sibling: str) -> str:
    return ".".join((*name.split(".")[:-1], sibling))


def without_cut(line: Line) -> str:
    """A line of source with `.detach()` and `.data` taken out of it."""
    text = linecache.getline(line.file, line.number).strip()
    whole = text.replace(".detach()", "").replace(".data", "")
    if not text:
        return "use the weight itself, without .detach(), .data or torch.no_grad()"
    return whole if whole != text else f"{text}  # outside torch.no_grad()"
