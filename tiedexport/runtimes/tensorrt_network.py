"""What TensorRT is told to compute, computed in numpy: no run of TensorRT, and no GPU.

TensorRT's parser reads a graph into a network, and `network.evaluate` executes that network; see
there what is proof and what prediction. The graph is the one that a plan of the stage was built
from, else that of the plan that serves every stage in two halves, else, in a bundle without plans
of the precision, the stage's own. Weights that a graph takes as inputs come from the bundle, others
from the parser, which maps them from the bundle's file: either way they are in memory once.

TensorRT-RTX parses without a driver; TensorRT is asked only where there is one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from tiedexport import trt
from tiedexport.errors import MissingRuntimeError, RuntimeFailedError
from tiedexport.results import Availability
from tiedexport.runtimes import Options, Runtime, bind_by_running
from tiedexport.spec import CODE_IN, STAGE_OF_VERB, Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.network import Parsed
    from tiedexport.spec import StageSpec


class _TensorRTNetwork(Runtime):
    name = "tensorrt_network"
    rank = 95
    slow = True
    remark = "network, simulated"
    precisions = (Precision.FP16, Precision.BF16, Precision.FP32)
    # True of the evaluation; of TensorRT's own sums it is no more than likely.
    accumulation = dict.fromkeys(Precision, Precision.FP32)

    def availability(self) -> Availability:
        rtx, tensorrt = map(trt.availability, ("tensorrt_rtx", "tensorrt"))
        if rtx.available or not tensorrt.available:
            return rtx
        if trt.driver().available:
            return tensorrt
        reason = f"{rtx.reason}; tensorrt is not asked for a network without a driver"
        return Availability(False, tensorrt.version, reason, rtx.remedy)

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        return None

    def hidden_copies(self, bundle: Bundle, precision: Precision) -> str | None:
        return None

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> _Backend:
        availability = self.availability()
        if not availability.available:
            raise MissingRuntimeError(
                f"{self.name} cannot run", got=availability.reason, hint=availability.remedy
            )
        rtx = trt.availability("tensorrt_rtx").available
        return _Backend(trt.load("tensorrt_rtx" if rtx else "tensorrt"), bundle, precision)

    def layers(
        self, bundle: Bundle, precision: Precision, stage: StageSpec, x: np.ndarray
    ) -> dict[str, np.ndarray] | str:
        availability = self.availability()
        if not availability.available:
            return availability.why
        if not all(layer.output for layer in stage.layers):
            return "the bundle does not name its layers' outputs: tiedexport build model.pt"
        x = x.astype(stage.inputs[0].dtype.dtype, copy=False)
        backend = self.open(bundle, precision, Options())
        return backend.values(stage, x, [layer.output for layer in stage.layers])


class _Backend:
    """The networks of a bundle in one precision, each parsed when it is first used."""

    def __init__(self, handle: trt.Handle, bundle: Bundle, precision: Precision) -> None:
        self._handle, self._bundle, self._precision = handle, bundle, precision
        self._parsed: dict[Path, Parsed] = {}
        self._lock = threading.Lock()

    def run(self, stage: StageSpec, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        name = stage.outputs[0].name
        result = self.values(stage, x, [name])[name]
        if out is None:
            return result
        np.copyto(out, result)
        return out

    def bind(self, stage: StageSpec, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        return bind_by_running(self, stage, x, out)

    def close(self) -> None:
        self._parsed.clear()

    def values(
        self, stage: StageSpec, x: np.ndarray, names: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Tensors of the network by name, the stage's input being `x`."""
        graph, has_halves = self._graph(stage)
        parsed = self._network(graph, stage)
        if has_halves:
            return self._in_halves(parsed, stage, x, names)
        return self._evaluate(parsed, {stage.inputs[0].name: x}, names)

    def _in_halves(
        self, parsed: Parsed, stage: StageSpec, x: np.ndarray, names: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Each half that the stage needs, the other with an empty batch meanwhile."""
        encoder, decoder = map(self._bundle.manifest.stage, ("encoder", "decoder"))
        entries = {"encoder": encoder.inputs[0].name, "decoder": CODE_IN}
        idle = {
            entries[half.name]: np.empty((0, *spec.element_shape), spec.dtype.dtype)
            for half in (encoder, decoder)
            for spec in half.inputs
        }
        found: dict[str, np.ndarray] = {}
        for half in (encoder, decoder):
            if stage.name in (half.name, "autoencoder"):
                end = half.outputs[0].name
                own = {end, *(layer.output for layer in half.layers)}.intersection({end, *names})
                found |= self._evaluate(parsed, idle | {entries[half.name]: x}, own)
                x = found[end]
        return {name: found[name] for name in names}

    def _evaluate(
        self, parsed: Parsed, feeds: dict[str, np.ndarray], names: Collection[str]
    ) -> dict[str, np.ndarray]:
        """With the bundle's weights where the network takes them."""
        from tiedexport.network.evaluate import evaluate

        return evaluate(parsed, {**self._bundle.weights(self._precision), **feeds}, names)

    def _network(self, graph: Path, stage: StageSpec) -> Parsed:
        from tiedexport import network

        with self._lock, self._handle.errors() as logged:
            if graph not in self._parsed:
                try:
                    self._parsed[graph] = network.parse(self._handle, graph)
                except (RuntimeError, TypeError) as error:
                    raise RuntimeFailedError(
                        f"{self._handle.package} {self._handle.version} cannot parse this graph",
                        where=f"{stage.name}: {graph.name}",
                        got="; ".join(dict.fromkeys([str(error), *logged])),
                        hint="rebuild the bundle: tiedexport build model.pt",
                    ) from error
            return self._parsed[graph]

    def _graph(self, stage: StageSpec) -> tuple[Path, bool]:
        """The graph to parse for a stage, and whether it holds the model in two halves."""
        bundle = self._bundle
        plans = [p for p in bundle.manifest.plans if p.precision == self._precision and p.graph]
        for plan in plans:
            if plan.stage == stage.name and plan.weights != "one-plan":
                return bundle.path / plan.graph, False
        for plan in plans:
            if plan.weights == "one-plan" and stage.name in STAGE_OF_VERB.values():
                return bundle.path / plan.graph, True
        return bundle.graph(stage.name, self._precision), False


RUNTIMES = (_TensorRTNetwork(),)
