"""What engines are compared with on the device: ONNX Runtime's providers, torch, bare copies."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.acceptance.device_contender import Bound

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.acceptance.cuda import Cuda
    from tiedexport.bundle import Bundle
    from tiedexport.spec import Precision, StageSpec

GRAPH_OPTIONS = {
    "onnxruntime-cuda": "enable_cuda_graph",
    "onnxruntime-tensorrt": "trt_cuda_graph_enable",
}
"""Runtime → the option that makes its provider use a CUDA graph."""

_CALLS_BEFORE_A_GRAPH = 3


class OnnxRuntime:
    """A provider of ONNX Runtime, in its fastest layout, on the stream and with device buffers.

    Args:
        cuda: whose stream it runs on.
        bundle: whose graphs it runs.
        runtime: a key of `GRAPH_OPTIONS`.
        precision: of the graphs.
    """

    def __init__(self, cuda: Cuda, bundle: Bundle, runtime: str, precision: Precision) -> None:
        from tiedexport.runtimes.onnxruntime import RUNTIMES

        self._cuda, self._bundle, self._precision = cuda, bundle, precision
        row = next(row for row in RUNTIMES if row.name == runtime)
        self._provider, self._graph_option = row.provider, GRAPH_OPTIONS[runtime]
        self._options = row.options[precision] | {"user_compute_stream": str(cuda.stream)}

    def bind(self, stage: StageSpec, x: np.ndarray, graph: bool) -> Bound:
        """A session bound to device memory; the provider captures its work by itself."""
        import onnxruntime

        from tiedexport.runtimes import Options
        from tiedexport.runtimes.onnxruntime import inference_session, session_options

        options = session_options(Options(memory="packed"))
        chosen = self._options | ({self._graph_option: "1"} if graph else {})
        path = str(self._bundle.graph(stage.name, self._precision))
        session = inference_session(path, options, (self._provider, chosen), stage.name)
        spec = stage.outputs[0]
        out = np.empty((len(x), *spec.element_shape), spec.dtype.dtype)
        source, target = self._cuda.allocate(x.nbytes), self._cuda.allocate(out.nbytes)
        self._cuda.copy_in(source, x)
        self._cuda.wait()
        binding = session.io_binding()
        binding.bind_input(stage.inputs[0].name, "cuda", 0, x.dtype.type, x.shape, source)
        binding.bind_output(spec.name, "cuda", 0, out.dtype.type, out.shape, target)
        unsynchronised = onnxruntime.RunOptions()
        unsynchronised.add_run_config_entry("disable_synchronize_execution_providers", "1")
        enqueue = partial(session.run_with_iobinding, binding, unsynchronised)
        for _ in range(_CALLS_BEFORE_A_GRAPH):
            enqueue()
        output = partial(_fetched, self._cuda, out, target)
        return Bound(enqueue, output, self._free(source, target))

    def close(self) -> None:
        """Sessions end with what they were bound to."""

    def _free(self, *addresses: int) -> Callable[[], None]:
        def free() -> None:
            for address in addresses:
                self._cuda.free(address)

        return free


class Torch:
    """The model's own module, eager or compiled, on the stream.

    Args:
        cuda: whose stream it runs on.
        bundle: whose weights it takes.
        precision: of weights and products; what follows the last product is in fp32, as in graphs.
        compiled: whether `torch.compile` compiles it, for each batch size anew.
        device: "cuda", or "cpu" to try it where there is none.
    """

    def __init__(
        self, cuda: Cuda, bundle: Bundle, precision: Precision, compiled: bool, device: str = "cuda"
    ) -> None:
        import torch

        from tiedexport.runtimes.torch import loaded_module

        self._torch, self._device, self._compiled = torch, device, compiled
        torch._dynamo.reset()  # here, not in `bind`: the others keep what they have compiled
        self._stream: Any = None
        if device == "cuda":
            self._stream = torch.cuda.ExternalStream(cuda.stream)  # type: ignore[no-untyped-call]
        self._module = loaded_module(bundle, precision, device)
        self._dtype = next(self._module.parameters()).dtype

    def bind(self, stage: StageSpec, x: np.ndarray, graph: bool) -> Bound:
        """The input on the device, and torch's own CUDA graph where one is asked for."""
        torch = self._torch
        source = torch.from_numpy(x).to(self._device)
        call = getattr(self, f"_{stage.name}")
        if self._compiled:
            # With `fullgraph` nothing that cannot be compiled runs eagerly under this name.
            call = torch.compile(call, dynamic=False, fullgraph=True)
        results: dict[str, Any] = {}

        def enqueue() -> None:
            with torch.cuda.stream(self._stream):
                results["output"] = call(source)

        for _ in range(_CALLS_BEFORE_A_GRAPH):
            enqueue()
        launch, kept = enqueue, None
        if graph:
            kept = torch.cuda.CUDAGraph()
            with torch.cuda.graph(kept, stream=self._stream):
                results["output"] = call(source)
            launch = partial(self._replay, kept)

        def output() -> np.ndarray:
            computed: np.ndarray = results["output"].cpu().numpy()
            return computed

        return Bound(launch, output, results.clear)

    def close(self) -> None:
        """Drop the weights."""
        del self._module

    def _replay(self, graph: Any) -> None:
        with self._torch.cuda.stream(self._stream):
            graph.replay()

    def _encoder(self, x: Any) -> Any:
        logits = self._module.encode_to_logits(x.to(self._dtype))
        return self._module.activate_code(logits.float()).to(x.dtype)

    def _decoder(self, code: Any) -> Any:
        logits = self._module.decode_to_logits(code.to(self._dtype))
        return self._module.activate_output(logits.float()).to(code.dtype)

    def _autoencoder(self, x: Any) -> Any:
        code = self._module.encode(x.to(self._dtype))
        return self._module.activate_output(self._module.decode_to_logits(code).float()).to(x.dtype)


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


def _fetched(cuda: Cuda, out: np.ndarray, address: int) -> np.ndarray:
    cuda.copy_out(out, address)
    cuda.wait()
    return out
