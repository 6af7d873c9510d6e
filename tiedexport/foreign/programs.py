"""Programs that `torch.export.save` wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tiedexport.chain import ANY_NETWORK
from tiedexport.errors import BadInputError, CheckpointError
from tiedexport.trace import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch.export import ExportedProgram

_ANY_BATCH = (
    "torch.export.export(model.eval(), (torch.zeros(2, …),), "
    'dynamic_shapes=({0: torch.export.Dim("batch")},))'
)


def load_program(path: Path) -> ExportedProgram:
    """Read a `.pt2`; unlike a checkpoint's, its content is code to torch: it must be trusted.

    Raises:
        CheckpointError: missing, damaged, or of another version of torch.
    """
    try:
        with quiet("torch.export"):
            return torch.export.load(path)
    except FileNotFoundError as error:
        raise CheckpointError("no such program", where=path) from error
    except Exception as error:  # what damaged bytes raise is torch's to choose
        raise CheckpointError(
            "unreadable program",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="what torch.export.save writes, in a version that this torch reads",
        ) from error


def input_shape_of(program: ExportedProgram, where: Path) -> tuple[int, ...]:
    """The shape of one item of the one batch that it takes.

    Raises:
        BadInputError: it takes anything else, or a batch of one size.
    """
    names = program.graph_signature.user_inputs
    values = [
        node.meta.get("val")
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]
    got = ", ".join(map(_described, values))
    value = values[0] if len(values) == len(names) == 1 else None
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.ndim < 2:
        raise BadInputError(
            "the program takes other than one batch of float32",
            where=where,
            got=got or "no tensor",
            expected="float32[batch, …]",
            hint=ANY_NETWORK,
        )
    axes: Sequence[object] = value.shape
    batch, element = axes[0], axes[1:]
    if isinstance(batch, int):
        raise BadInputError(
            "the program takes batches of one size only",
            where=where,
            got=f"{got}: {batch} was made a constant",
            expected="a batch axis of any size",
            hint=_ANY_BATCH,
        )
    sizes = tuple(n for n in element if isinstance(n, int))
    if len(sizes) < len(element):
        raise BadInputError(
            "more than the batch axis is dynamic", where=where, got=got, hint=_ANY_BATCH
        )
    return sizes


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return str(value)
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
