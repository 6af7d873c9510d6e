"""The standing matrix of `bench --suite`: the same models on every machine, kept to compare."""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from msgspec.structs import replace

from tiedexport import atomic, environment, export
from tiedexport.bundle import open_bundle
from tiedexport.checkpoint import Checkpoint, save_checkpoint
from tiedexport.contender import refuse_batches
from tiedexport.errors import UsageError
from tiedexport.families import config_from, family_named
from tiedexport.measure import bench
from tiedexport.measure.turns import Budget
from tiedexport.progress import Progress
from tiedexport.results import to_json
from tiedexport.results.suite import SuiteModel, SuiteResult
from tiedexport.runtimes import runtime_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.results import BenchResult

WEIGHTS = "untrained: He-normal weights from seed 0, zero biases; a trained model takes as long"
SAMPLES = 32


PRECISIONS = "fp32,fp16,bf16"

MODELS = {
    "digits": (784, 784, 392, 196),
    "hinton2006": (784, 1000, 500, 250, 30),
    "layer-1": (1024, 256),
    "layer-16": (4096, 1024),
    "layer-256": (16384, 4096),
}
"""Name → widths from the input to the code: two real stacks, and one layer of 1, 16 and 256 MiB in
fp32, within and beyond the caches."""


def suite(
    output: str | Path,
    *,
    models: Sequence[str] = tuple(MODELS),
    bundles: str | Path | None = None,
    runtime: Sequence[str] = (),
    batch: Sequence[int] = (1, 8, 64),
    warmup_ms: float = 100.0,
    duration_s: float = 0.3,
    iterations: int = 5,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[SuiteResult, Path]:
    """Build each model, measure it in every runtime, and keep the result with machine and versions.

    Args:
        output: the folder for the result, which is named after the processor and the threads.
        models: names of `MODELS`.
        bundles: a folder that keeps the bundles for the next run; by default they are not kept.
        runtime: names; by default every runtime that is not slow by design.
        batch: batch sizes.
        warmup_ms: as for `bench`, and so are the following.
        duration_s: timed seconds, at least, a contender and batch size.
        iterations: timed calls, at least.
        threads: CPU threads a session computes with.
        progress: where to show progress; by default nowhere.

    Returns:
        The result and the file that holds it.

    Raises:
        UsageError: an argument is out of range or names nothing that exists.
    """
    started = time.perf_counter()
    if (unknown := [name for name in models if name not in MODELS]) or not models:
        got = ", ".join(unknown) or "none"
        raise UsageError("unknown model of the suite", got=got, expected=", ".join(MODELS))
    for name in runtime:
        runtime_named(name)
    refuse_batches(batch)
    Budget(warmup_ms / 1e3, duration_s, iterations, (), threads).check()
    progress, found = progress or Progress(quiet=True), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(bundles or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in dict.fromkeys(models):
            measured = bench(
                untrained_bundle(folder, name, progress),
                runtime=runtime,
                batch=batch,
                warmup_ms=warmup_ms,
                duration_s=duration_s,
                iterations=iterations,
                threads=threads,
                progress=progress,
            )
            found.append(_model(name, measured))
    here = environment.current()
    result = SuiteResult(
        models=tuple(found),
        weights=WEIGHTS,
        date=time.strftime("%Y-%m-%d"),
        commit=environment.commit(Path(output)),
        environment=here,
        seconds=time.perf_counter() - started,
    )
    path = Path(output) / f"{environment.cpu_slug(here.cpu)}-{threads}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, to_json(result))
    return result, path


def _model(name: str, measured: BenchResult) -> SuiteModel:
    """Under its name: where the bundle lay on this machine tells nobody anything."""
    widths = MODELS[name]
    weight_bytes = sum(4 * a * b for a, b in pairwise(widths))
    return SuiteModel(name, widths, weight_bytes, replace(measured, bundle=f"{name}.tied"))


def untrained_bundle(folder: Path, name: str, progress: Progress) -> Path:
    """The bundle of a model of the suite, built if it is not in the folder already."""
    widths, path = list(MODELS[name]), folder / f"{name}.tied"
    progress.say(f"{name}: {' - '.join(map(str, widths))}")
    if path.exists() and open_bundle(path).manifest.config["widths"] == widths:
        return path
    checkpoint = folder / f"{name}.pt"
    write_checkpoint(checkpoint, widths)
    export.build(checkpoint, path, precision=PRECISIONS, target=(), progress=progress)
    checkpoint.unlink()
    return path


def write_checkpoint(path: Path, widths: list[int]) -> None:
    """An untrained checkpoint: He-normal weights, zero biases, 32 random inputs."""
    torch.manual_seed(0)
    family = family_named("autoencoder")
    config = config_from(family, {"widths": widths})
    state = family.module(config).state_dict()
    samples = torch.rand(SAMPLES, widths[0])
    save_checkpoint(path, Checkpoint("autoencoder", config, state, (widths[0],), samples))
