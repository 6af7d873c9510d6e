"""The steps of a build, each writing its files into the staging directory.

What needs onnx is imported late: 40 MiB less while the golden pairs' float64 copy of the weights
is alive.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

import tiedexport
from tiedexport import environment, passes, precision_choice, rounding
from tiedexport.bundle import Bundle, write_manifest
from tiedexport.chain import layers_from_graph
from tiedexport.errors import GraphError
from tiedexport.golden import CODE, INPUT, RECONSTRUCTION, golden_pairs
from tiedexport.manifest import SCHEMA, FileRecord, Manifest, PlanRecord, Tolerance
from tiedexport.spec import Layer, Precision, StageSpec, TensorSpec
from tiedexport.trace import graph_from_module
from tiedexport.weights_file import write_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from tiedexport.checkpoint import Checkpoint
    from tiedexport.precision_choice import Choice

STAGES = {
    "encoder": (INPUT, CODE),
    "decoder": (CODE, RECONSTRUCTION),
    "autoencoder": (INPUT, RECONSTRUCTION),
}
"""Stage → the names of its input and its output."""

_GOLDEN = "golden.npz"


class Assembly:
    """One bundle in the making; call the steps in the order in which they stand here."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        staging: Path,
        name: str,
        opset: int,
        io_dtype: Precision,
    ) -> None:
        self._checkpoint = checkpoint
        self._module = checkpoint.module()
        self._staging = staging
        self._name = name
        self._opset = opset
        self._io_dtype = io_dtype
        self._precisions: list[Precision] = []
        self._kept: dict[Precision, dict[str, Precision]] = {}

    def write_golden(self, precisions: Sequence[Precision]) -> None:
        """Evaluate the model in float64 and write the golden pairs, few beside the weights."""
        parameter_count = sum(w.size for w in self._parameters.values())
        stored_bytes = parameter_count * sum(p.itemsize for p in precisions)
        self._golden = golden_pairs(self._module, self._checkpoint.samples, stored_bytes)
        arrays: dict[str, Any] = self._golden
        np.savez_compressed(self._staging / _GOLDEN, **arrays)

    def trace(self) -> None:
        """Export the model once, and describe each stage from the exported graph.

        Raises:
            GraphError: the exported graph computes something else than the model.
        """
        model = graph_from_module(self._module, self._opset)
        self._graph = passes.run(model, passes.CANONICAL, self._plan("autoencoder", Precision.FP32))
        self._stages = tuple(self._stage_spec(name) for name in STAGES)

    def choose_precisions(self, random_samples: bool, keep_fp32: Iterable[str]) -> Choice:
        """Decide by evidence which types the weights need, and keep to it from here on.

        Raises:
            UsageError: a name of `keep_fp32` is no weight.
        """
        training = self._checkpoint.training
        choice = precision_choice.choose(
            self._layers,
            self._parameters,
            self._checkpoint.samples.numpy(),
            test_rmse=training.test_rmse if training else None,
            random_samples=random_samples,
            keep_fp32=keep_fp32,
        )
        self._kept = choice.kept
        return choice

    def keep_fp32(self, names: Iterable[str], precisions: Iterable[Precision]) -> None:
        """Keep some weights in fp32 in every one of these precisions.

        Raises:
            UsageError: a name is no weight.
        """
        self._kept = precision_choice.keep_in_fp32(self._layers, names, precisions)

    def write_precision(self, precision: Precision) -> None:
        """Write every parameter once and the three graphs that use them, then check the graphs."""
        from tiedexport import graph_files

        kept = self._kept.get(precision, {})
        types = precision_choice.stored_types(self._layers, precision, kept)
        weights = {
            name: _rounded(weight, types.get(name, precision), name)
            for name, weight in self._parameters.items()
        }
        write_weights(self._staging / _weights_file(precision), weights)
        for stage in STAGES:
            model = passes.run(self._graph, passes.STAGE_FILE, self._plan(stage, precision))
            path = self._staging / _graph_file(stage, precision)
            graph_files.save_checked(model, path)
        self._precisions.append(precision)

    def draft(self) -> Bundle:
        """The bundle as far as it is written: graphs, weights and what they mean."""
        return Bundle(self._staging, self._manifest({}, (), ()))

    def write_manifest(self, plans: Iterable[PlanRecord]) -> Manifest:
        """Hash every file and write the manifest around them."""
        tolerances = tuple(self._tolerances())
        return write_manifest(
            self._staging, lambda files: self._manifest(files, tuple(plans), tolerances)
        )

    @property
    def _layers(self) -> tuple[Layer, ...]:
        """Those of the autoencoder, which are all."""
        return self._stages[-1].layers

    @cached_property
    def _parameters(self) -> dict[str, np.ndarray]:
        return {name: tensor.numpy() for name, tensor in self._module.state_dict().items()}

    def _plan(self, stage: str, precision: Precision) -> passes.Plan:
        first, last = STAGES[stage]
        return passes.Plan(
            ties=self._module.ties,
            inputs=(first,),
            outputs=(last,),
            precision=precision,
            io_dtype=self._io_dtype,
            weights=self._staging / _weights_file(precision),
            kept=self._kept.get(precision, {}),
        )

    def _first_golden(self, tensor: str) -> np.ndarray:
        """One sample in float64: enough to check with, and cheap on a large model."""
        return self._golden[tensor][:1].astype(np.float64)

    def _stage_spec(self, name: str) -> StageSpec:
        first, last = STAGES[name]
        model = passes.run(self._graph, ("extract_stage",), self._plan(name, Precision.FP32))
        layers = layers_from_graph(model.graph)
        value = rounding.forward(layers, self._parameters, self._first_golden(first))
        golden = self._first_golden(last)
        if not np.allclose(value, golden, rtol=1e-9, atol=1e-9 * np.abs(golden).max()):
            raise GraphError(
                "the exported graph does not compute what the model computes",
                where=f"stage {name}",
                got=f"outputs off by {np.abs(value - golden).max():.2e} in float64",
            )
        first_shape, last_shape = self._golden[first].shape[1:], golden.shape[1:]
        return StageSpec(
            name,
            (TensorSpec(first, self._io_dtype, ("batch", *first_shape)),),
            (TensorSpec(last, self._io_dtype, ("batch", *last_shape)),),
            layers,
        )

    def _tolerances(self) -> Iterator[Tolerance]:
        for precision in self._precisions:
            for stage in self._stages:
                bound = rounding.forward_bound(
                    stage.layers,
                    self._parameters,
                    self._first_golden(stage.inputs[0].name),
                    precision=precision,
                    accumulation=Precision.FP32,
                    io=self._io_dtype,
                    kept=self._kept.get(precision, {}),
                ).bound
                yield Tolerance(
                    stage.name,
                    precision,
                    Precision.FP32,
                    rounding.LAMBDA,
                    float(bound.max()),
                    float(np.median(bound)),
                )

    def _manifest(
        self,
        files: dict[str, FileRecord],
        plans: tuple[PlanRecord, ...],
        tolerances: tuple[Tolerance, ...],
    ) -> Manifest:
        precisions = self._precisions
        return Manifest(
            schema=SCHEMA,
            generator=f"tiedexport {tiedexport.__version__}",
            created=_now(),
            name=self._name,
            family=self._checkpoint.family,
            config=msgspec.to_builtins(self._checkpoint.config),
            sample_shape=self._checkpoint.sample_shape,
            io_dtype=self._io_dtype,
            opset=self._opset,
            parameter_count=sum(w.size for w in self._parameters.values()),
            stages=self._stages,
            ties=self._module.ties,
            weights={p: _weights_file(p) for p in precisions},
            graphs={p: {s: _graph_file(s, p) for s in STAGES} for p in precisions},
            plans=plans,
            golden=_GOLDEN,
            tolerances=tolerances,
            training=self._checkpoint.training,
            versions=environment.packages(),
            files=files,
            kept=self._kept,
        )


def _rounded(weight: np.ndarray, precision: Precision, name: str) -> np.ndarray:
    largest = float(max(weight.max(), -weight.min()))
    if largest > precision.largest:
        raise GraphError(
            f"a weight does not fit into {precision}",
            where=name,
            got=f"magnitude {largest:.3g}",
            expected=f"at most {precision.largest:.6g}",
            hint="build with --precision fp32,bf16",
        )
    # In C order whatever the checkpoint's strides are: files hold memory as it lies.
    return np.ascontiguousarray(weight, dtype=precision.dtype)


def _weights_file(precision: Precision) -> str:
    return f"weights.{precision}.safetensors"


def _graph_file(stage: str, precision: Precision) -> str:
    return f"{stage}.{precision}.onnx"


def _now() -> str:
    """UTC now, or SOURCE_DATE_EPOCH for a bundle that is the same in every byte."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
