"""Tensors whose rows many processes hold, as one safetensors file a process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from tiedexport.atomic import replacing
from tiedexport.bundle import file_sha256
from tiedexport.errors import CheckpointError
from tiedexport.training.parallel import is_sharded, own_rows
from tiedexport.weights_file import write_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from tiedexport.training.group import Group


def folder_of(index: Path) -> Path:
    """Where the shards lie that belong to a file."""
    return Path(f"{index}.shards")


def write_shards(
    folder: Path, name: str, tensors: Mapping[str, Tensor], group: Group
) -> list[dict[str, str]]:
    """Write this process's rows of the sharded ones among the tensors; all others go nowhere.

    Args:
        folder: made if it is not there; all processes have to see it.
        name: of the moment, different from that of shards that are still needed.
        tensors: float32, by name, the same in every process.
        group: who holds their rows.

    Returns:
        Name and SHA-256 of every process's file, in the order of their rows.
    """
    own = {
        key: own_rows(tensor, group)[0].cpu().numpy()
        for key, tensor in tensors.items()
        if is_sharded(tensor, group)
    }
    names = [_file_name(name, rank, group) for rank in range(group.part.processes)]
    path = folder / names[group.part.rank]
    with replacing(path) as file:
        write_weights(Path(file.name), own)
    hashes = group.gathered(bytes.fromhex(file_sha256(path)))
    return [
        {"file": file, "sha256": sha256.hex()} for file, sha256 in zip(names, hashes, strict=True)
    ]


def remove_others(folder: Path, shards: Sequence[Mapping[str, str]]) -> None:
    """Remove what is not among these shards, and the folder when nothing is left."""
    kept = {shard["file"] for shard in shards}
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink()
        if not kept:
            folder.rmdir()


class Rows:
    """Tensors of which any rows can be read, wherever they are stored.

    Args:
        tensors: those that are in memory.
        folder: where the shards of the others lie.
        shards: as `write_shards` returns them; each is checked when it is first read.

    Raises:
        CheckpointError: a shard is missing or damaged.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], folder: Path, shards: Sequence[Mapping[str, str]]
    ) -> None:
        self._tensors = tensors
        self._paths = [folder / Path(shard["file"]).name for shard in shards]
        self._hashes = [shard["sha256"] for shard in shards]
        self._checked: set[Path] = set()
        self._files = [_opened(path) for path in self._paths]

    def __call__(self, name: str, wanted: slice) -> Tensor:
        """Rows `wanted` of a tensor; all of one that has no rows."""
        if name in self._tensors:
            tensor = self._tensors[name]
            return tensor[wanted] if tensor.ndim else tensor
        found: list[Tensor] = []
        begin = 0
        for i, file in enumerate(self._files):
            part = file.get_slice(name)
            end = begin + part.get_shape()[0]
            first, last = max(wanted.start, begin), min(wanted.stop, end)
            # One without rows still tells the shape of a row.
            if first < last or not found:
                self._check(i)
                first = min(max(first, begin), end)
                found.append(part[first - begin : max(last, first) - begin])
            begin = end
        return torch.cat(found)

    def _check(self, i: int) -> None:
        path = self._paths[i]
        if path not in self._checked and file_sha256(path) != self._hashes[i]:
            raise CheckpointError(
                "a shard of the resume file is damaged",
                where=path,
                expected=f"SHA-256 {self._hashes[i]}",
            )
        self._checked.add(path)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            "a shard of the resume file cannot be read", where=path, got=error
        ) from error


def _file_name(name: str, rank: int, group: Group) -> str:
    return f"{name}-{rank + 1}of{group.part.processes}.safetensors"
