"""The held-back test set, and how well a session reconstructs it."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from tiedexport import data as data_sets
from tiedexport.errors import BadInputError, DataError, MissingRuntimeError, TiedExportError
from tiedexport.results import Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Runtime
    from tiedexport.session import Session
    from tiedexport.spec import TrainingRecord

_TEST_BATCH = 256
_SLOW_TEST_SAMPLES = 64


def rate(session: Session, runtime: Runtime, samples: np.ndarray | str) -> Quality:
    """Test RMSE and PSNR of a session, on fewer samples where its runtime is slow.

    Args:
        session: an open one.
        runtime: its runtime.
        samples: [n, *sample_shape], or why there are none.
    """
    row = Quality(runtime.name, session.precision, "not run", remark=runtime.remark)
    if isinstance(samples, str):
        return structs.replace(row, reason=f"no test RMSE: {samples}")
    samples = samples[:_SLOW_TEST_SAMPLES] if runtime.slow else samples
    spec = session.bundle.manifest.stage("autoencoder").inputs[0]
    shaped = samples.reshape(len(samples), *spec.element_shape).astype(spec.dtype.dtype)
    try:
        rmse = _rmse(session.reconstruct, shaped)
    except TiedExportError as error:
        return structs.replace(row, status="failed", reason=str(error))
    if not np.isfinite(rmse):
        return structs.replace(row, status="failed", reason="a reconstruction is not finite")
    return structs.replace(
        row, status="passed", test_rmse=rmse, test_psnr_db=psnr_db(rmse), samples=len(samples)
    )


def psnr_db(rmse: float) -> float | None:
    """Peak signal-to-noise ratio in dB of samples in [0, 1]: 20 log10(1 / RMSE); None at 0."""
    return -20.0 * math.log10(rmse) if rmse > 0 else None


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


def held_back(bundle: Bundle, data: str | Path | None) -> np.ndarray | str:
    """The held-back samples [n, *sample_shape], or why they cannot be had here.

    Args:
        bundle: whose training's.
        data: where they are; by default where the training found them.

    Raises:
        DataError, MissingRuntimeError: `data` cannot be read.
    """
    training = bundle.manifest.training
    try:
        if data is not None:
            return _fitting(_same_or_split(data, training), bundle, data)
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


def _same_or_split(data: str | Path, training: TrainingRecord | None) -> np.ndarray:
    """The test set of the training if this is its data, wherever it lies now; else a new split."""
    if training is not None:
        with contextlib.suppress(DataError):
            section = training.recipe.get("data")
            column = section.get("column") if isinstance(section, dict) else None
            same = data_sets.load_as(training.data, data, column)
            if same.record.sha256 == training.data.sha256:
                return same.test
    return data_sets.load(data).test
