"""What the next step of a training depends on, in a form that any number of processes can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tiedexport.training.parallel import own_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from tiedexport.training.group import Group

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam keeps of each parameter, besides the number of its steps."""


@dataclass
class Position:
    """Where a training is within an epoch.

    Attributes:
        noise: what the noise of the rest of the epoch is drawn from.
        loss_sum: of the samples that this process has had.
        steps: done in this epoch.
    """

    noise: torch.Generator
    loss_sum: Tensor
    steps: int = 0

    def state(self, group: Group) -> dict[str, Any]:
        """Tensors and plain values, the same in every process."""
        return {
            "noise": self.noise.get_state(),
            "loss_sum": group.sum(self.loss_sum.clone()),
            "steps": self.steps,
        }

    @classmethod
    def restored(cls, state: dict[str, Any], group: Group) -> Position:
        """From `state`, of which the first process takes the loss of all."""
        noise = torch.Generator(group.device).set_state(state["noise"])
        loss_sum: Tensor = state["loss_sum"].to(group.device, copy=True)
        return cls(noise, loss_sum if group.leads else torch.zeros_like(loss_sum), state["steps"])


def tensors_of(module: nn.Module, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Every weight once, under the first of its names, and what Adam keeps of it.

    FSDP2's own state dict has a shared Parameter under each of its names.
    """
    tensors = _weights(module)
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value
    return tensors


def fill(
    module: nn.Module,
    optimizer: torch.optim.Adam,
    group: Group,
    rows: Callable[[str, slice], Tensor],
) -> None:
    """Put the tensors of another training into those that `tensors_of` gives.

    Args:
        module: its weights may be sharded.
        optimizer: of the module's parameters.
        group: whom they are sharded over.
        rows: some rows of a tensor; all of one that has no rows.

    Raises:
        KeyError, RuntimeError: the tensors are of another model.
    """
    for parameter in module.parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            **{moment: torch.zeros_like(parameter) for moment in MOMENTS},
        }
    for name, tensor in tensors_of(module, optimizer).items():
        own, where = own_rows(tensor, group)
        found = rows(name, where)
        if found.shape != own.shape:  # which copy_ might broadcast
            raise RuntimeError(f"{name}: {list(found.shape)} in place of {list(own.shape)}")
        own.copy_(found)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    first_names: dict[int, str] = {}
    state = module.state_dict(keep_vars=True)
    for name, tensor in state.items():
        first_names.setdefault(id(tensor), name)
    return {f"weight.{name}": state[name] for name in first_names.values()}
