"""The model's own module in torch, on a stream of ours."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tiedexport.on_device.work import CALLS_BEFORE_A_GRAPH, Bound

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from tiedexport.bundle import Bundle
    from tiedexport.on_device.cuda import Cuda
    from tiedexport.runtimes import Memory
    from tiedexport.spec import Precision, StageSpec


class Torch:
    """The module, eager or compiled; what follows the last product is in fp32, as in graphs.

    Args:
        cuda: whose stream it runs on.
        bundle: whose weights it takes.
        precision: of weights and products.
        memory: torch has one layout for both modes.
        compiled: whether `torch.compile` compiles it, for each batch size anew.
        as_sessions: whether sums are as wide as in a session of torch-cuda, whatever its speed;
            else torch's own settings hold, and all weights must be of one type.
        device: "cuda", or "cpu" to try it where there is none.
    """

    def __init__(
        self,
        cuda: Cuda,
        bundle: Bundle,
        precision: Precision,
        memory: Memory = "shared",
        *,
        compiled: bool = False,
        as_sessions: bool = False,
        device: str = "cuda",
    ) -> None:
        import torch

        from tiedexport.runtimes import Options
        from tiedexport.runtimes.torch import RUNTIMES

        self._torch, self._device, self._compiled = torch, device, compiled
        torch._dynamo.reset()  # here, not in `bind`: the others keep what they have compiled
        self._stream: Any = None
        if device == "cuda":
            self._stream = torch.cuda.ExternalStream(cuda.stream)  # type: ignore[no-untyped-call]
        (row,) = [row for row in RUNTIMES if row.on_gpu == (device == "cuda")]
        self._backend = row.open(bundle, precision, Options(memory=memory))
        self._as_sessions = as_sessions

    def bind(self, stage: StageSpec, x: np.ndarray, graph: bool) -> Bound:
        """The input on the device, and torch's own CUDA graph where one is asked for."""
        torch = self._torch
        source = torch.from_numpy(x).to(self._device)
        call = self._call(stage)
        results: dict[str, Any] = {}

        def enqueue() -> None:
            with torch.cuda.stream(self._stream):
                results["output"] = call(source)

        for _ in range(CALLS_BEFORE_A_GRAPH):
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
        self._backend.close()

    def _call(self, stage: StageSpec) -> Callable[[Any], Any]:
        torch, backend, function = self._torch, self._backend, self._backend.function(stage)
        if self._compiled:
            # With `fullgraph` nothing that cannot be compiled runs eagerly under this name.
            compiled: Callable[[Any], Any] = torch.compile(function, dynamic=False, fullgraph=True)
            return compiled
        if not self._as_sessions:
            return function

        def call(x: Any) -> Any:
            with backend.settings(), torch.inference_mode():
                return function(x)

        return call

    def _replay(self, graph: Any) -> None:
        with self._torch.cuda.stream(self._stream):
            graph.replay()


SUBJECTS = {"torch-cuda": partial(Torch, as_sessions=True)}
