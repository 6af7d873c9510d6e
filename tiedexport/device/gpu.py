"""The first device: its memory, its streams, and what its libraries say when they refuse."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from tiedexport.errors import RuntimeFailedError, TiedExportError
from tiedexport.trt import REMEDIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.trt import Handle

_LESS = (
    "nvidia-smi shows who holds the GPU's memory: close what is not needed, "
    "or build for smaller batches (--maxShapes)"
)


def memory_bytes() -> tuple[int, int]:
    """Free and total bytes of the first device, as the driver counts them for all processes.

    Memory that this process has freed may stay in its pool, and then is not free for others.

    Raises:
        RuntimeFailedError: the driver does not say.
    """
    try:
        importlib.import_module("cuda.core").Device(0).set_current()
        error, *told = importlib.import_module("cuda.bindings.driver").cuMemGetInfo()
        if int(error) != 0:
            raise RuntimeError(error)
    except Exception as error:
        raise RuntimeFailedError(
            "the driver does not tell the device's memory", got=error, hint="tiedexport doctor"
        ) from error
    free, total = map(int, told)
    return free, total


class Gpu:
    """The first device, through cuda.core and one of the TensorRT packages.

    Raises:
        RuntimeFailedError: cuda-core is broken.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        try:
            self.core = importlib.import_module("cuda.core")
        except Exception as error:  # whatever its own code comes upon
            raise RuntimeFailedError(
                "cuda-core does not load", got=error, hint=REMEDIES[handle.package]
            ) from error

    def make_current(self) -> Any:
        """The device, current in this thread: CUDA keeps that for each thread."""
        device = self.core.Device(0)
        device.set_current()
        return device

    def stream(self) -> Any:
        """A new stream that does not wait for the default stream."""
        options = self.core.StreamOptions(nonblocking=True)
        return self.make_current().create_stream(options=options)

    def allocate(self, size_bytes: int, stream: Any, what: str) -> Any:
        """Device memory, in the order of a stream.

        Raises:
            RuntimeFailedError: there is too little; it says for what, how much, and what was free.
        """
        with self.reserving(size_bytes, f"no device memory for {what}"):
            return self.make_current().allocate(size_bytes, stream=stream)

    def allocate_pinned(self, size_bytes: int, what: str) -> Any:
        """Host memory that copies to and from the device need not go around.

        Raises:
            RuntimeFailedError: the host gives no more.
        """
        with self.reserving(size_bytes, f"no pinned host memory for {what}"):
            return self.core.LegacyPinnedMemoryResource().allocate(size_bytes)

    @contextlib.contextmanager
    def reserving(self, size_bytes: int, what: str, hint: str = _LESS) -> Iterator[None]:
        """Whatever fails meanwhile → an error that also tells the memory: asked for, and free.

        Args:
            size_bytes: what is asked for.
            what: what did not work, in a sentence.
            hint: the next step.
        """
        with self.handle.errors() as logged:
            try:
                yield
            except Exception as error:
                raise RuntimeFailedError(
                    what,
                    got="; ".join(dict.fromkeys([str(error), *logged])),
                    expected=f"{size_bytes:,} bytes{_free()}",
                    hint=hint,
                ) from error

    @contextlib.contextmanager
    def translated(self, where: object) -> Iterator[None]:
        """Exceptions of cuda.core and TensorRT, and what TensorRT logged, → ours."""
        with self.handle.errors() as logged:
            try:
                yield
            except TiedExportError:
                raise
            except Exception as error:
                raise RuntimeFailedError(
                    f"{self.handle.package} {self.handle.version} failed",
                    where=where,
                    got="; ".join(dict.fromkeys([str(error), *logged])),
                    hint="tiedexport doctor",
                ) from error


def _free() -> str:
    # Asked while something else fails: no answer must not hide that.
    with contextlib.suppress(Exception):
        free, total = memory_bytes()
        return f"; of the device's {total:,} bytes, {free:,} are free"
    return ""
