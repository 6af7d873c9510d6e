"""Uses of a weight that bypass torch: through numpy, a list of numbers, a kernel of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tiedexport.ties.runs import run
from tiedexport.ties.slopes import GRADCHECK_TOLERANCE, gradcheck_error
from tiedexport.ties.weights import weights_in_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from tiedexport.ties.runs import Run
    from tiedexport.ties.weights import Weight

_STEP = 1e-3  # of a weight, relative to its norm
_ROUNDING = 1e-11  # of an output: addition in another order, over the depth of a model


def unseen(module: nn.Module, arguments: tuple[Any, ...], first: Run) -> frozenset[int]:
    """The trained tensors, by identity, that the output follows where torch sees no use of them.

    A weight that is moved in memory must do what the same step does that is added to it at each
    use: it does not where there is another use. Cuts and gradients of one's own (straight-through
    estimators, stopped gradients) are none; neither is a use that autograd alone sees.

    Args:
        module: as it was given to `run`.
        arguments: of its `forward`.
        first: a pass of it.
    """
    weights = [weight for weight in weights_in_memory(module) if _is_trained(weight, first)]
    if not first.objective.requires_grad or not _differs(module, arguments, weights):
        return frozenset()
    again = run(module, arguments)
    if not torch.equal(again.objective, first.objective):
        return frozenset()  # no two passes are alike: differences say nothing
    again.backward()
    return frozenset(
        id(member.tensor)
        for weight in weights
        if _differs(module, arguments, [weight])
        and gradcheck_error(module, arguments, weight, _gradient(weight, again))
        > GRADCHECK_TOLERANCE
        for member in weight.members
    )


def _is_trained(weight: Weight, first: Run) -> bool:
    """Whether training moves it, and the forward pass leaves it as it is."""
    tensor = weight.first.tensor.detach()
    untouched = torch.equal(first.stand_ins[id(weight.first.tensor)].detach(), tensor.double())
    return untouched and any(one.tensor.requires_grad for one in weight.members)


def _differs(module: nn.Module, arguments: tuple[Any, ...], weights: Sequence[Weight]) -> bool:
    """Whether moving weights in memory is something else than moving them at each use."""
    steps = [_step(weight.first.tensor) for weight in weights]
    pairs = list(zip(weights, steps, strict=True))
    moved = run(module, arguments, moved={id(one.first.tensor): step for one, step in pairs})
    shifts = {id(m.tensor): step.permute(m.axes) for one, step in pairs for m in one.members}
    shifted = run(module, arguments, shifts=shifts)
    distance = abs(float(moved.objective.detach()) - float(shifted.objective.detach()))
    return distance > _ROUNDING * moved.magnitude


def _step(tensor: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    scale = float(tensor.detach().double().norm()) or 1.0
    return step.to(tensor.device) * (_STEP * scale / (float(step.norm()) or 1.0))


def _gradient(weight: Weight, passed: Run) -> Tensor:
    leaf = passed.stand_ins[id(weight.first.tensor)]
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
