"""`verify`: does every runtime here compute what the model computes, within derived bounds?"""

from __future__ import annotations

import contextlib
import math
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiedexport import data as data_sets
from tiedexport import environment, rounding
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.comparison import compare
from tiedexport.errors import (
    BadInputError,
    BundleError,
    DataError,
    MissingRuntimeError,
    TiedExportError,
)
from tiedexport.progress import Progress
from tiedexport.results import Comparison, Quality, Reconstruction, VerifyResult
from tiedexport.runtimes import Runtime, all_runtimes, choose_precision, runtime_named
from tiedexport.session import Session, open_session
from tiedexport.spec import Precision, StageSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tiedexport.spec import TrainingRecord

_PICTURED = 4
_TEST_BATCH = 256
_SLOW_TEST_SAMPLES = 64


def verify(
    bundle: Bundle | str | Path,
    *,
    runtime: Iterable[str] = (),
    require: Iterable[str] = (),
    data: str | Path | None = None,
    progress: Progress | None = None,
) -> VerifyResult:
    """Compare every runtime, stage and precision with the bundle's float64 golden outputs.

    The tolerance of every output element is derived from the graph (see `tiedexport.rounding`);
    a NaN, an Inf or an error above its bound fails the row.

    Args:
        bundle: an open bundle or its path.
        runtime: names of runtimes; by default all of them.
        require: runtimes that must have run for the result to pass.
        data: where the test set is; by default where the model's training found it.
        progress: where to show progress; by default nowhere.

    Raises:
        BundleError: the bundle is damaged.
        UsageError: a name is no runtime.
        DataError, MissingRuntimeError: `data` cannot be read.
    """
    start = time.perf_counter()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    required = [runtime_named(name).name for name in require]
    rows = [runtime_named(name) for name in runtime] or list(all_runtimes().values())
    rows += [runtime_named(name) for name in required if name not in {row.name for row in rows}]
    judge = _Judge(opened, data)
    progress = progress or Progress(quiet=True)
    with progress.task("verify", len(rows)) as task:
        for row in rows:
            judge.examine(row)
            task.advance(note=row.name)
    ran = {row.runtime for row in judge.comparisons if row.status != "not run"}
    return VerifyResult(
        bundle=str(opened.path),
        comparisons=tuple(judge.comparisons),
        quality=tuple(judge.quality),
        reconstructions=tuple(judge.reconstructions),
        environment=environment.current(),
        seconds=time.perf_counter() - start,
        missing=tuple(name for name in required if name not in ran),
    )


class _Judge:
    """Examines one runtime after another and collects the rows."""

    def __init__(self, bundle: Bundle, data: str | Path | None) -> None:
        self._bundle = bundle
        self._test_set = cache(lambda: _test_set(bundle, data))
        self._bound = cache(self._derive_bound)
        self.comparisons: list[Comparison] = []
        self.quality: list[Quality] = []
        self.reconstructions: list[Reconstruction] = []

    def examine(self, runtime: Runtime) -> None:
        """Every stage in every precision of the bundle, or a row that says why not."""
        availability = runtime.availability()
        if not availability.available:
            row = Comparison(runtime.name, "", None, "not run", availability.why)
            self.comparisons.append(row)
            return
        for precision in self._bundle.manifest.precisions:
            chosen, reason = choose_precision(runtime, self._bundle, precision)
            if chosen is None:
                self.comparisons.append(Comparison(runtime.name, "", precision, "not run", reason))
                continue
            self._examine(runtime, precision)

    def _examine(self, runtime: Runtime, precision: Precision) -> None:
        try:
            session = open_session(self._bundle, runtime=runtime.name, precision=precision)
        except TiedExportError as error:
            self.comparisons.append(_failed(runtime, "", precision, error))
            return
        with session:
            for stage in self._bundle.manifest.stages:
                try:
                    output = session.run(stage.name, self._input(stage))
                except TiedExportError as error:
                    self.comparisons.append(_failed(runtime, stage.name, precision, error))
                    continue
                self.comparisons.append(self._compare(runtime, stage, precision, output))
                if stage.name == "autoencoder":
                    self._picture(runtime, precision, output)
                    self.quality.append(self._rate(runtime, session))

    def _input(self, stage: StageSpec) -> np.ndarray:
        spec = stage.inputs[0]
        return self._bundle.golden[spec.name].astype(spec.dtype.dtype)

    def _derive_bound(
        self, stage: StageSpec, precision: Precision, accumulation: Precision
    ) -> rounding.Bounded:
        manifest, golden = self._bundle.manifest, self._bundle.golden
        masters = Precision.FP32 if Precision.FP32 in manifest.precisions else precision
        try:
            bounded = rounding.forward_bound(
                stage.layers,
                self._bundle.weights(masters),
                golden[stage.inputs[0].name].astype(np.float64),
                precision=precision,
                accumulation=accumulation,
                io=manifest.io_dtype,
                kept=manifest.kept.get(precision, {}),
            )
        except ValueError as error:
            raise BundleError(
                "layers that do not fit their weights",
                where=f"{self._bundle.path}: stage {stage.name}",
                got=str(error),
                hint="rebuild it: tiedexport build model.pt",
            ) from error
        reference = golden[stage.outputs[0].name]
        if masters is Precision.FP32:
            return bounded
        # Without the fp32 weights at hand, what their rounding did shows in the golden outputs. In
        # the first it is no more than the bound that the build recorded: beyond that it is a fault.
        storage = np.abs(bounded.value - reference)
        storage[:1] = np.minimum(storage[:1], self._largest(stage, precision))
        return rounding.Bounded(reference, bounded.bound + storage, bounded.overflow)

    def _largest(self, stage: StageSpec, precision: Precision) -> float:
        """The largest bound on the first golden output, as the manifest has it."""
        recorded = (
            row.largest_bound
            for row in self._bundle.manifest.tolerances
            if (row.stage, row.precision) == (stage.name, precision)
        )
        return max(recorded, default=0.0)

    def _compare(
        self, runtime: Runtime, stage: StageSpec, precision: Precision, output: np.ndarray
    ) -> Comparison:
        accumulation = runtime.accumulation[precision]
        bounded = self._bound(stage, precision, accumulation)
        golden = self._bundle.golden[stage.outputs[0].name]
        return compare(output, golden, bounded, runtime.name, stage.name, precision, accumulation)

    def _picture(self, runtime: Runtime, precision: Precision, output: np.ndarray) -> None:
        shape = self._bundle.manifest.sample_shape
        shown = np.nan_to_num(output[:_PICTURED].astype(np.float64)).clip(0.0, 1.0)
        pixels = (shown * 255.0).round().astype(np.uint8)
        self.reconstructions.append(
            Reconstruction(runtime.name, precision, (len(pixels), *shape), pixels.tobytes())
        )

    def _rate(self, runtime: Runtime, session: Session) -> Quality:
        found = self._test_set()
        if isinstance(found, str):
            reason = f"no test RMSE: {found}"
            return Quality(runtime.name, session.precision, "not run", reason)
        samples = found[:_SLOW_TEST_SAMPLES] if runtime.slow else found
        spec = self._bundle.manifest.stage("autoencoder").inputs[0]
        shaped = samples.reshape(len(samples), *spec.element_shape).astype(spec.dtype.dtype)
        try:
            rmse = _rmse(session.reconstruct, shaped)
        except TiedExportError as error:
            return Quality(runtime.name, session.precision, "failed", str(error))
        if not np.isfinite(rmse):
            reason = "a reconstruction is not finite"
            return Quality(runtime.name, session.precision, "failed", reason)
        return Quality(runtime.name, session.precision, "passed", "", rmse, len(samples))


def _rmse(reconstruct: Callable[[np.ndarray], np.ndarray], samples: np.ndarray) -> float:
    """Root of the mean squared error over every element of every sample, summed in float64."""
    total = 0.0
    for batch in _batches(samples):
        difference = reconstruct(batch).astype(np.float64) - batch.astype(np.float64)
        total += float(np.sum(difference**2))
    return float(np.sqrt(total / samples.size))


def _batches(samples: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(samples), _TEST_BATCH):
        yield samples[first : first + _TEST_BATCH]


def _test_set(bundle: Bundle, data: str | Path | None) -> np.ndarray | str:
    """The held-back samples [n, *sample_shape], or why they cannot be had here."""
    training = bundle.manifest.training
    try:
        if data is not None:
            return _fitting(_held_back(data, training), bundle, data)
        if training is None:
            return "the bundle does not say what it was trained on; pass --data"
        return data_sets.reload(training.data).test
    except (BadInputError, MissingRuntimeError) as error:
        if data is not None:
            raise
        return f"{error.what} ({error.where or error.got}); pass --data"


def _fitting(samples: np.ndarray, bundle: Bundle, where: object) -> np.ndarray:
    shape = bundle.manifest.sample_shape
    if math.prod(samples.shape[1:]) != math.prod(shape):
        raise DataError(
            "the data does not fit the model",
            where=where,
            got=f"{list(samples.shape[1:])} a sample",
            expected=f"{list(shape)} a sample",
        )
    return samples


def _failed(
    runtime: Runtime, stage: str, precision: Precision, error: TiedExportError
) -> Comparison:
    return Comparison(runtime.name, stage, precision, "failed", str(error))


def _held_back(data: str | Path, training: TrainingRecord | None) -> np.ndarray:
    """The test set of the training if this is its data, wherever it lies now; else a new split."""
    if training is not None:
        with contextlib.suppress(DataError):
            same = data_sets.load(data, **training.data.options)
            if same.record.sha256 == training.data.sha256:
                return same.test
    return data_sets.load(data).test
