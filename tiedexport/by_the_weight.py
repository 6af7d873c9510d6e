"""Weighted layers of a torch module, each computed in its weight's type, on any CPU.

Where no library has a kernel for a half-precision type, torch falls back to loops of its own: a
product takes up to two hundred times as long, and a transposed convolution rounds the sum after
every tap. Both are computed here in fp32, from one tile of the weight after the other, and rounded
once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tiedexport.spec import Precision

TILE_BYTES = 2 << 20
"""Of an fp32 tile of a weight: what the second-level cache of a core holds."""

_WEIGHTED = (functional.linear, functional.conv2d, functional.conv_transpose2d)


class ByTheWeight(TorchFunctionMode):
    """A context in which a weighted layer computes in its weight's type, whatever type comes in.

    Args:
        slow: the types that no library has kernels for.
    """

    def __init__(self, slow: Iterable[Precision]) -> None:
        super().__init__()
        self._slow = {getattr(torch, precision.dtype.name) for precision in slow}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in _WEIGHTED and len(args) > 1:
            x, weight, *others = args
            args = (x.to(weight.dtype), weight, *others)
            if weight.dtype in self._slow:
                function = _BY_TILES.get(function, function)
        return function(*args, **(kwargs or {}))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """X Wᵀ + b, summed in fp32 and rounded once; only a tile of W is ever in fp32.

    Args:
        x: [..., features].
        weight: [units, features], as it is stored or the transpose of what is stored.
        bias: [units].
    """
    rows = x.reshape(-1, x.shape[-1]).float()
    total = (
        torch.zeros(len(rows), len(weight)) if bias is None else bias.float().repeat(len(rows), 1)
    )
    transposed = not weight.is_contiguous()
    stored = weight.t() if transposed else weight
    for part, tile in _tiles(stored):
        if transposed:
            total.addmm_(rows[:, part], tile)
        else:
            total[:, part].addmm_(rows, tile.t())
    return total.to(x.dtype).reshape(*x.shape[:-1], len(weight))


def conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *places: Any, **named: Any
) -> Tensor:
    """The transposed convolution of one group, summed in fp32 and rounded once.

    Args:
        x: [n, channels_in, height, width].
        weight: [channels_in, channels_out, k, k]; only a tile of it is ever in fp32.
        bias: [channels_out].
        *places: stride, padding and output_padding, as torch takes them.
        **named: the same by name.
    """
    total: Tensor | None = None
    for part, tile in _tiles(weight):
        wide = None if bias is None or total is not None else bias.float()
        summand = functional.conv_transpose2d(x[:, part].float(), tile, wide, *places, **named)
        total = summand if total is None else total.add_(summand)
    assert total is not None  # a weight has channels
    return total.to(x.dtype)


def _tiles(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a weight in fp32."""
    step = max(1, TILE_BYTES // (4 * weight[0].numel()))
    for first in range(0, len(weight), step):
        part = slice(first, first + step)
        yield part, weight[part].float()


_BY_TILES = {functional.linear: linear, functional.conv_transpose2d: conv_transpose2d}
