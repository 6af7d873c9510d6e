"""Tensors as they lie in files and in memory: read in pieces, never whole."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from tiedexport.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

_READ_AHEAD_BYTES = 1 << 17
"""As much as Linux takes at a time by default; what goes beyond is ignored."""


class Content(Protocol):
    """Elements in C order, read in pieces; safe to call from several threads."""

    def read(self, start: int, count: int) -> np.ndarray:
        """Elements `start` to `start + count`, a flat array of the tensor's dtype."""
        ...

    def sample(self, indices: np.ndarray) -> np.ndarray:
        """The elements at these flat indices (int64)."""
        ...

    def read_ahead(self, count: int) -> None:
        """The first `count` elements will soon be read, in small pieces from all over."""
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
        return prod(self.shape)

    @property
    def elements(self) -> tuple[int, ...]:
        """The shape of what `content` reads: flat bytes for types of less than a byte."""
        packed = self.dtype == np.uint8 and 0 < self.place.size_bytes < self.size
        return (self.place.size_bytes,) if packed else self.shape

    @property
    def length(self) -> int:
        """How many elements `content` reads."""
        return prod(self.elements)


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

    def read_ahead(self, count: int) -> None:
        """It is here."""


def in_memory(name: str, array: np.ndarray) -> StoredTensor:
    """An array as a stored tensor; arrays that begin at one address have one place."""
    place = Place("memory", array.__array_interface__["data"][0], array.nbytes)
    return StoredTensor(name, place, array.dtype, array.shape, ArrayContent(array))


class FileContent:
    """Bytes of a file read by `pread`: nothing stays mapped, so nothing counts as our memory.

    All tensors of a file share one descriptor.
    """

    def __init__(self, path: Path, offset: int, dtype: np.dtype[Any]) -> None:
        self._file, self._offset, self._dtype = _opened(path), offset, dtype

    def read(self, start: int, count: int) -> np.ndarray:
        """Raises BadInputError where the file ends early or cannot be read."""
        width = self._dtype.itemsize
        raw = self._file.read(self._offset + start * width, count * width)
        return np.frombuffer(raw, self._dtype, count)

    def sample(self, indices: np.ndarray) -> np.ndarray:
        """One read an element: for dozens of them."""
        width = self._dtype.itemsize
        parts = [self._file.read(self._offset + i * width, width) for i in indices.tolist()]
        return np.frombuffer(b"".join(parts), self._dtype)

    def read_ahead(self, count: int) -> None:
        """Let the kernel read one stretch after the other: a disk is slow at small pieces."""
        self._file.read_ahead(self._offset, count * self._dtype.itemsize)


class _File:
    """A descriptor that closes itself when the last tensor of the file is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if (descriptor := getattr(self, "_descriptor", None)) is not None:
            os.close(descriptor)

    def read(self, offset: int, size: int) -> bytes:
        try:
            raw = os.pread(self._descriptor, size, offset)
            while len(raw) < size and (more := self._more(raw, offset, size)):
                raw += more
        except OSError as error:
            raise BadInputError("a file cannot be read", where=self.path, got=error) from error
        if len(raw) < size:
            raise BadInputError(
                "a file ended while a tensor was read",
                where=self.path,
                got=f"{offset + len(raw)} bytes",
                expected=f"{offset + size} at least",
            )
        return raw

    def read_ahead(self, offset: int, size: int) -> None:
        for start in range(offset, offset + size, _READ_AHEAD_BYTES):
            os.posix_fadvise(self._descriptor, start, _READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)

    def _more(self, raw: bytes, offset: int, size: int) -> bytes:
        """What one `pread`, which stops at 2 GiB, left out."""
        return os.pread(self._descriptor, size - len(raw), offset + len(raw))


_open_files: WeakValueDictionary[tuple[str, int, int, int], _File] = WeakValueDictionary()


def _opened(path: Path) -> _File:
    """The file's descriptor; another one once the path holds another file."""
    try:
        found = path.stat()
        key = str(path), found.st_dev, found.st_ino, found.st_mtime_ns
        if (file := _open_files.get(key)) is None:
            file = _open_files[key] = _File(path)
    except OSError as error:
        raise BadInputError("a file cannot be opened", where=path, got=error.strerror) from error
    return file
