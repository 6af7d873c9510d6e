"""The processes that train one model together, as torchrun starts and torch connects them."""

from __future__ import annotations

import atexit
import os
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import distributed
from torch.distributed import (  # type: ignore[attr-defined]
    FileStore,
    HashStore,
    PrefixStore,
    Store,
    rendezvous,
)

from tiedexport.errors import MissingRuntimeError, RuntimeFailedError, UsageError
from tiedexport.training.samples import Part
from tiedexport.training.worker import MEETING_PLACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


_ASKED_EVERY_S, _PATIENCE_S = 0.005, 300.0
"""How long a process waits for another, as torch does by itself."""


@dataclass(frozen=True)
class Group:
    """This process among those that train a model together; by itself where there are no others.

    Attributes:
        part: which one it is.
        device: where it trains.
        shard: whether each process holds a part of the weights and of the optimizer's state only.
    """

    part: Part
    device: torch.device
    shard: bool = False

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.part.rank == 0

    @property
    def backend(self) -> str:
        """How the processes talk to each other."""
        return _backend(self.device)

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes, the same bits in each of them."""
        if self.part.processes > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, mine: bool) -> bool:
        """Whether it is so in one process at least."""
        return bool(self.sum(torch.tensor(float(mine), device=self.device)))

    def gathered(self, content: bytes) -> list[bytes]:
        """What each process has to say, of one length, in the order of their ranks."""
        mine = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(self.device)
        all_of_them = [torch.empty_like(mine) for _ in range(self.part.processes)]
        distributed.all_gather(all_of_them, mine)
        return [bytes(one.tolist()) for one in all_of_them]

    def wait(self) -> None:
        """Go on when every process has come this far."""
        self.sum(torch.zeros((), device=self.device)).item()


ALONE = Group(Part(), torch.device("cpu"))


@contextmanager
def joined(device: str, *, shard: bool = False) -> Iterator[Group]:
    """Take the place among the processes of a training that the environment assigns.

    Args:
        device: "auto", "cpu" or "cuda"; each process of a host takes a GPU of its own.
        shard: as in `Group`.

    Raises:
        UsageError: the device is unknown, or there are fewer GPUs than processes.
        MissingRuntimeError: `device` is "cuda" and there is none.
        RuntimeFailedError: the processes cannot be connected.
    """
    where = device_named(device)
    if distributed.is_initialized() or not (shard or "RANK" in os.environ):
        yield _group(where, shard)
        return
    _connect(where)
    if distributed.get_world_size() > 1:  # which can meet only once: stay until the process ends
        atexit.register(distributed.destroy_process_group)
        yield _group(where, shard)
        return
    try:
        yield _group(where, shard)
    finally:
        distributed.destroy_process_group()


@contextmanager
def naming_process(group: Group) -> Iterator[None]:
    """Give what fails among many processes a name and a hint: the first to die has the reason.

    Raises:
        RuntimeFailedError: in place of what torch raises.
    """
    try:
        yield
    except RuntimeError as error:
        if group.part.processes == 1:
            raise
        raise RuntimeFailedError(
            "a step that all processes take failed",
            where=f"process {group.part.rank} of {group.part.processes}",
            got=str(error).splitlines()[0],
            hint="where another process died first, its own words say why",
        ) from error


def device_named(name: str) -> torch.device:
    """The device that this process trains on.

    Raises:
        UsageError, MissingRuntimeError: as `joined`.
    """
    present = torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError("unknown device", got=repr(name), expected="auto, cpu, cuda")
    if name == "cuda" and not present:
        raise MissingRuntimeError(
            "this PyTorch sees no GPU",
            got=f"torch {torch.__version__}",
            expected="a CUDA device and a CUDA build of torch",
            hint="train on the processor: --device cpu",
        )
    if name == "cpu" or not present:
        return torch.device("cpu")
    if "LOCAL_RANK" not in os.environ:
        return torch.device("cuda")
    return _own_gpu(int(os.environ["LOCAL_RANK"]))


def _own_gpu(local_rank: int) -> torch.device:
    if local_rank >= torch.cuda.device_count():
        raise UsageError(
            "more processes than GPUs on this host",
            got=f"process {local_rank + 1}",
            expected=f"at most {torch.cuda.device_count()}",
            hint="start fewer, or train on the processor: --device cpu",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _connect(device: torch.device) -> None:
    rank = int(os.environ.get("RANK", 0))
    processes = int(os.environ.get("WORLD_SIZE", 1))
    try:
        distributed.init_process_group(
            _backend(device), store=_store(rank, processes), rank=rank, world_size=processes
        )
    except (ValueError, RuntimeError) as error:
        raise RuntimeFailedError(
            "the processes of this training cannot be connected",
            where=f"process {rank} of {processes}",
            got=error,
            hint="let torchrun start them, or on one host: tiedexport train --nproc N",
        ) from error


def _store(rank: int, processes: int) -> Store:
    """Where the processes find each other's addresses, and none of those that have died.

    torchrun's own store outlives its processes, and with torch 2.13 those that are started again
    read there where the dead ones listened.
    """
    if folder := os.environ.get(MEETING_PLACE):
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return FileStore(str(Path(folder, f"store-{attempt}")), processes)
    if "RANK" not in os.environ:
        return HashStore()
    store: Store = next(rendezvous("env://", rank, processes))[0]
    return PrefixStore(_meeting(store, rank, processes), store)


def _meeting(store: Store, rank: int, processes: int) -> str:
    """A name that no earlier meeting had, known to those who are there now.

    A count of restarts would not do: the agent of each host counts those that it saw itself.
    Every process calls under a name of its own, and the first one answers whoever calls last in
    each place until it is heard there.
    """
    own = secrets.token_hex(8)
    if rank:
        store.set(f"tiedexport/call/{rank}", own)
        name = store.get(f"tiedexport/answer/{own}").decode()
        store.set(f"tiedexport/heard/{name}/{rank}", "")
        return name
    give_up_s = time.monotonic() + _PATIENCE_S
    for other in range(1, processes):
        while not store.check([f"tiedexport/heard/{own}/{other}"]):
            if time.monotonic() > give_up_s:
                raise RuntimeError(f"process {other} does not answer")
            call = store.get(f"tiedexport/call/{other}").decode()
            store.set(f"tiedexport/answer/{call}", own)
            time.sleep(_ASKED_EVERY_S)
    return own


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"


def _group(device: torch.device, shard: bool) -> Group:
    if not distributed.is_initialized():
        return Group(Part(), device)
    part = Part(distributed.get_rank(), distributed.get_world_size())
    return Group(part, device, shard)
