"""The stage of device memory: the addresses that engines are given for each weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport import device, trt
from tiedexport.audit.table import DEVICE, measured, not_run
from tiedexport.errors import TiedExportError
from tiedexport.results.ties import STAGE_NAMES, Stage
from tiedexport.runtimes import choose_precision, runtime_named
from tiedexport.session import open_session
from tiedexport.spec import Precision
from tiedexport.stored import ArrayContent, Place, StoredTensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.audit.given import Given
    from tiedexport.bundle import Bundle

_STAGE = STAGE_NAMES[6]
_RUNTIMES = tuple(trt.OLDEST)


def examine(given: Given, _before: Sequence[Stage]) -> list[Stage]:
    """A row for each TensorRT runtime that runs the bundle's engines here."""
    driver = trt.driver()
    if not driver.available:
        return [not_run(_STAGE, driver.why)]
    if given.bundle is None:
        return [not_run(_STAGE, "engines run from a bundle only; give NAME.tied")]
    return [_row(given.bundle, name) for name in _RUNTIMES]


def _row(bundle: Bundle, name: str) -> Stage:
    chosen, why_not = choose_precision(runtime_named(name), bundle)
    if chosen is None:
        return not_run(_STAGE, why_not, name)
    before = set(device.Engine.alive)
    try:
        with open_session(bundle, runtime=name, precision=chosen) as session:
            tensors = _bound(bundle, session.precision, set(device.Engine.alive) - before)
    except TiedExportError as error:
        return not_run(_STAGE, f"{error.what}: {error.got}", name)
    subject = f"{name} {chosen}"
    if not tensors:
        return not_run(
            _STAGE, "its engines hold their weights inside, where no call looks", subject
        )
    return measured(_STAGE, subject, tensors, declared=bundle.manifest.ties)


def _bound(bundle: Bundle, precision: Precision, engines: set[device.Engine]) -> list[StoredTensor]:
    """Every weight of every engine, at its address on the device."""
    arrays = bundle.weights(precision)
    return [
        StoredTensor(
            name,
            Place(DEVICE, address, arrays[name].nbytes),
            arrays[name].dtype,
            arrays[name].shape,
            ArrayContent(arrays[name]),  # as it was uploaded
            uses=(f"{engine.plan.stage} engine",),
        )
        for engine in sorted(engines, key=lambda engine: engine.plan.file)
        for name, address in engine.addresses.items()
    ]
