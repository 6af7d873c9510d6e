"""The weights of a bundle on the device, once for all sessions of the process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np

from tiedexport.errors import ArrayError, BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tiedexport.device.gpu import Gpu
    from tiedexport.manifest import Binding


class DeviceWeights:
    """Every weight of one weights file on the device, for all sessions of the process.

    Engines refer to it; when the last of them is gone, so is the device memory.

    Attributes:
        arrays: weight → what its buffer holds.
        buffers: weight → device memory.
    """

    _resident: ClassVar[WeakValueDictionary[tuple[str, str], DeviceWeights]] = WeakValueDictionary()
    _lock = threading.Lock()

    def __init__(self, gpu: Gpu, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays, self.buffers = dict(arrays), dict[str, Any]()
        self._gpu = gpu
        total = sum(array.nbytes for array in arrays.values())
        stream = gpu.stream()
        try:
            for name, array in arrays.items():
                what = f"weight {name} (all weights take {total:,} bytes)"
                self.buffers[name] = gpu.allocate(array.nbytes, stream, what)
                self._copy(name, array, stream)
            stream.sync()
        except BaseException:
            # Whoever keeps the exception must not keep most of the weights by it.
            for buffer in self.buffers.values():
                buffer.close(stream)
            raise

    @classmethod
    def of(
        cls, gpu: Gpu, path: Path, sha256: str, arrays: Mapping[str, np.ndarray]
    ) -> DeviceWeights:
        """Those of a weights file: uploaded for the first session, shared by the others."""
        key = str(path.resolve()), sha256
        with cls._lock:
            weights = cls._resident.get(key)
            if weights is None:
                weights = cls._resident[key] = cls(gpu, arrays)
            return weights

    def address(self, binding: Binding) -> int:
        """Where the weight that a plan asks for lies.

        Raises:
            BundleError: there is no such weight, or it has another type or shape.
        """
        array = self.arrays.get(binding.name)
        found = None if array is None else (array.dtype, array.shape)
        if found != (binding.dtype.dtype, binding.shape):
            raise BundleError(
                "a plan asks for a weight that the bundle does not have",
                where=binding.name,
                got=found,
                expected=f"{binding.dtype}{list(binding.shape)}",
                hint="tiedexport build model.pt",
            )
        return int(self.buffers[binding.name].handle)

    def replace(self, name: str, array: np.ndarray) -> None:
        """Put other values into a weight's buffer, for every engine that is bound to it.

        No call may be under way. Sessions opened later upload the file's weights again, since these
        are no longer they.

        Args:
            name: a weight.
            array: its new values, in the same type and shape.

        Raises:
            ArrayError: there is no such weight, or it has another type or shape.
            RuntimeFailedError: the copy failed.
        """
        held = self.arrays.get(name)
        if held is None or (array.dtype, array.shape) != (held.dtype, held.shape):
            raise ArrayError(
                "a weight can only be replaced by one of its type and shape",
                where=name,
                got=f"{array.dtype}{list(array.shape)}",
                expected=f"one of {', '.join(self.arrays)}"
                if held is None
                else f"{held.dtype}{list(held.shape)}",
            )
        with self._lock:
            for key in [key for key, weights in self._resident.items() if weights is self]:
                del self._resident[key]
        contiguous = np.ascontiguousarray(array)
        with self._gpu.translated(name):
            stream = self._gpu.stream()
            self._copy(name, contiguous, stream)
            stream.sync()
        self.arrays[name] = contiguous

    def _copy(self, name: str, array: np.ndarray, stream: Any) -> None:
        view = self._gpu.core.Buffer.from_handle
        source = view(array.ctypes.data, array.nbytes, owner=array)
        self.buffers[name].copy_from(source, stream=stream)
