"""A recording double of the onnxruntime calls that its GPU rows make: nothing runs on a GPU.

As on a device, an input is copied when it is bound and stays as it was; an output is written to
the bare address that was bound. A session computes: every output is the sum of its row.
"""

from __future__ import annotations

import ctypes
import math
import sys
import types
from dataclasses import dataclass, field

import numpy as np

from tiedexport import trt
from tiedexport.results import Availability
from tiedexport.runtimes import onnxruntime as runner

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


@dataclass
class SessionOptions:
    """Takes any attribute, as the real one takes those that the runner sets."""

    entries: dict[str, str] = field(default_factory=dict)

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class Binding:
    def __init__(self) -> None:
        self.inputs: dict[str, np.ndarray] = {}

    def bind_cpu_input(self, name: str, x: np.ndarray) -> None:
        self.inputs[name] = x.copy()

    def bind_output(self, name, device, index, dtype, shape, address) -> None:
        assert (device, index) == ("cpu", 0)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = (ctypes.c_uint8 * size).from_address(address)
        self.output = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)


class RecordedOnnxRuntime(types.ModuleType):
    """Stands for the module; `opened` are (model, options, providers, enable_fallback)."""

    __file__ = "/nowhere/onnxruntime/__init__.py"
    SessionOptions = SessionOptions
    GraphOptimizationLevel = types.SimpleNamespace(ORT_ENABLE_EXTENDED=2)

    def __init__(self) -> None:
        super().__init__("onnxruntime")
        self.opened: list[tuple[object, SessionOptions, list, int]] = []
        self.failure: Exception | None = None
        self.ran_on: str | None = None

    def get_available_providers(self) -> list[str]:
        return [TENSORRT, CUDA, "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        sys.stdout.write("Failed to load libcudnn.so.9\n")

    def _open_session(self, model, options, *, providers, enable_fallback) -> types.SimpleNamespace:
        self.opened.append((model, options, providers, enable_fallback))
        if self.failure is not None:
            raise self.failure
        return types.SimpleNamespace(
            get_providers=lambda: [self.ran_on or providers[0][0], "CPUExecutionProvider"],
            io_binding=Binding,
            run_with_iobinding=run,
        )

    InferenceSession = _open_session


def run(binding: Binding) -> None:
    (x,) = binding.inputs.values()
    total = x.reshape(len(x), -1).sum(axis=1)
    binding.output[...] = total.reshape(len(x), *[1] * (binding.output.ndim - 1))


def recorded_onnxruntime(monkeypatch) -> RecordedOnnxRuntime:
    """A machine with a driver and onnxruntime-gpu, as far as the GPU rows can see."""
    module = RecordedOnnxRuntime()
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    monkeypatch.setattr(trt, "driver", lambda: Availability(True, "CUDA 13.0"))
    monkeypatch.setattr(runner, "_trouble", trt.once(runner._trouble.__wrapped__))
    monkeypatch.setattr(runner, "_loading_error", lambda provider: "")
    return module
