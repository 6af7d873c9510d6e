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

GRADCHECK_TOLERANCE = 1e-6
_STEPS = (1e-5, 1e-6, 1e-7)  # of central differences, relative to the weight
_DIRECTIONS = 3
_ROUNDING = 1e-15  # of an output, relative to its magnitude: a few units in the last place
_TINY = torch.finfo(torch.float64).tiny


def gradcheck_error(
    module: nn.Module, arguments: tuple[Any, ...], weight: Weight, gradient: Tensor
) -> float:
    """|slope by central differences - slope by autograd|: the median over random directions.

    Relative to the largest slope, at the first step that agrees. The median, and smaller steps,
    because a ReLU that switches within a step spoils it; a path that is cut off spoils every one.
    """
    value = weight.first.tensor

    def moved(step: Tensor) -> Run:
        return run(module, arguments, moved={id(value): step})

    errors = []
    for step in _STEPS:
        found = slopes(moved, value, gradient, step)
        error = statistics.median(abs(numeric - analytic) for numeric, analytic in found)
        errors.append(error / max(*(abs(x) for pair in found for x in pair), _TINY))
        if errors[-1] <= GRADCHECK_TOLERANCE:
            break
    return min(errors)


def slopes(
    moved: Callable[[Tensor], Run], value: Tensor, gradient: Tensor, size: float = _STEPS[0]
) -> list[tuple[float, float]]:
    """The objective's slope by central differences and by autograd, in a few random directions.

    For a relative change of the weight, by `size`. They are equal where the difference is no more
    than the output's rounding over that step.
    """
    generator = torch.Generator().manual_seed(0)
    scale = float(value.detach().double().norm()) or 1.0
    found = []
    for _ in range(_DIRECTIONS):
        step = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        step = step.to(value.device) * (size * scale / float(step.norm()))
        ahead, magnitude = _objective(moved(step))
        behind, _ = _objective(moved(-step))
        numeric, analytic = (ahead - behind) / (2 * size), float((gradient * step).sum()) / size
        equal = abs(numeric - analytic) <= _ROUNDING / size * magnitude
        found.append((analytic if equal else numeric, analytic))
    return found


def _objective(run: Run) -> tuple[float, float]:
    return float(run.objective.detach()), run.magnitude
