"""Copies between the host and the device."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.on_device.work import Bound

if TYPE_CHECKING:
    from tiedexport.on_device.cuda import Cuda
    from tiedexport.spec import StageSpec


class Copies:
    """Copies between pinned memory and the device: of a stage's input, or of its output."""

    def __init__(self, cuda: Cuda, inwards: bool) -> None:
        self._cuda, self._inwards = cuda, inwards

    def bind(self, stage: StageSpec, x: np.ndarray, graph: bool) -> Bound:
        """Memory on both sides; nothing is computed."""
        spec = stage.inputs[0] if self._inwards else stage.outputs[0]
        size_bytes = len(x) * int(np.prod(spec.element_shape)) * spec.dtype.itemsize
        memory = ExitStack()
        host = memory.enter_context(self._cuda.pinned(size_bytes))
        address = self._cuda.allocate(size_bytes)
        memory.callback(self._cuda.free, address)
        cuda = self._cuda
        enqueue = (
            partial(cuda.copy_in, address, host)
            if self._inwards
            else partial(cuda.copy_out, host, address)
        )
        return Bound(enqueue, lambda: None, memory.close)

    def close(self) -> None:
        """Nothing is left."""
