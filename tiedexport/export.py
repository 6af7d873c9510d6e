"""`build`: a model becomes a bundle of graphs, weights, engines and golden pairs.

What needs torch is imported late: engines are added to a bundle without.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tiedexport import engine_addition
from tiedexport.bundle import MANIFEST, open_bundle, safetensors_layout, staging_directory
from tiedexport.engine_build import EngineBuild
from tiedexport.engine_build.shelf import shelf_beside
from tiedexport.order import DEFAULT_PRECISIONS, Options, order_from
from tiedexport.progress import Progress
from tiedexport.results import BuildResult

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    from torch import nn

    from tiedexport.assembly import Assembly
    from tiedexport.bundle import Bundle
    from tiedexport.engine_build import Made
    from tiedexport.engine_build.shelf import PlanShelf
    from tiedexport.order import Order
    from tiedexport.precision_choice import Choice
    from tiedexport.progress import Task
    from tiedexport.results import EngineOutcome
    from tiedexport.spec import Precision

__all__ = ["Options", "build", "plan", "result_from"]


def build(
    model: str | Path | nn.Module,
    output: str | Path | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> BuildResult:
    """Build a bundle from a model, or engines into a bundle.

    Args:
        model: a checkpoint that `train` wrote, a live module (itself, or as
            "package.module:factory"), a `torch.export` program (`.pt2`), or a bare state dict
            (`.pt`, `.safetensors`). A live module and a program run code: build what you trust.
            Or a bundle, which then gets engines, and all else in it stays as it is.
        output: the bundle's directory; by default beside the model, with suffix `.tied`; a bundle
            is by default replaced by itself with its engines.
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
    if isinstance(model, str | Path) and _is_bundle(model):
        addition = engine_addition.addition_from(Path(model), output, **options)
        made = engine_addition.add(addition, progress)
        bundle, seconds = open_bundle(addition.output, check="size"), time.perf_counter() - start
        asked_for = addition.engines.asked_for
        return result_from(bundle, made.outcomes, seconds, asked_for=asked_for)
    order = order_from(model, output, **options)
    left_out = order.engines.left_out
    dropped = (f"{order.output}: drops {left_out}",) if left_out else ()
    for note in (*(f"{order.source}: {note}" for note in order.notes), *dropped):
        progress.say(note)
    made, choice = _write(order, progress)
    bundle, seconds = open_bundle(order.output, check="size"), time.perf_counter() - start
    asked_for = order.engines.asked_for
    result = result_from(bundle, made.outcomes, seconds, asked_for=asked_for)
    notes = (*order.notes, *dropped)
    if choice is None:
        return replace(result, notes=notes)
    return replace(result, notes=(*notes, *choice.lines), precision_choice=choice.ties)


def plan(
    model: str | Path | nn.Module, output: str | Path | None = None, **options: Unpack[Options]
) -> str:
    """What `build` would do with these arguments, a line a step; nothing is written.

    Raises:
        TiedExportError: as `build`.
    """
    if isinstance(model, str | Path) and _is_bundle(model):
        return engine_addition.addition_from(Path(model), output, **options).describe()
    return order_from(model, output, **options).describe()


def _is_bundle(model: str | Path) -> bool:
    return (Path(model) / MANIFEST).is_file()


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
    engine_bytes = sum(sizes[file] for file in manifest.engine_files)
    manifest_bytes = (bundle.path / MANIFEST).stat().st_size
    layouts = [safetensors_layout(bundle.weights_path(p)) for p in manifest.precisions]
    return BuildResult(
        bundle=str(bundle.path),
        precisions=manifest.precisions,
        parameter_bytes=sum(length for layout in layouts for *_, length in layout.values()),
        file_bytes=sum(sizes.values()) + manifest_bytes - engine_bytes,
        engine_bytes=engine_bytes,
        engines=tuple(engines),
        seconds=seconds,
        engines_asked_for=asked_for,
        kept=manifest.kept,
    )


def _write(order: Order, progress: Progress) -> tuple[Made, Choice | None]:
    from tiedexport.assembly import Assembly

    with staging_directory(order.output) as staging, shelf_beside(order.output) as shelf:
        assembly = Assembly(
            order.checkpoint, staging, order.output.stem, order.opset, order.io_dtype
        )
        with progress.task("build", 3) as task:
            precisions, choice = _assemble(assembly, order, task, progress)
            made = _build_engines(assembly, order, precisions, shelf, task)
            engine_addition.refuse_to_replace(order.output, order.engines, made)
            assembly.write_manifest(made.plans)
            task.advance(note="manifest")
    return made, choice


def _assemble(
    assembly: Assembly, order: Order, task: Task, progress: Progress
) -> tuple[tuple[Precision, ...], Choice | None]:
    """Everything but engines, in the precisions asked for, or in those that evidence asks for."""
    assembly.write_golden(order.precisions or DEFAULT_PRECISIONS)
    task.advance(note="golden pairs")
    assembly.trace()
    task.advance(note="graph")
    choice, precisions = None, order.precisions
    if precisions is None:
        choice = assembly.choose_precisions(order.random_samples, order.keep_fp32)
        precisions = choice.precisions
        for line in choice.lines:
            progress.say(line)
    else:
        assembly.keep_fp32(order.keep_fp32, precisions)
    task.total += len(precisions)
    for precision in precisions:
        assembly.write_precision(precision)
        task.advance(note=f"weights and graphs in {precision}")
    return precisions, choice


def _build_engines(
    assembly: Assembly,
    order: Order,
    precisions: tuple[Precision, ...],
    shelf: PlanShelf,
    task: Task,
) -> Made:
    draft, standing = assembly.draft(), order.engines.standing
    order.engines.check_shapes(draft.manifest, precisions)
    build = EngineBuild(draft, standing, order.engines.wanted(precisions), shelf)
    task.total += build.count
    before = task.done
    return build.run(lambda done, note: task.reach(before + done, note=note))
