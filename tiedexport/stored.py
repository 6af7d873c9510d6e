"""Tensors as they lie in files and in memory: read in pieces, never whole."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


class Content(Protocol):
    """Elements in C order, read in pieces; safe to call from several threads."""

    def read(self, start: int, count: int) -> np.ndarray:
        """Elements `start` to `start + count`, a flat array of the tensor's dtype."""
        ...

    def sample(self, indices: np.ndarray) -> np.ndarray:
        """The elements at these flat indices (int64)."""
        ...


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes lie; tensors of one place are one physical copy.

    Attributes:
        file: absolute path, or "memory".
        offset: of the first byte in the file, or its address.
        size_bytes: how many bytes.
    """

    file: str
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class StoredTensor:
    """One name for some stored bytes.

    Attributes:
        name: of the initializer, parameter or binding.
        place: the bytes' identity.
        dtype: of numpy or ml_dtypes; types of less than a byte are uint8 over the packed bytes.
        shape: as its graph or file declares it.
        content: reads the elements.
        uses: each place that consumes it, in words: "gemm_0 (Gemm) input 1".
        scope: "" at the top; "if_0.then_branch" in a subgraph, "function name" in a function.
        home: the file, as the user gave it, that declares the name (a graph, not its data file).
        handle: the object that a reader needs to find it again (an onnx_ir Value or Node).
    """

    name: str
    place: Place
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    content: Content = field(repr=False, compare=False)
    uses: tuple[str, ...] = ()
    scope: str = ""
    home: str = ""
    handle: Any = field(default=None, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


class ArrayContent:
    """A numpy array that is in memory or mapped already."""

    def __init__(self, array: np.ndarray) -> None:
        self._flat = array.reshape(-1)

    def read(self, start: int, count: int) -> np.ndarray:
        """A view."""
        return self._flat[start : start + count]

    def sample(self, indices: np.ndarray) -> np.ndarray:
        """A copy."""
        picked: np.ndarray = self._flat[indices]
        return picked


class FileContent:
    """Bytes of a file read by `pread`: nothing stays mapped, so nothing counts as our memory."""

    def __init__(self, path: Path, offset: int, dtype: np.dtype[Any]) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset, self._dtype = offset, dtype

    def __del__(self) -> None:
        if (descriptor := getattr(self, "_descriptor", None)) is not None:
            os.close(descriptor)

    def read(self, start: int, count: int) -> np.ndarray:
        """Raises OSError or, where the file ends early, ValueError."""
        width = self._dtype.itemsize
        raw = os.pread(self._descriptor, count * width, self._offset + start * width)
        return np.frombuffer(raw, self._dtype, count)

    def sample(self, indices: np.ndarray) -> np.ndarray:
        """One read an element: for dozens of them."""
        return np.concatenate([self.read(int(i), 1) for i in indices])
