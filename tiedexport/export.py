"""`build`: a checkpoint becomes a bundle of graphs, weights, engines and golden pairs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport import engines
from tiedexport.assembly import STAGES, Assembly, engine_precisions
from tiedexport.bundle import MANIFEST, open_bundle, staging_directory
from tiedexport.checkpoint import Checkpoint, load_checkpoint
from tiedexport.engines import Weights
from tiedexport.errors import MissingRuntimeError, UsageError
from tiedexport.progress import Progress
from tiedexport.results import BuildResult
from tiedexport.spec import Precision, precisions_from
from tiedexport.trace import OPSETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tiedexport.bundle import Bundle
    from tiedexport.results import EngineOutcome


DEFAULT_OPSET = 22


@dataclass(frozen=True)
class Order:
    """What a build was asked for, with every default filled in."""

    checkpoint: Path
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
            f"read    {self.checkpoint}",
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
    checkpoint: str | Path,
    output: str | Path | None = None,
    *,
    precision: str | Iterable[str] | None = None,
    target: Iterable[str] | None = None,
    weights: Weights = "shared",
    opset: int = DEFAULT_OPSET,
    io_dtype: str = "fp32",
    progress: Progress | None = None,
) -> BuildResult:
    """Build a bundle from a checkpoint.

    Args:
        checkpoint: `model.pt`, as `train` writes it.
        output: the bundle's directory; by default beside the checkpoint, with suffix `.tied`.
        precision: "fp32,fp16,bf16" or an iterable; by default the recipe's, else fp32 and fp16.
        target: engines to build, "rtx:sm89" or "tensorrt"; by default the recipe's, else every
            engine that this machine can build; an empty iterable builds none.
        weights: "shared" makes engines that take their weights as inputs, "baked" puts them inside.
        opset: ONNX operator set, 18 to 23 (Gelu needs 20, bf16 convolutions 22).
        io_dtype: type of every stage's inputs and outputs, "fp32" or "fp16".
        progress: where to show progress; by default nowhere.

    Returns:
        Sizes, and the outcome of every engine. An engine that could not be built leaves the
        bundle whole and is reported as not run or failed.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        GraphError, TieBrokenError: a graph pass could not keep the model's meaning or its ties.
        UsageError: the arguments contradict each other.
    """
    start = time.perf_counter()
    loaded = load_checkpoint(checkpoint)
    order = order_from(checkpoint, output, loaded, precision, target, weights, opset, io_dtype)
    progress = progress or Progress(quiet=True)
    if loaded.training is None:
        progress.say(f"{checkpoint}: of no finished training, so the bundle cannot tell of one")
    with staging_directory(order.output) as staging:
        assembly = Assembly(
            loaded, staging, order.output.stem, order.opset, order.io_dtype, order.weights
        )
        _assemble(assembly, order, progress)
        _refuse_to_replace(order, assembly.outcomes)
    bundle = open_bundle(order.output, check="size")
    seconds = time.perf_counter() - start
    return result_from(bundle, assembly.outcomes, seconds, asked_for=order.targets_asked_for)


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


def plan(
    checkpoint: str | Path,
    output: str | Path | None = None,
    *,
    precision: str | Iterable[str] | None = None,
    target: Iterable[str] | None = None,
    weights: Weights = "shared",
    opset: int = DEFAULT_OPSET,
    io_dtype: str = "fp32",
) -> str:
    """What `build` would do with these arguments, a line a step; nothing is written.

    Raises:
        CheckpointError, UsageError: as `build`.
    """
    loaded = load_checkpoint(checkpoint)
    return order_from(
        checkpoint, output, loaded, precision, target, weights, opset, io_dtype
    ).describe()


def order_from(
    checkpoint: str | Path,
    output: str | Path | None,
    loaded: Checkpoint,
    precision: str | Iterable[str] | None,
    target: Iterable[str] | None,
    weights: Weights,
    opset: int,
    io_dtype: str,
) -> Order:
    """Fill in the defaults of `build`, from the checkpoint's recipe where it has some.

    Raises:
        UsageError: an argument names nothing that exists.
    """
    recipe = loaded.training.recipe.get("build", {}) if loaded.training else {}
    if weights not in ("shared", "baked"):
        raise UsageError("unknown weights mode", got=repr(weights), expected="shared or baked")
    if io_dtype not in ("fp32", "fp16"):
        raise UsageError("unknown I/O dtype", got=repr(io_dtype), expected="fp32 or fp16")
    if opset not in OPSETS:
        expected = f"{OPSETS.start} to {OPSETS.stop - 1}"
        raise UsageError("unsupported opset", got=opset, expected=expected)
    asked = target if target is not None else (recipe.get("targets") or None)
    targets = tuple(asked) if asked is not None else engines.default_targets()
    for name in targets:
        engines.builder_for(name)
    return Order(
        checkpoint=Path(checkpoint),
        output=Path(output) if output is not None else Path(checkpoint).with_suffix(".tied"),
        precisions=precisions_from(
            precision if precision is not None else recipe.get("precisions") or "fp32,fp16"
        ),
        targets=targets,
        targets_asked_for=asked is not None,
        weights=weights,
        opset=opset,
        io_dtype=Precision(io_dtype),
    )
