"""The TensorRT module handle: which package, which version, and whether a device can run it.

`tensorrt` and `tensorrt_rtx` share one Python interface; builder and runtime take a `Handle` and
serve both. Nothing here calls TensorRT before the CUDA driver has answered: without a driver the
lean runtime hands out an invalid pointer.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tiedexport.errors import MissingRuntimeError
from tiedexport.results import Availability
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
R = TypeVar("R")

OLDEST = {"tensorrt": (10, 12), "tensorrt_rtx": (1, 7)}
"""Package → the oldest version whose networks are strongly typed as we ask for it."""

REMEDIES = {
    "tensorrt": "pip install 'tiedexport[gpu]'",
    "tensorrt_rtx": "pip install 'tiedexport[rtx]'",
}

_DATA_TYPES = {"HALF": Precision.FP16, "BF16": Precision.BF16, "FLOAT": Precision.FP32}
_LIBCUDA = "libcuda.so.1"
_MAJOR_ATTRIBUTE, _MINOR_ATTRIBUTE = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NO_DRIVER_REMEDY = "install the NVIDIA display driver on a machine with an NVIDIA GPU"


def once(function: Callable[P, R]) -> Callable[P, R]:
    """`functools.cache`, with one thread computing while the others wait for its value."""
    cached, lock = cache(function), threading.RLock()

    @wraps(function)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        with lock:
            return cached(*args, **kwargs)  # type: ignore[arg-type]

    return locked


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
        for name, precision in _DATA_TYPES.items():
            if dtype == getattr(types, name):
                return precision
        raise RuntimeError(f"a tensor of the unexpected type {dtype}")


@dataclass(frozen=True)
class Device:
    """The first GPU that the driver shows; compute capability 8.9 is 89."""

    name: str
    compute_capability: int


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
    remedy = REMEDIES[package]
    if find_spec(package) is None:
        raise MissingRuntimeError(
            f"{package} is missing", got="no such Python package", hint=remedy
        )
    try:
        module = importlib.import_module(package)
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingRuntimeError(f"{package} does not load", got=error, hint=remedy) from error
    version = str(module.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST[package]:
        oldest = ".".join(map(str, OLDEST[package]))
        raise MissingRuntimeError(
            f"{package} is too old",
            got=version,
            expected=f"{oldest} or newer",
            hint=f"pip install -U '{package.replace('_', '-')}>={oldest}'",
        )
    return Handle(module, package, version, _logger(module, package))


def progress_monitor(module: Any, progress: Callable[[str, int, int], None]) -> Any:
    """An IProgressMonitor that calls `progress(phase, steps done, steps)`.

    What `progress` raises cancels the build and is kept as `raised`: it must not unwind through
    the library.
    """

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.phases: dict[str, int] = {}
            self.raised: BaseException | None = None

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.phases[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            try:
                progress(phase, step + 1, self.phases.get(phase, step + 1))
            except BaseException as error:
                self.raised = error
            return self.raised is None

        def phase_finish(self, phase: str) -> None:
            self.phases.pop(phase, None)

    return Monitor()


def driver() -> Availability:
    """Whether there is a CUDA driver with at least one device."""
    return _probe()[0]


def device() -> Device | None:
    """The first device, or None where `driver` says that there is none."""
    return _probe()[1]


def _logger(module: Any, package: str) -> Any:
    """TensorRT keeps the first logger it is given for the life of the process: so do we."""
    log = logging.getLogger(f"{__package__}.{package}")
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


@once
def _probe() -> tuple[Availability, Device | None]:
    """Ask the driver: it must load, initialise, and show a device."""
    try:
        cuda = ctypes.CDLL(_LIBCUDA)
    except OSError as error:
        return _unavailable(f"no CUDA driver ({error})"), None
    if (code := cuda.cuInit(0)) != 0:
        return _unavailable(f"the CUDA driver does not start ({_words(cuda, code)})"), None
    count, version = ctypes.c_int(), ctypes.c_int()
    code = cuda.cuDeviceGetCount(ctypes.byref(count))
    if code != 0 or count.value < 1:
        return _unavailable("the CUDA driver shows no device"), None
    cuda.cuDriverGetVersion(ctypes.byref(version))
    number = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Availability(True, f"CUDA {number}"), _first_device(cuda)


def _first_device(cuda: ctypes.CDLL) -> Device:
    name = ctypes.create_string_buffer(256)
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(handle), 0)
    cuda.cuDeviceGetName(name, len(name), handle)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR_ATTRIBUTE, handle)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR_ATTRIBUTE, handle)
    return Device(name.value.decode("utf-8", "replace"), 10 * major.value + minor.value)


def _words(cuda: ctypes.CDLL, code: int) -> str:
    words = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(words))
    return f"error {code}: {(words.value or b'unknown').decode()}"


def _unavailable(reason: str) -> Availability:
    return Availability(False, reason=reason, remedy=_NO_DRIVER_REMEDY)
