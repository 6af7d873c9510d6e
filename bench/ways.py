"""The ways to run a bundle that are measured against each other: ours, and its peers by themselves.

A way may be missing on a machine: `missing` says why. OpenVINO is for these benches only:
pip install openvino==2026.4.1
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tiedexport import open_bundle, open_session
from tiedexport.errors import UsageError
from tiedexport.runtimes import runtime_named
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.bundle import Bundle


@dataclass(frozen=True)
class Way:
    """How a bundle is run.

    Attributes:
        runtime: one of tiedexport's, or "openvino".
        memory: "shared" or "packed" through `open_session`; else a peer by itself: "default" is
            ONNX Runtime or OpenVINO without any option of ours, "eager" and "compiled" are torch.
    """

    runtime: str
    precision: str
    memory: str = "shared"

    @property
    def script(self) -> str:
        """What its memory is kept under."""
        return f"memory_{self.runtime}_{self.precision}_{self.memory}"

    def __str__(self) -> str:
        return " ".join((self.runtime, self.precision, self.memory)).removesuffix(" shared")


class Opened(Protocol):
    """A bundle opened in some way; a stage is made ready when it is first used."""

    def run(self, stage: str, x: np.ndarray, out: np.ndarray) -> object:
        """Run a stage from `x` to `out`, whatever the batch size."""
        ...

    def bind(self, stage: str, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        """A call that runs a stage from `x` to `out`, with all set-up done for that shape."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


def missing(way: Way) -> str:
    """Why nothing can be run in this way here, or ""."""
    if way.runtime == "openvino":
        found = find_spec("openvino") is not None
        return "" if found else "openvino is not installed: pip install openvino==2026.4.1"
    try:
        row = runtime_named(way.runtime)
    except UsageError as error:
        return str(error.what)
    found = row.availability()
    return "" if found.available else found.why


def opened(way: Way, path: str, threads: int) -> Opened:
    """The bundle at `path`, whose files were checked before, opened in one way."""
    bundle = open_bundle(path, check="size")
    if way.runtime == "openvino":
        return _OpenVino(bundle, way.precision, threads)
    if way.memory == "default":
        return _OnnxRuntime(bundle, Precision(way.precision), threads)
    if way.memory in ("eager", "compiled"):
        return _Torch(bundle, Precision(way.precision), threads, way.memory == "compiled")
    return open_session(
        bundle,
        runtime=way.runtime,
        precision=way.precision,
        memory=way.memory,
        threads=threads,
    )


class _OnnxRuntime:
    """ONNX Runtime as its own documentation shows it: one session a graph, weights packed."""

    def __init__(self, bundle: Bundle, precision: Precision, threads: int) -> None:
        import onnxruntime

        self._bundle, self._precision = bundle, precision
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._sessions: dict[str, Any] = {}

    def run(self, stage: str, x: np.ndarray, out: np.ndarray) -> None:
        self.bind(stage, x, out)()

    def bind(self, stage: str, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        session = self._session(stage)
        binding = session.io_binding()
        binding.bind_cpu_input(session.get_inputs()[0].name, x)
        name = session.get_outputs()[0].name
        binding.bind_output(name, "cpu", 0, out.dtype.type, out.shape, out.ctypes.data)

        def call(_kept_alive: object = (x, out)) -> None:  # the binding holds bare addresses
            session.run_with_iobinding(binding)

        return call

    def close(self) -> None:
        self._sessions.clear()

    def _session(self, stage: str) -> Any:
        import onnxruntime

        if stage not in self._sessions:
            graph = self._bundle.graph(stage, self._precision)
            self._sessions[stage] = onnxruntime.InferenceSession(graph, self._options)
        return self._sessions[stage]


class _Torch:
    """The family's module by itself, fp32, on tensors that share the arrays' memory."""

    def __init__(
        self, bundle: Bundle, precision: Precision, threads: int, is_compiled: bool
    ) -> None:
        import torch

        from tiedexport.runtimes.torch import loaded_module

        torch.set_num_threads(threads)
        module = loaded_module(bundle, precision, "cpu")
        self._stages: dict[str, Callable[[Any], Any]] = {
            "encoder": module.encode,
            "decoder": module.decode,
            "autoencoder": lambda x: module.decode(module.encode(x)),
        }
        if is_compiled:
            for name, function in self._stages.items():
                self._stages[name] = torch.compile(function, dynamic=False)

    def run(self, stage: str, x: np.ndarray, out: np.ndarray) -> None:
        self.bind(stage, x, out)()

    def bind(self, stage: str, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        import torch

        function, tensor, target = self._stages[stage], torch.from_numpy(x), torch.from_numpy(out)

        def call() -> None:
            with torch.inference_mode():
                target.copy_(function(tensor))

        return call

    def close(self) -> None:
        self._stages.clear()


class _OpenVino:
    """OpenVINO for least latency; its own precision hint decides what it computes in."""

    def __init__(self, bundle: Bundle, hint: str, threads: int) -> None:
        import openvino

        self._bundle, self._openvino, self._core = bundle, openvino, openvino.Core()
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[hint],
        }
        self._requests: dict[str, Any] = {}

    def run(self, stage: str, x: np.ndarray, out: np.ndarray) -> None:
        if stage not in self._requests:
            self._requests[stage] = self._compiled(stage, None)
        np.copyto(out, self._requests[stage].infer([x])[0])

    def bind(self, stage: str, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        self._requests.clear()  # each shape that is fixed holds weights of its own
        request = self._requests[stage] = self._compiled(stage, x.shape)
        request.set_input_tensor(self._openvino.Tensor(x, shared_memory=True))
        request.set_output_tensor(self._openvino.Tensor(out, shared_memory=True))

        def call(_kept_alive: object = (x, out)) -> None:
            request.start_async()
            request.wait()

        return call

    def close(self) -> None:
        self._requests.clear()

    def _compiled(self, stage: str, shape: tuple[int, ...] | None) -> Any:
        model = self._core.read_model(self._bundle.graph(stage, Precision.FP32))
        if shape is not None:
            model.reshape(list(shape))
        return self._core.compile_model(model, "CPU", self._config).create_infer_request()
