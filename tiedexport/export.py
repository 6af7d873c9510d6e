"""`build`: a model becomes a bundle of graphs, weights, engines and golden pairs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import msgspec

from tiedexport import engines, foreign, live
from tiedexport.assembly import STAGES, Assembly, engine_precisions
from tiedexport.bundle import MANIFEST, open_bundle, staging_directory
from tiedexport.engines import Weights
from tiedexport.errors import MissingRuntimeError, UsageError
from tiedexport.foreign.brought import Asked
from tiedexport.progress import Progress
from tiedexport.results import BuildResult
from tiedexport.spec import Precision, precisions_from
from tiedexport.trace import OPSETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Unpack

    from torch import nn

    from tiedexport.bundle import Bundle
    from tiedexport.checkpoint import Checkpoint
    from tiedexport.results import EngineOutcome


DEFAULT_OPSET = 22


class Options(TypedDict, total=False):
    """What `build` and `plan` take besides the model and its bundle.

    Attributes:
        precision: "fp32,fp16,bf16" or an iterable; by default the recipe's, else fp32 and fp16.
        target: engines to build, "rtx:sm89" or "tensorrt"; by default the recipe's, else every
            engine that this machine can build; an empty iterable builds none.
        weights: "shared" makes engines that take their weights as inputs, "baked" puts them inside.
        opset: ONNX operator set, 18 to 23 (Gelu needs 20, bf16 convolutions 22).
        io_dtype: type of every stage's inputs and outputs, "fp32" or "fp16".
        family: of a bare state dict: "autoencoder".
        settings: fields of that family's configuration that a state dict cannot tell, as
            {"activation": "tanh"}.
        input_shape: of one item, for a live module that has no such attribute.
        samples: a file of inputs for the golden pairs; by default the checkpoint's, else random.
    """

    precision: str | Iterable[str] | None
    target: Iterable[str] | None
    weights: Weights
    opset: int
    io_dtype: str
    family: str | None
    settings: Mapping[str, str] | None
    input_shape: int | Sequence[int] | None
    samples: str | Path | None


@dataclass(frozen=True)
class Order:
    """What a build was asked for, with every default filled in."""

    checkpoint: Checkpoint
    source: str
    notes: tuple[str, ...]
    output: Path
    precisions: tuple[Precision, ...]
    targets: tuple[str, ...]
    targets_asked_for: bool
    weights: Weights
    opset: int
    io_dtype: Precision

    def describe(self) -> str:
        """The plan of work, a line a step."""
        precisions = ", ".join(engine_precisions(self.precisions))
        lines = [
            f"read    {self.source}",
            *(f"        {note}" for note in self.notes),
            f"export  {', '.join(STAGES)} to ONNX opset {self.opset}, {self.io_dtype} in and out",
            *(f"write   weights and three graphs in {p}" for p in self.precisions),
            *(
                f"build   {target} engines in {precisions}, weights {self.weights}"
                for target in self.targets
            ),
            f"write   {self.output}",
        ]
        return "\n".join(lines)


def build(
    model: str | Path | nn.Module,
    output: str | Path | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> BuildResult:
    """Build a bundle from a model.

    Args:
        model: a checkpoint that `train` wrote, a live module (itself, or as
            "package.module:factory"), a `torch.export` program (`.pt2`), or a bare state dict
            (`.pt`, `.safetensors`). A live module and a program run code: build what you trust.
        output: the bundle's directory; by default beside the model, with suffix `.tied`.
        progress: where to show progress; by default nowhere.
        options: see `Options`.

    Returns:
        Sizes, the outcome of every engine, and what was assumed of the model. An engine that could
        not be built leaves the bundle whole and is reported as not run or failed.

    Raises:
        BadInputError: the file cannot be used, or a live module raised.
        GraphError, TieBrokenError: the model is no chain of layers, or a graph pass could not keep
            its meaning or its ties.
        UsageError: the arguments contradict each other.
    """
    start = time.perf_counter()
    progress = progress or Progress(quiet=True)
    order = order_from(model, output, **options)
    for note in order.notes:
        progress.say(f"{order.source}: {note}")
    with staging_directory(order.output) as staging:
        assembly = Assembly(
            order.checkpoint, staging, order.output.stem, order.opset, order.io_dtype, order.weights
        )
        _assemble(assembly, order, progress)
        _refuse_to_replace(order, assembly.outcomes)
    bundle, seconds = open_bundle(order.output, check="size"), time.perf_counter() - start
    result = result_from(bundle, assembly.outcomes, seconds, asked_for=order.targets_asked_for)
    return msgspec.structs.replace(result, notes=order.notes)


def plan(
    model: str | Path | nn.Module, output: str | Path | None = None, **options: Unpack[Options]
) -> str:
    """What `build` would do with these arguments, a line a step; nothing is written.

    Raises:
        TiedExportError: as `build`.
    """
    return order_from(model, output, **options).describe()


def order_from(
    model: str | Path | nn.Module, output: str | Path | None, **options: Unpack[Options]
) -> Order:
    """Read the model and fill in the defaults, from its recipe where it has one.

    Raises:
        TiedExportError: as `build`.
    """
    weights, io_dtype = options.get("weights", "shared"), options.get("io_dtype", "fp32")
    opset = options.get("opset", DEFAULT_OPSET)
    _refuse_unknown(weights, io_dtype, opset)
    named = isinstance(model, str | Path)
    if not named and output is None:
        raise UsageError("a module has no place beside it", got="no output", expected="a path")
    brought = foreign.checkpoint(model, _asked(options))
    training = brought.checkpoint.training
    recipe = training.recipe.get("build", {}) if training else {}
    asked = options.get("target")
    asked = asked if asked is not None else (recipe.get("targets") or None)
    targets = tuple(asked) if asked is not None else engines.default_targets()
    for name in targets:
        engines.builder_for(name)
    precision = options.get("precision")
    return Order(
        checkpoint=brought.checkpoint,
        source=str(model) if named else type(model).__name__,
        notes=brought.notes,
        output=Path(output) if output is not None else _beside(str(model)),
        precisions=precisions_from(
            precision if precision is not None else recipe.get("precisions") or "fp32,fp16"
        ),
        targets=targets,
        targets_asked_for=asked is not None,
        weights=weights,
        opset=opset,
        io_dtype=Precision(io_dtype),
    )


def _refuse_unknown(weights: str, io_dtype: str, opset: int) -> None:
    if weights not in ("shared", "baked"):
        raise UsageError("unknown weights mode", got=repr(weights), expected="shared or baked")
    if io_dtype not in ("fp32", "fp16"):
        raise UsageError("unknown I/O dtype", got=repr(io_dtype), expected="fp32 or fp16")
    if opset not in OPSETS:
        expected = f"{OPSETS.start} to {OPSETS.stop - 1}"
        raise UsageError("unsupported opset", got=opset, expected=expected)


def _asked(options: Options) -> Asked:
    shape, samples = options.get("input_shape"), options.get("samples")
    axes = (shape,) if isinstance(shape, int) else tuple(shape or ())
    if shape is not None and (not axes or min(axes) < 1):
        raise UsageError(
            "no shape of an input", got=shape, expected="sizes from 1 on: 784, or 1,28,28"
        )
    return Asked(
        options.get("family"),
        options.get("settings") or {},
        axes or None,
        None if samples is None else Path(samples),
    )


def _beside(model: str) -> Path:
    """`model.tied` for `model.pt`, `Net.tied` in this folder for `package.module:Net`."""
    if live.is_reference(model) and not Path(model).exists():
        return Path(f"{model.rpartition(':')[2]}.tied")
    return Path(model).with_suffix(".tied")


def _refuse_to_replace(order: Order, outcomes: Sequence[EngineOutcome]) -> None:
    """A bundle that stands is not replaced by one that lacks an engine which was asked for."""
    lacking = [engine for engine in outcomes if engine.status != "passed"]
    if order.targets_asked_for and lacking and order.output.exists():
        raise MissingRuntimeError(
            "an engine that was asked for was not built; the bundle that stands is left as it was",
            where=order.output,
            got="; ".join(dict.fromkeys(f"{e.target}: {e.reason}" for e in lacking)),
            hint="take another -o, or --target none",
        )


def result_from(
    bundle: Bundle,
    engines: Iterable[EngineOutcome] = (),
    seconds: float = 0.0,
    *,
    asked_for: bool = False,
) -> BuildResult:
    """What a bundle holds, with the engines that were tried for it."""
    manifest = bundle.manifest
    sizes = {name: record.size_bytes for name, record in manifest.files.items()}
    engine_bytes = sum(sizes[plan.file] for plan in manifest.plans)
    manifest_bytes = (bundle.path / MANIFEST).stat().st_size
    return BuildResult(
        bundle=str(bundle.path),
        precisions=manifest.precisions,
        parameter_bytes=sum(manifest.parameter_count * p.itemsize for p in manifest.precisions),
        file_bytes=sum(sizes.values()) + manifest_bytes - engine_bytes,
        engine_bytes=engine_bytes,
        engines=tuple(engines),
        seconds=seconds,
        engines_asked_for=asked_for,
    )


def _assemble(assembly: Assembly, order: Order, progress: Progress) -> None:
    steps = 3 + len(order.precisions) + len(order.targets)
    with progress.task("build", steps) as task:
        assembly.write_golden(order.precisions)
        task.advance(note="golden pairs")
        assembly.trace()
        task.advance(note="graph")
        for precision in order.precisions:
            assembly.write_precision(precision)
            task.advance(note=f"weights and graphs in {precision}")
        for target in order.targets:
            assembly.build_engines(target, lambda note: task.advance(0, note=note))
            task.advance(note=f"engines for {target}")
        assembly.write_manifest()
        task.advance(note="manifest")
