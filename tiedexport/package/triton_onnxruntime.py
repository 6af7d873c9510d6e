"""Triton's onnxruntime backend: the bundle's graphs, over one file of weights.

The backend opens a session an instance and has no parameter for `session.disable_prepacking`, so
that each would keep weights of its own in a packed layout, beside those of the file. A weight that
the graph names among its inputs too may be overridden by a request; ONNX Runtime then packs nothing
and computes on the mapped file, as all sessions of all models do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport import atomic
from tiedexport.errors import UsageError
from tiedexport.package.triton_config import Value, of_stage, parameters
from tiedexport.protobuf import with_inputs
from tiedexport.runtimes import runtime_named
from tiedexport.session import one_precision
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.package.triton import Options


class Backend:
    """Each instance is a session in the server's process."""

    def __init__(self, bundle: Bundle, options: Options) -> None:
        self._bundle, self._options = bundle, options
        self._precision = one_precision(options.precision or Precision.FP32.value)
        bundle.weights_path(self._precision)  # refuses what it does not hold
        row = runtime_named("onnxruntime" if options.device == "cpu" else "onnxruntime-cuda")
        if copies := row.hidden_copies(bundle, self._precision):
            raise UsageError(
                "weights would be stored again",
                got=copies,
                expected="fp32 with --device cpu",
                hint="--backend python runs fp16 and bf16 natively",
            )

    def config(self, stage: str) -> dict[str, Value]:
        """As the protocol says."""
        spec = self._bundle.manifest.stage(stage)
        return {
            "backend": "onnxruntime",
            **of_stage(spec, self._options.preferred_batch),
            "parameters": parameters({"intra_op_thread_count": str(self._options.threads)}),
        }

    def fill(self, stage: str, version: Path, whole: Path) -> None:
        """As the protocol says; the weights are one file on disk under several names."""
        layers = self._bundle.manifest.stage(stage).layers
        graph = self._bundle.graph(stage, self._precision).read_bytes()
        overridable = dict.fromkeys(layer.weight for layer in layers if layer.weight is not None)
        (version / "model.onnx").write_bytes(with_inputs(graph, overridable))
        weights = self._bundle.weights_path(self._precision).name
        atomic.link(whole / weights, version / weights)
