"""The section on the C++ library, with a double of that library."""

from __future__ import annotations

import ctypes
import math
from types import SimpleNamespace

import numpy as np
import pytest

from tiedexport import native_library, rounding
from tiedexport.acceptance import embedded
from tiedexport.acceptance.job import Built
from tiedexport.errors import MissingRuntimeError
from tiedexport.progress import Progress
from tiedexport.results.acceptance import Note, judged
from tiedexport.spec import Precision

UNSUPPORTED, BACKEND_FAILED = 5, 8


class LibraryDouble:
    """Computes a bundle's stages in float64; `faults` are added, by the number of the call."""

    def __init__(self, bundle) -> None:
        self.bundle, self.status, self.sessions = bundle, 0, 0
        self.faults: dict[int, float] = {}
        self.calls = 0

    def tiedexport_open(self, path, check, bundle) -> int:
        return 0

    def tiedexport_close(self, bundle) -> None: ...

    def tiedexport_session_create(self, bundle, options, session) -> int:
        assert (options._obj.backend, options._obj.precision) == (b"tensorrt", b"fp16")
        self.sessions += not self.status
        return self.status

    def tiedexport_session_close(self, session) -> None:
        self.sessions -= 1

    def tiedexport_run(self, session, name, source, batch, target) -> int:
        assert self.sessions == 1
        stage, self.calls = self.bundle.manifest.stage(name.decode()), self.calls + 1
        x = values(source, batch, stage.inputs[0])
        y = rounding.forward(stage.layers, self.bundle.weights(Precision.FP32), x)
        values(target, batch, stage.outputs[0])[...] = y + self.faults.get(self.calls, 0.0)
        return 0

    def tiedexport_last_error(self) -> bytes:
        return b"tensorrt cannot run\n  got: the reason\n  try: a remedy"


def values(address: int, batch: int, spec) -> np.ndarray:
    shape = (batch, *spec.element_shape)
    memory = (ctypes.c_float * math.prod(shape)).from_address(address)
    return np.ctypeslib.as_array(memory).reshape(shape)


@pytest.fixture
def library(monkeypatch, dense_bundle):
    double = LibraryDouble(dense_bundle)
    monkeypatch.setattr(native_library, "load", lambda: double)
    yield double
    assert double.sessions == 0


@pytest.fixture
def found(monkeypatch, dense_bundle, library):
    """A function that runs the section on plans of a package."""

    def run(package: str = "tensorrt"):
        built = [Built(package, "shared", Precision.FP16, dense_bundle)]
        job = SimpleNamespace(
            built=built, progress=Progress(quiet=True), require_device=lambda: None
        )
        monkeypatch.setattr(
            embedded, "each_package", lambda job, what, examine: examine(job.built[0].package)
        )
        return list(embedded.run(job))

    return run


def test_a_library_that_computes_the_model_passes(found, library):
    section = judged("embedded", "?", found(), 0.0)
    assert section.status == "passed", section.checks
    assert [check.what for check in section.checks] == [
        f"tensorrt shared fp16 by libtiedexport: {stage.name}"
        for stage in library.bundle.manifest.stages
    ]
    assert library.calls == 3 * len(embedded.BATCHES) * 3


@pytest.mark.parametrize("fault", [0.5, math.nan])
def test_a_graph_that_computes_something_else_fails(found, library, fault):
    library.faults = {6: fault}  # the third call of the second batch
    first, *others = found()
    assert (first.status, {check.status for check in others}) == ("failed", {"passed"})
    assert first.reason.startswith("batch 8, call 3: error ")


def test_a_library_that_cannot_run_them_has_not_run(found, library):
    library.status = UNSUPPORTED
    with pytest.raises(MissingRuntimeError, match="the reason"):
        found()


def test_plans_that_the_library_was_not_built_for_are_noted(found, library):
    library.status = UNSUPPORTED
    assert found("tensorrt_rtx") == [Note("tensorrt_rtx shared fp16 by libtiedexport: the reason")]


def test_a_library_that_fails_is_no_missing_one(found, library):
    library.status = BACKEND_FAILED
    with pytest.raises(Exception, match="tensorrt cannot run") as raised:
        found("tensorrt_rtx")
    assert not isinstance(raised.value, MissingRuntimeError)
