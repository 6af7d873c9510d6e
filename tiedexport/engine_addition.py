"""Engines for a bundle that is built already: no torch, and nothing else of it changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

import tiedexport
from tiedexport import atomic
from tiedexport.bundle import Bundle, open_bundle, staging_directory, write_manifest
from tiedexport.engine_build import EngineBuild
from tiedexport.engine_build.shelf import shelf_beside
from tiedexport.errors import MissingRuntimeError, UsageError
from tiedexport.manifest import SCHEMA
from tiedexport.order import engine_order
from tiedexport.spec import Precision, precisions_from

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    from tiedexport.engine_build import Made
    from tiedexport.manifest import PlanRecord
    from tiedexport.order import EngineOrder, Options
    from tiedexport.progress import Progress

_OF_MODELS = {
    "opset": "--opset",
    "io_dtype": "--io-dtype",
    "keep_fp32": "--keep-fp32",
    "family": "--family",
    "settings": "--set",
    "input_shape": "--input-shape",
    "samples": "--samples",
}
"""Options that only the building of a model can follow."""


@dataclass(frozen=True)
class Addition:
    """Engines that a bundle is to get, and where it is to lie then."""

    bundle: Bundle
    output: Path
    precisions: tuple[Precision, ...]
    engines: EngineOrder

    def describe(self) -> str:
        """The plan of work, a line a step."""
        lines = [f"read    {self.bundle.path}", *self.engines.describe(self.precisions)]
        return "\n".join([*lines, f"write   {self.output}"])


def addition_from(path: Path, output: str | Path | None, **options: Unpack[Options]) -> Addition:
    """Open the bundle and fill in the defaults.

    Raises:
        BundleError: it is damaged.
        UsageError: an option is about models, or names a precision that the bundle does not hold.
    """
    for name, option in _OF_MODELS.items():
        if options.get(name):
            raise UsageError(
                "this option is about models, and a bundle is built already",
                where=path,
                got=option,
                hint="leave it out, or build the model again: tiedexport build model.pt",
            )
    bundle = open_bundle(path)
    held, asked = bundle.manifest.precisions, options.get("precision")
    precisions = held if asked is None else _held(asked, bundle)
    engines = engine_order(options, bundle)
    engines.check_shapes(bundle.manifest, precisions)
    return Addition(bundle, path if output is None else Path(output), precisions, engines)


def add(addition: Addition, progress: Progress) -> Made:
    """Build the engines; all other files stay as they are.

    Raises:
        MissingRuntimeError: an engine that was named cannot be built.
        UsageError: something that is no bundle is in the way.
    """
    source, output = addition.bundle, addition.output
    with staging_directory(output) as staging, shelf_beside(output) as shelf:
        _take(source, staging, same=output.exists() and output.samefile(source.path))
        wanted = addition.engines.wanted(addition.precisions)
        build = EngineBuild(Bundle(staging, source.manifest), source, wanted, shelf)
        with progress.task("build", build.count) as task:
            made = build.run(lambda done, note: task.reach(done, note=note))
        refuse_to_replace(output, addition.engines, made)
        _finish(staging, source, made)
    return made


def refuse_to_replace(output: Path, order: EngineOrder, made: Made) -> None:
    """A bundle that stands is not replaced by one without an engine that was asked for.

    Nor by one without an engine of its own whose building failed. One that this machine cannot
    build and that does not fit the new model goes, and is reported.

    Raises:
        MissingRuntimeError: it would be.
    """
    standing = {plan.target for plan in order.standing.manifest.plans} if order.standing else set()
    lacking: dict[str, dict[str, None]] = {}  # by reason, which several targets can share
    for engine in made.outcomes:
        failed = engine.status == "failed" and engine.target in standing
        if failed or (order.asked_for and engine.status != "passed"):
            lacking.setdefault(engine.reason, {})[engine.target] = None
    if lacking and output.exists():
        raise MissingRuntimeError(
            "an engine could not be built; the bundle that stands is left as it was",
            where=output,
            got="; ".join(f"{', '.join(targets)}: {why}" for why, targets in lacking.items()),
            hint="take another -o, or --target none",
        )


def _take(source: Bundle, staging: Path, *, same: bool) -> None:
    """The files of a bundle: its plans linked if it is to be replaced, all others copied.

    Two bundles never share a file: what is done to one must not be done to the other. And readers
    of ONNX refuse weights in a file that has a second name, be it for a moment.
    """
    plans = {plan.file for plan in source.manifest.plans}
    for file in source.manifest.files:
        put = atomic.link if same and file in plans else atomic.copy
        put(source.path / file, staging / file)


def _held(asked: str | Iterable[str], bundle: Bundle) -> tuple[Precision, ...]:
    held = bundle.manifest.precisions
    names = precisions_from(asked)
    if absent := [name for name in names if name not in held]:
        raise UsageError(
            "the bundle does not hold this precision",
            where=bundle.path,
            got=", ".join(absent),
            expected=", ".join(held),
            hint="build the model again: tiedexport build model.pt --precision ...",
        )
    return names


def _finish(staging: Path, source: Bundle, made: Made) -> None:
    """Write the manifest of what is there now, without what no engine needs any more."""
    manifest = replace(
        source.manifest,
        schema=SCHEMA,
        generator=f"tiedexport {tiedexport.__version__}",
        plans=(*_that_stay(source.manifest.plans, made.plans), *made.plans),
    )
    for file in source.manifest.engine_files - manifest.engine_files:
        (staging / file).unlink()
    write_manifest(staging, lambda files: replace(manifest, files=files))


def _that_stay(old: tuple[PlanRecord, ...], new: list[PlanRecord]) -> list[PlanRecord]:
    """Plans that no new one replaces; a plan of both halves replaces those of each stage."""
    files = {plan.file for plan in new}
    whole = {(p.target, p.precision) for p in new if p.weights == "one-plan"}
    return [p for p in old if p.file not in files and (p.target, p.precision) not in whole]
