"""Section 4: the same plans through libtiedexport, the C++ library, which loads TensorRT itself."""

from __future__ import annotations

import os
from contextlib import closing
from ctypes import CDLL, byref, c_void_p, sizeof
from typing import TYPE_CHECKING

import numpy as np

from tiedexport import native_library
from tiedexport.acceptance.job import bound_on, each_package, worst_in_bounds
from tiedexport.contender import golden_inputs
from tiedexport.errors import MissingRuntimeError
from tiedexport.results.acceptance import Check, Finding, Note
from tiedexport.runtimes import runtime_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.acceptance.job import Built, Job
    from tiedexport.spec import StageSpec

BACKEND = b"tensorrt"
BATCHES = (1, 8, 300)
"""The last is larger than the default profile."""

_CALLS = 3
"""The second call of a batch is captured as a CUDA graph, which the third one launches."""

_UNSUPPORTED, _UNAVAILABLE = 5, 6  # tiedexport_status


def run(job: Job) -> Iterator[Finding]:
    """A row for every plan and stage, with the worst error in units of its bound."""
    job.require_device()
    library = native_library.load()

    def every_plan(package: str) -> Iterator[Finding]:
        for built in job.built:
            if built.package == package:
                job.progress.say(f"libtiedexport: {built.name}")
                yield from _examined(library, built)

    yield from each_package(job, "every plan by libtiedexport", every_plan)


class Library:
    """A session of libtiedexport on the plans of a bundle.

    Raises:
        MissingRuntimeError: its backend does not run those here.
    """

    def __init__(self, library: CDLL, built: Built) -> None:
        self._library, opened, session = library, c_void_p(), c_void_p()
        path = os.fsencode(built.bundle.path)
        if status := library.tiedexport_open(path, native_library.CHECK_SIZE, byref(opened)):
            raise native_library.failure(library, status, built.name)
        wanted = native_library.SessionOptions(
            struct_size=sizeof(native_library.SessionOptions),
            backend=BACKEND,
            precision=built.precision.value.encode(),
        )
        status = library.tiedexport_session_create(opened, byref(wanted), byref(session))
        error = native_library.failure(library, status, built.name) if status else None
        library.tiedexport_close(opened)
        if status in (_UNSUPPORTED, _UNAVAILABLE) and error is not None:
            raise MissingRuntimeError(error.what, got=error.got, hint=error.hint)
        if error is not None:
            raise error
        self._session = session.value

    def run(self, stage: StageSpec, x: np.ndarray) -> np.ndarray:
        """A stage on golden inputs."""
        spec, name = stage.outputs[0], stage.name.encode()
        out = np.full((len(x), *spec.element_shape), np.nan, spec.dtype.dtype)
        run, session = self._library.tiedexport_run, self._session
        if status := run(session, name, x.ctypes.data, len(x), out.ctypes.data):
            raise native_library.failure(self._library, status, stage.name)
        return out

    def close(self) -> None:
        """End the session."""
        self._library.tiedexport_session_close(self._session)


def _examined(library: CDLL, built: Built) -> Iterator[Finding]:
    try:
        opened = Library(library, built)
    except MissingRuntimeError as error:
        if built.package.encode() == BACKEND:
            raise
        # Which of TensorRT's libraries it loads was decided by the headers it was built with.
        yield Note(f"{built.name} by libtiedexport: {error.got or error.what}")
        return
    with closing(opened) as session:
        for stage in built.bundle.manifest.stages:
            yield _stage(built, session, stage)


def _stage(built: Built, session: Library, stage: StageSpec) -> Check:
    accumulation = runtime_named(built.package).accumulation[built.precision]
    bounded = bound_on(built.bundle, stage, built.precision, accumulation)
    worst, beyond = 0.0, ""
    for batch in BATCHES:
        x = np.ascontiguousarray(golden_inputs(built.bundle, stage, batch))
        for call in range(1, _CALLS + 1):
            ratio = worst_in_bounds(session.run(stage, x), bounded)
            if not ratio <= 1.0 and not beyond:
                beyond = f"batch {batch}, call {call}: error {ratio:.3g} times its bound"
            worst = max(worst, ratio)
    what = f"{built.name} by libtiedexport: {stage.name}"
    figures = {"error_in_bounds": worst, "largest_batch": BATCHES[-1]}
    return Check(what, "failed" if beyond else "passed", beyond, figures)
