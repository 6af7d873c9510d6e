"""ONNX Runtime's GPU providers, on a stream of ours and with device buffers of ours."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.on_device.work import CALLS_BEFORE_A_GRAPH, Bound

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle
    from tiedexport.on_device.cuda import Cuda
    from tiedexport.runtimes import Memory
    from tiedexport.spec import Precision, StageSpec

GRAPH_OPTIONS = {
    "onnxruntime-cuda": "enable_cuda_graph",
    "onnxruntime-tensorrt": "trt_cuda_graph_enable",
}
"""Runtime → the option that makes its provider use a CUDA graph."""


class OnnxRuntime:
    """A provider of ONNX Runtime.

    Args:
        runtime: a key of `GRAPH_OPTIONS`.
        cuda: whose stream it runs on.
        bundle: whose graphs it runs.
        precision: of the graphs.
        memory: "shared", or "packed" for its fastest layout.
    """

    def __init__(
        self, runtime: str, cuda: Cuda, bundle: Bundle, precision: Precision, memory: Memory
    ) -> None:
        from tiedexport.runtimes.onnxruntime import RUNTIMES

        self._cuda, self._bundle, self._precision = cuda, bundle, precision
        row = next(row for row in RUNTIMES if row.name == runtime)
        self._provider, self._graph_option = row.provider, GRAPH_OPTIONS[runtime]
        self._options = row.options[precision] | {"user_compute_stream": str(cuda.stream)}
        self._memory = memory

    def bind(self, stage: StageSpec, x: np.ndarray, graph: bool) -> Bound:
        """A session bound to device memory; the provider captures its work by itself."""
        import onnxruntime

        from tiedexport.runtimes import Options
        from tiedexport.runtimes.onnxruntime import inference_session, session_options

        options = session_options(Options(memory=self._memory))
        chosen = self._options | ({self._graph_option: "1"} if graph else {})
        path = str(self._bundle.graph(stage.name, self._precision))
        session = inference_session(path, options, (self._provider, chosen), stage.name)
        spec = stage.outputs[0]
        out = np.empty((len(x), *spec.element_shape), spec.dtype.dtype)
        source, target = self._cuda.allocate(x.nbytes), self._cuda.allocate(out.nbytes)
        memory = ExitStack()
        for address in (source, target):
            memory.callback(self._cuda.free, address)
        self._cuda.copy_in(source, x)
        self._cuda.wait()
        binding = session.io_binding()
        binding.bind_input(stage.inputs[0].name, "cuda", 0, x.dtype.type, x.shape, source)
        binding.bind_output(spec.name, "cuda", 0, out.dtype.type, out.shape, target)
        unsynchronised = onnxruntime.RunOptions()
        unsynchronised.add_run_config_entry("disable_synchronize_execution_providers", "1")
        enqueue = partial(session.run_with_iobinding, binding, unsynchronised)
        for _ in range(CALLS_BEFORE_A_GRAPH):
            enqueue()
        output = partial(_fetched, self._cuda, out, target)
        return Bound(enqueue, output, memory.close)

    def close(self) -> None:
        """Sessions end with what they were bound to."""


def _fetched(cuda: Cuda, out: np.ndarray, address: int) -> np.ndarray:
    cuda.copy_out(out, address)
    cuda.wait()
    return out


SUBJECTS = {name: partial(OnnxRuntime, name) for name in GRAPH_OPTIONS}
