"""The slope of a module's output along a weight: by central differences and by autograd."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch

from tiedexport.ties.runs import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from tiedexport.ties.runs import Run
    from tiedexport.ties.weights import Weight

_STEP = 1e-5  # of central differences, relative to the weight
_DIRECTIONS = 3
_TINY = torch.finfo(torch.float64).tiny


def gradcheck_error(
    module: nn.Module, arguments: tuple[Any, ...], weight: Weight, gradient: Tensor
) -> float:
    """|slope by central differences - slope by autograd|: the median over random directions.

    Relative to the largest slope. The median, because a ReLU that switches within a step spoils
    one direction; a path that is cut off spoils every one.
    """
    value = weight.first.tensor

    def moved(step: Tensor) -> Run:
        return run(module, arguments, moved={id(value): step})

    found = slopes(moved, value, gradient)
    error = statistics.median(abs(numeric - analytic) for numeric, analytic in found)
    return error / max(*(abs(x) for pair in found for x in pair), _TINY)


def slopes(
    moved: Callable[[Tensor], Run], value: Tensor, gradient: Tensor
) -> list[tuple[float, float]]:
    """The objective's slope by central differences and by autograd, in a few random directions."""
    generator = torch.Generator().manual_seed(0)
    scale = float(value.detach().double().norm()) or 1.0
    found = []
    for _ in range(_DIRECTIONS):
        step = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        step = step.to(value.device) * (_STEP * scale / float(step.norm()))
        ahead, behind = (float(moved(sign * step).objective.detach()) for sign in (1, -1))
        found.append(((ahead - behind) / (2 * _STEP), float((gradient * step).sum()) / _STEP))
    return found
