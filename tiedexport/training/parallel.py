"""One model in many processes: whole in each (DDP), or a part in each (FSDP2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tiedexport.errors import TieBrokenError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

    from tiedexport.families import StagedModule
    from tiedexport.training.group import Group


class Logits(nn.Module):
    """What training runs: noisy inputs [n, *input_shape] → logits of the reconstructions."""

    def __init__(self, module: StagedModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, noisy: Tensor) -> Tensor:
        """Both directions in one call, the only one that DDP and FSDP2 see."""
        logits: Tensor = self.module.decode_to_logits(self.module.encode(noisy))
        return logits


def distributed_over(group: Group, module: StagedModule) -> nn.Module:
    """The module as `Logits`, whose backward pass leaves the gradients' mean over all processes.

    FSDP2 is wrapped at the root alone: whatever uses a weight, in either direction, then sees it
    gathered, and its gradient, the sum over its uses, is scattered once.

    Raises:
        TieBrokenError: a weight that had several names is several weights now.
    """
    logits = Logits(module)
    if group.shard:
        _shard(logits, group)
        return logits
    if group.part.processes == 1:
        return logits
    return DistributedDataParallel(
        logits,
        device_ids=[group.device] if group.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        static_graph=True,
    )


def is_sharded(tensor: Tensor, group: Group) -> bool:
    """Whether each process of the group holds some of its rows."""
    if not group.shard:
        return False
    from torch.distributed.tensor import DTensor  # as slow to import as all of torch

    return isinstance(tensor, DTensor)


def whole(tensor: Tensor, group: Group) -> Tensor:
    """All rows, on the CPU, in memory of its own; every process has to ask for a sharded one."""
    if is_sharded(tensor, group):
        tensor = cast("DTensor", tensor).full_tensor()
    return tensor.detach().to("cpu", copy=True)


def own_rows(tensor: Tensor, group: Group) -> tuple[Tensor, slice]:
    """What this process holds of a tensor, which can be written into, and which rows those are.

    Rows are dealt as by `torch.chunk`: ⌈rows / processes⌉ each, as long as there are any.
    """
    if not is_sharded(tensor, group):
        return tensor.detach(), slice(0, len(tensor) if tensor.ndim else 0)
    own = cast("DTensor", tensor).to_local().detach()
    first = min(len(tensor), -(-len(tensor) // group.part.processes) * group.part.rank)
    return own, slice(first, first + len(own))


def _shard(logits: Logits, group: Group) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    before = _names_by_parameter(logits)
    fully_shard(logits, mesh=init_device_mesh(group.device.type, (group.part.processes,)))
    _refuse_split_ties(before, _names_by_parameter(logits))


def _names_by_parameter(module: nn.Module) -> set[frozenset[str]]:
    names: dict[int, set[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(together) for together in names.values()}


def _refuse_split_ties(before: set[frozenset[str]], after: set[frozenset[str]]) -> None:
    if before != after:
        raise TieBrokenError(
            "sharding has split a tied weight",
            got=", ".join(sorted("/".join(sorted(names)) for names in after - before)),
            expected=", ".join(sorted("/".join(sorted(names)) for names in before - after)),
            hint="train without --shard",
        )
