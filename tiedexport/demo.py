"""`demo`: the whole path on the reference model, re-using whatever an earlier call has made."""

from __future__ import annotations

import time
from pathlib import Path

from tiedexport import export, measure, reporting, surroundings, train, verify
from tiedexport.audit import audit
from tiedexport.bundle import open_bundle
from tiedexport.checkpoint import load_checkpoint
from tiedexport.errors import BundleError, MissingRuntimeError
from tiedexport.progress import Progress
from tiedexport.results import BuildResult, TrainResult
from tiedexport.results.demo import DemoResult

_RECIPE = "digits.toml"
_DURATION_S = 0.5


def demo(output: str | Path = "tiedexport-demo", *, progress: Progress | None = None) -> DemoResult:
    """Train the digits model, build and audit its bundle, verify it, measure it, write a report.

    Args:
        output: the folder for everything; a checkpoint that is finished there is not trained
            again, and a bundle that was built from it is not built again.
        progress: where to show progress; standard error by default.

    Returns:
        The result of every step, and the path of the report.

    Raises:
        TiedExportError: whatever a step raises.
    """
    start = time.perf_counter()
    progress = progress or Progress()
    folder = Path(output)
    trained = train.train(
        recipe_path(), folder / "digits.pt", resume=_has_training(folder), progress=progress
    )
    built = _build(folder, trained, progress)
    audited = audit([built.bundle], progress=progress)
    bundle = open_bundle(built.bundle)
    verified = verify.verify(bundle, progress=progress)
    measured = measure.bench(bundle, duration_s=_DURATION_S, progress=progress)
    measured = surroundings.surround(measured, bundle, roofline=True, progress=progress)
    page = reporting.present(
        bundle,
        verify=verified,
        bench=measured,
        train=trained,
        audit=audited,
        output=folder / "report.html",
    )
    seconds = time.perf_counter() - start
    return DemoResult(trained, built, audited, verified, measured, str(page), seconds)


def recipe_path() -> Path:
    """The reference recipe: inside an installed package, or beside it in a checkout.

    Raises:
        MissingRuntimeError: neither is there.
    """
    package = Path(__file__).parent
    for folder in (package / "models", package.parent / "models"):
        if (folder / _RECIPE).is_file():
            return folder / _RECIPE
    raise MissingRuntimeError("the reference recipe is not installed", where=package)


def _has_training(folder: Path) -> bool:
    return (folder / "digits.pt").exists() or (folder / "digits.pt.resume").exists()


def _build(folder: Path, trained: TrainResult, progress: Progress) -> BuildResult:
    """Build the bundle, or describe the one that was built from this very training."""
    path = folder / "digits.tied"
    if path.exists():
        try:
            bundle = open_bundle(path)
        except BundleError as error:
            progress.say(f"{path} is built again: {error.what}")
        else:
            if bundle.manifest.training == load_checkpoint(trained.checkpoint).training:
                progress.say(f"{path} is there already")
                return export.result_from(bundle)
    return export.build(trained.checkpoint, path, progress=progress)
