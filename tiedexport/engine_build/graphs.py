"""The graphs that engines are parsed from, and the stages that these compute.

A baked plan has the stage's own graph; a weight-free one that graph with its weights as inputs; a
plan for both directions the encoder's and the decoder's as the halves of one graph, which lies
beside the weights: the data of a graph must not lie outside its folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from tiedexport import passes
from tiedexport.errors import MissingRuntimeError
from tiedexport.spec import CODE_IN, StageSpec

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from tiedexport.bundle import Bundle
    from tiedexport.engine_words import Weights
    from tiedexport.manifest import Manifest
    from tiedexport.spec import Precision

_ENCODER, _DECODER, _BOTH = "encoder", "decoder", "autoencoder"


def stages(manifest: Manifest, weights: Weights) -> tuple[StageSpec, ...]:
    """What plans of these weights compute: every stage, or both halves in one plan."""
    if weights != "one-plan":
        return manifest.stages
    encoder, decoder = manifest.stage(_ENCODER), manifest.stage(_DECODER)
    (code,) = decoder.inputs
    return (
        StageSpec(
            _BOTH,
            (*encoder.inputs, replace(code, name=CODE_IN)),
            (*encoder.outputs, *decoder.outputs),
            (*encoder.layers, *decoder.layers),
        ),
    )


def graph(draft: Bundle, stage: str, precision: Precision, weights: Weights) -> str:
    """The file in the bundle that a plan is parsed from; written unless it is there.

    Raises:
        MissingRuntimeError: it has to be written, and onnx-ir is not installed.
    """
    if weights == "baked":
        return draft.manifest.graphs[precision][stage]
    halves = weights == "one-plan"
    file = f"halves.{precision}.onnx" if halves else f"plans/graphs/{stage}.{precision}.onnx"
    path = draft.path / file
    if not path.exists():
        try:
            _write(draft, stage, precision, weights, path)
        except ImportError as error:
            raise MissingRuntimeError(
                f"the graph for --weights {weights} has to be made, which takes onnx and onnx-ir",
                where=file,
                got=error,
                hint="pip install 'onnx>=1.21' 'onnx-ir>=0.1.16', or --weights baked",
            ) from error
    return file


def _write(draft: Bundle, stage: str, precision: Precision, weights: Weights, path: Path) -> None:
    from tiedexport import graph_files

    if weights == "one-plan":
        encoder, decoder = (_load(draft, half, precision) for half in (_ENCODER, _DECODER))
        model = passes.join_halves(encoder, decoder, draft.manifest.ties)
    else:
        plan = _plan(draft, stage, precision)
        model = passes.run(_load(draft, stage, precision), passes.WEIGHT_INPUTS, plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    graph_files.save_checked(model, path)


def _load(draft: Bundle, stage: str, precision: Precision) -> ir.Model:
    import onnx_ir as ir

    return ir.load(draft.graph(stage, precision))


def _plan(draft: Bundle, stage: str, precision: Precision) -> passes.Plan:
    """What the graphs of this stage and precision were made by."""
    spec = draft.manifest.stage(stage)
    used = {layer.weight for layer in spec.layers}
    return passes.Plan(
        ties=tuple(tie for tie in draft.manifest.ties if tie.weight in used),
        inputs=tuple(tensor.name for tensor in spec.inputs),
        outputs=tuple(tensor.name for tensor in spec.outputs),
        precision=precision,
        io_dtype=draft.manifest.io_dtype,
        weights=draft.weights_path(precision),
        kept=draft.manifest.kept.get(precision, {}),
    )
