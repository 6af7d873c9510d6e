"""The TensorRT module handle: which package, which version, and whether a device can run it.

`tensorrt` and `tensorrt_rtx` share one Python interface; builder and runtime take a `Handle` and
serve both. Nothing here calls TensorRT before the CUDA driver has answered: without a driver the
lean runtime hands out an invalid pointer.
"""

from __future__ import annotations

import importlib
import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tiedexport.errors import MissingRuntimeError
from tiedexport.results import Availability
from tiedexport.spec import Precision
from tiedexport.trt.cuda import Device, device, driver, driver_for
from tiedexport.trt.once import once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "OLDEST",
    "REMEDIES",
    "Device",
    "Handle",
    "availability",
    "device",
    "driver",
    "driver_for",
    "load",
    "once",
    "progress_monitor",
]

OLDEST = {"tensorrt": (10, 12), "tensorrt_rtx": (1, 7)}
"""Package → the oldest version whose networks are strongly typed as we ask for it."""

REMEDIES = {
    "tensorrt": "pip install 'tiedexport[gpu]'",
    "tensorrt_rtx": "pip install 'tiedexport[rtx]'",
}

DATA_TYPES = {"HALF": Precision.FP16, "BF16": Precision.BF16, "FLOAT": Precision.FP32}
"""DataType by name → ours."""

_LIBRARY = re.compile(r"lib[\w+-]+\.so(\.\d+)*")


@dataclass(frozen=True)
class Handle:
    """One of the two packages, imported, with the only logger this process gives it."""

    module: Any
    package: str
    version: str
    logger: Any

    @contextmanager
    def errors(self) -> Iterator[list[str]]:
        """Collect what TensorRT logs as errors meanwhile: its calls return only None or False."""
        collected: list[str] = []
        self.logger.collectors[id(collected)] = collected
        try:
            yield collected
        finally:
            del self.logger.collectors[id(collected)]

    @cached_property
    def compute_capabilities(self) -> tuple[int, ...]:
        """Those that TensorRT-RTX names to build for, ascending; 8.9 is 89."""
        names = self.module.ComputeCapability.__members__
        return tuple(sorted(int(name[2:]) for name in names if name.startswith("SM")))

    def precision(self, dtype: Any) -> Precision:
        """A TensorRT DataType as ours.

        Raises:
            RuntimeError: it is no floating-point type that we know.
        """
        types = self.module.DataType
        for name, precision in DATA_TYPES.items():
            if dtype == getattr(types, name):
                return precision
        raise RuntimeError(f"a tensor of the unexpected type {dtype}")


def availability(package: str) -> Availability:
    """Whether a package can be imported and is new enough."""
    try:
        return Availability(True, load(package).version)
    except MissingRuntimeError as error:
        return Availability(False, reason=f"{error.what}: {error.got}", remedy=error.hint or "")


@once
def load(package: str) -> Handle:
    """Import a package, once a process.

    Raises:
        MissingRuntimeError: it is not installed, does not load, or is too old.
    """
    if find_spec(package) is None:
        bindings = f"{package}_bindings"
        raise MissingRuntimeError(
            f"{package} is missing",
            got="no such Python package"
            if find_spec(bindings) is None
            else f"{bindings} alone, without {package} and its libraries",
            hint=REMEDIES[package],
        )
    try:
        module = importlib.import_module(package)
        version = str(module.__version__)
    except Exception as error:  # whatever the package's own code comes upon
        raise MissingRuntimeError(
            f"{package} does not load",
            got=str(error) or type(error).__name__,
            hint=_remedy(package, str(error)),
        ) from error
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST[package]:
        oldest = ".".join(map(str, OLDEST[package]))
        raise MissingRuntimeError(
            f"{package} is too old",
            got=version,
            expected=f"{oldest} or newer",
            hint=f"pip install -U '{package.replace('_', '-')}>={oldest}'",
        )
    return Handle(module, package, version, _logger(module, package))


def _remedy(package: str, error: str) -> str:
    """What to install for an import that failed: the library that it did not find, if any."""
    library = _LIBRARY.search(error)
    if library is None:
        return REMEDIES[package]
    if cudart := re.match(r"libcudart\.so\.(\d+)", library[0]):
        major = int(cudart[1])
        # From CUDA 13 on, NVIDIA's wheels have no such suffix.
        return "pip install " + (
            f"nvidia-cuda-runtime-cu{major}" if major < 13 else f"'nvidia-cuda-runtime=={major}.*'"
        )
    name = package.replace("_", "-")
    try:
        return f"pip install --force-reinstall {name}=={installed_version(name)}"
    except PackageNotFoundError:
        return REMEDIES[package]


def progress_monitor(module: Any, progress: Callable[[str, int, int], None]) -> Any:
    """An IProgressMonitor that calls `progress(phase, steps done, steps)`.

    Phases are nested, and one can come several times; each begins with no step done. The first one
    holds all the others: it alone never goes back. What `progress` raises cancels the build and is
    kept as `raised`: it must not unwind through the library.
    """

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.phases: dict[str, int] = {}
            self.raised: BaseException | None = None

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.phases[phase] = steps
            self.report(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            self.report(phase, step + 1, self.phases.get(phase, step + 1))
            return self.raised is None

        def report(self, phase: str, done: int, steps: int) -> None:
            try:
                progress(phase, done, steps)
            except BaseException as error:
                self.raised = error

        def phase_finish(self, phase: str) -> None:
            self.phases.pop(phase, None)

    return Monitor()


def _logger(module: Any, package: str) -> Any:
    """TensorRT keeps the first logger it is given for the life of the process: so do we."""
    log = logging.getLogger(f"tiedexport.{package}")
    severity = module.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.CRITICAL,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,
        severity.VERBOSE: logging.NOTSET + 1,
    }

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.collectors: dict[int, list[str]] = {}

        def log(self, severity_: Any, message: str) -> None:
            level = levels[severity_]
            if level >= logging.ERROR:
                for collector in list(self.collectors.values()):
                    collector.append(message.strip())
                # Whoever called raises the error with these words; logging them too would
                # print them twice.
                level = logging.DEBUG
            log.log(level, "%s", message)

    return Logger()
