"""Watch a bundle at work: codes, the way between two of them, and the samples it does worst."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiedexport import data as data_sets
from tiedexport import environment
from tiedexport.errors import BadInputError, MissingRuntimeError, RuntimeFailedError
from tiedexport.results import Reconstruction
from tiedexport.results.observation import Observation, Projection
from tiedexport.runtimes import runtime_named
from tiedexport.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tiedexport.bundle import Bundle
    from tiedexport.session import Session

_SAMPLES, _SLOW_SAMPLES = 2000, 64
_BATCH = 256
_PROJECTED = 600
_STEPS = 9
_WORST = 8


def observe(bundle: Bundle, runtime: str = "auto") -> Observation:
    """Run samples through a bundle and keep what a reader would want to see.

    The samples are of the test set where it can be loaded again, else the bundle's own.

    Args:
        bundle: an open one.
        runtime: as of `open_session`.

    Raises:
        MissingRuntimeError: no runtime can run the bundle here.
        RuntimeFailedError: the runtime failed, or a reconstruction is not finite.
    """
    with open_session(bundle, runtime=runtime) as session:
        most = _SLOW_SAMPLES if runtime_named(session.runtime).slow else _SAMPLES
        samples, labels, whence = _samples(bundle, most)
        codes = _in_batches(session.encode, samples)
        reconstructed = _in_batches(session.reconstruct, samples)
        difference = (reconstructed.astype(np.float64) - samples).reshape(len(samples), -1)
        errors = np.sqrt(np.mean(difference**2, axis=1))
        if not np.isfinite(errors).all():
            raise RuntimeFailedError("a reconstruction is not finite", where=session.runtime)
        worst = np.argsort(-errors, kind="stable")[:_WORST]
        between = session.decode(_line(codes, _other(labels)))
        return Observation(
            session.runtime,
            session.precision,
            whence,
            tuple(errors.tolist()),
            _projection(codes[:_PROJECTED], labels[:_PROJECTED]) if len(codes) > 2 else None,
            _pictures(session, between),
            _pictures(session, samples[worst]),
            _pictures(session, reconstructed[worst]),
            environment.current(),
        )


def _in_batches(run: Callable[[np.ndarray], np.ndarray], samples: np.ndarray) -> np.ndarray:
    starts = range(0, len(samples), _BATCH)
    return np.concatenate([run(samples[start : start + _BATCH]) for start in starts])


def _samples(bundle: Bundle, most: int) -> tuple[NDArray[np.floating], tuple[int, ...], str]:
    """At most so many samples as the autoencoder takes them, labels or none, and their origin."""
    manifest = bundle.manifest
    spec = manifest.stage("autoencoder").inputs[0]
    samples, labels = bundle.golden[spec.name], None
    whence = f"the bundle's {len(samples)} reference inputs"
    if manifest.training is not None:
        record = manifest.training.data
        try:
            data = data_sets.reload(record)
        except (BadInputError, MissingRuntimeError) as error:
            whence += f"; its test set cannot be had here: {error.what}"
        else:
            samples, labels = data.test[:most], data.test_labels
            whence = f"the first {len(samples):,} samples of the test set of {record.source}"
    shaped = samples.reshape(len(samples), *spec.element_shape).astype(spec.dtype.dtype)
    return shaped, () if labels is None else tuple(labels[: len(samples)].tolist()), whence


def _other(labels: tuple[int, ...]) -> int:
    """The first sample with another label than sample 0; else the last of the first two."""
    return next((n for n, label in enumerate(labels) if label != labels[0]), 1)


def _line(codes: np.ndarray, other: int) -> np.ndarray:
    """Codes evenly spaced from the first to another one, [_STEPS, *code_shape]."""
    first, last = codes[0], codes[min(other, len(codes) - 1)]
    share = np.linspace(0, 1, _STEPS).reshape(-1, *(1,) * first.ndim)
    line: np.ndarray = (first * (1 - share) + last * share).astype(codes.dtype)
    return line


def _projection(codes: np.ndarray, labels: tuple[int, ...]) -> Projection:
    """Principal component analysis by the singular values of the centred codes.

    The sign of an axis is free; that of its largest element is made positive.

    Args:
        codes: [n, *code_shape], n > 2.
        labels: [n] or none.
    """
    flat = codes.reshape(len(codes), -1).astype(np.float64)
    flat = np.pad(flat, ((0, 0), (0, max(0, 2 - flat.shape[1]))))
    _, singular, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][[0, 1], np.abs(axes[:2]).argmax(axis=1)])[:, np.newaxis]
    points = (flat - flat.mean(axis=0)) @ axes.T
    variance = singular**2 / (np.sum(singular**2) or 1.0)
    first, second = points.T.tolist()
    shares = (float(variance[0]), float(variance[1]))
    return Projection(tuple(zip(first, second, strict=True)), labels, shares)


def _pictures(session: Session, samples: np.ndarray) -> Reconstruction:
    """Samples as pixels of 8 bits."""
    levels = np.nan_to_num(samples.astype(np.float64)).clip(0.0, 1.0) * 255.0
    pixels = levels.round().astype(np.uint8)
    shape = (len(pixels), *session.bundle.manifest.sample_shape)
    return Reconstruction(session.runtime, session.precision, shape, pixels.tobytes())
