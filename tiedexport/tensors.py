"""Torch tensors → stored tensors: a place for each range of bytes, in memory or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.stored import ArrayContent, FileContent, Place, StoredTensor

if TYPE_CHECKING:
    from torch import Tensor


def stored_tensor(name: str, tensor: Tensor, mapped: MappedFile | None = None) -> StoredTensor:
    """Views of the same bytes are one place, whatever their strides.

    Args:
        name: of the parameter.
        tensor: one that is `readable`.
        mapped: the file that it was loaded from; by default it is in memory only.
    """
    array, address = _array(tensor), tensor.data_ptr()
    size_bytes = tensor.numel() * tensor.element_size()
    place, home = Place("memory", address, size_bytes), ""
    content: ArrayContent | FileContent = ArrayContent(array)
    if mapped is not None:
        offset, home = mapped.offset_of(address), str(mapped.path)
        # A negative offset tells tensors apart and says nothing of the file.
        place = Place(
            str(mapped.path.resolve()), -address if offset is None else offset, size_bytes
        )
        if offset is not None and tensor.is_contiguous():
            content = FileContent(mapped.path, offset, array.dtype)
    return StoredTensor(name, place, array.dtype, tuple(tensor.shape), content, home=home)


def readable(tensor: Tensor) -> bool:
    """Whether it has elements, values, and a layout that numpy knows."""
    import torch

    dense = tensor.layout == torch.strided and not tensor.is_quantized
    return dense and tensor.numel() > 0 and tensor.device.type != "meta"


class MappedFile:
    """Where a file lies in this process's memory, as the kernel tells."""

    def __init__(self, path: Path) -> None:
        self.path = path
        inode, name = path.stat().st_ino, str(path.resolve())
        self._ranges = []  # of addresses, and the file's offset at their beginning
        for line in Path("/proc/self/maps").read_text("utf-8", errors="replace").splitlines():
            addresses, _, offset, _, number, *file = line.split(maxsplit=5)
            if int(number) == inode or file == [name]:
                begin, end = (int(address, 16) for address in addresses.split("-"))
                self._ranges.append((begin, end, int(offset, 16)))

    def offset_of(self, address: int) -> int | None:
        """Of the byte at an address in the file; None where the file is not mapped there."""
        for begin, end, offset in self._ranges:
            if begin <= address < end:
                return offset + address - begin
        return None


def _array(tensor: Tensor) -> np.ndarray:
    """The elements in the dtype of numpy or ml_dtypes; a view where they are in host memory."""
    import ml_dtypes
    import torch

    tensor = tensor.detach().resolve_conj().resolve_neg().cpu()
    kind = str(tensor.dtype).removeprefix("torch.")
    if hasattr(np, kind):
        array: np.ndarray = tensor.numpy()
        return array
    bits = tensor.contiguous().view(torch.int16 if tensor.element_size() == 2 else torch.uint8)
    return bits.numpy().view(np.dtype(getattr(ml_dtypes, kind)))
