"""The graphs that this project really hands to a builder, of models made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from conftest import make_checkpoint
from safetensors.numpy import save_file

from tiedexport import graph_files, passes
from tiedexport.assembly import STAGES
from tiedexport.chain import layers_from_graph
from tiedexport.engines import EngineRequest
from tiedexport.precision_choice import stored_types
from tiedexport.spec import CODE_IN, Layer, Precision, StageSpec, TensorSpec
from tiedexport.trace import graph_from_module


class Exported:
    """A model, traced once; each request has its graph and weights in a folder of its own."""

    def __init__(self, folder: Path, family: str, opset: int = 22, **fields: Any) -> None:
        self._folder, self._requests = folder, 0
        self._module = make_checkpoint(family, fields).module()
        self.weights = {n: t.numpy() for n, t in self._module.state_dict().items()}
        plan = self._plan("autoencoder", Precision.FP32, Precision.FP32, {})
        graph = graph_from_module(self._module, opset)
        self._graph = passes.run(graph, passes.CANONICAL, plan)

    def shared(
        self, stage: str, target="rtx:sm89", precision=Precision.FP16, io=Precision.FP32, **changes
    ) -> EngineRequest:
        """Weights are inputs of the graph."""
        self._begin()
        graph = self._lowered(stage, precision, io, changes.get("kept", {}))
        graph = passes.run(graph, passes.WEIGHT_INPUTS, self._plan(stage, precision, io, {}))
        fields = {"graph": graph_files.serialised(graph), "weights": "shared"}
        return self._request(self.stage(stage, io), precision, target, fields | changes)

    def baked(
        self, stage: str, target="rtx:sm89", precision=Precision.FP16, io=Precision.FP32, **changes
    ) -> EngineRequest:
        """Weights lie beside the graph and go into the plan."""
        self._begin()
        graph = self._lowered(stage, precision, io, changes.get("kept", {}))
        path = self._place / f"{stage}.{precision}.onnx"
        graph_files.save_checked(graph, path)
        fields = {"graph": path, "weights": "baked"}
        return self._request(self.stage(stage, io), precision, target, fields | changes)

    def halves(
        self, target="rtx:sm89", precision=Precision.FP16, io=Precision.FP32, **changes
    ) -> EngineRequest:
        """Encoder and decoder side by side, their weights in the plan once."""
        self._begin()
        kept = changes.get("kept", {})
        encoder, decoder = (self._lowered(s, precision, io, kept) for s in ("encoder", "decoder"))
        path = self._place / f"halves.{precision}.onnx"
        joined = passes.join_halves(encoder, decoder, self._module.ties)
        graph_files.save_checked(joined, path)
        first, second = self.stage("encoder", io), self.stage("decoder", io)
        code = second.inputs[0]
        stage = StageSpec(
            "autoencoder",
            (*first.inputs, TensorSpec(CODE_IN, code.dtype, code.shape)),
            (*first.outputs, *second.outputs),
            first.layers + second.layers,
        )
        fields = {"graph": path, "weights": "one-plan"}
        return self._request(stage, precision, target, fields | changes)

    def stage(self, name: str, io=Precision.FP32) -> StageSpec:
        """What a stage takes, gives and computes."""
        plan = self._plan(name, Precision.FP32, io, {})
        graph = passes.run(self._graph, ("extract_stage",), plan).graph
        layers: tuple[Layer, ...] = layers_from_graph(graph)
        source, target = (
            TensorSpec(value.name, io, ("batch", *(int(n) for n in list(value.shape)[1:])))
            for value in (graph.inputs[0], graph.outputs[0])
        )
        return StageSpec(name, (source,), (target,), layers)

    @property
    def _place(self) -> Path:
        return self._folder / str(self._requests)

    def _begin(self) -> None:
        self._requests += 1
        self._place.mkdir(parents=True)

    def _request(self, stage, precision, target, fields: dict[str, Any]) -> EngineRequest:
        fields = {"weight_names": tuple(self.weights)} | fields
        return EngineRequest(stage=stage, precision=precision, target=target, **fields)

    def _lowered(self, stage: str, precision, io, kept):
        plan = self._plan(stage, precision, io, kept)
        types = stored_types(self.stage("autoencoder").layers, precision, kept)
        arrays = {
            name: np.ascontiguousarray(array, dtype=types[name].dtype)
            for name, array in self.weights.items()
        }
        save_file(arrays, plan.weights)
        return passes.run(self._graph, passes.STAGE_FILE, plan)

    def _plan(self, stage: str, precision, io, kept) -> passes.Plan:
        first, last = STAGES[stage]
        weights = self._place / f"weights.{precision}.safetensors"
        return passes.Plan(self._module.ties, (first,), (last,), precision, io, weights, kept)
