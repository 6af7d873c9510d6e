"""A parsed network → its plan, with as little of it in memory as can be."""

from __future__ import annotations

import mmap
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO

from tiedexport import trt

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.network import Parsed

IN_MEMORY_BYTES = 32 << 20
"""The largest plan that is handed out as bytes."""


def build(
    parsed: Parsed, config: Any, progress: Callable[[str, int, int], None] | None
) -> bytes | memoryview:
    """Build the plan of a network.

    The builder holds each baked weight once while it writes the plan. Writing to a file keeps the
    plan from standing beside that; TensorRT before 10.13 can only write it into memory.

    Args:
        parsed: the network.
        config: the IBuilderConfig of its builder.
        progress: as `engines.Progress`; what it raises cancels the build and is raised.

    Returns:
        The plan; a large one as a view of a file without a name, which goes with it.

    Raises:
        RuntimeError: the builder refused and logged why, or the file cannot be written.
    """
    monitor = None if progress is None else trt.progress_monitor(parsed.handle.module, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    plan = _serialised(parsed, config)
    if monitor is not None and monitor.raised is not None:
        raise monitor.raised
    if plan is None:
        raise RuntimeError("the builder returned no plan")
    return plan


def _serialised(parsed: Parsed, config: Any) -> bytes | memoryview | None:
    stream = getattr(parsed.builder, "build_serialized_network_to_stream", None)
    if stream is None:
        plan = parsed.builder.build_serialized_network(parsed.network, config)
        return None if plan is None else bytes(plan)
    with tempfile.TemporaryFile() as file:
        writer = _writer(parsed.handle.module, file)
        done = stream(parsed.network, config, writer)
        if writer.raised is not None:
            raise RuntimeError(
                f"the plan cannot be written to {tempfile.gettempdir()}: {writer.raised.strerror}"
            )
        return _content(file) if done else None


def _writer(module: Any, file: BinaryIO) -> Any:
    """An IStreamWriter into a file; what fails there must not unwind through the library."""

    class Writer(module.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IStreamWriter.__init__(self)
            self.raised: OSError | None = None

        def write(self, data: bytes) -> int:
            try:
                return file.write(data)
            except OSError as error:
                self.raised = error
                return 0

    return Writer()


def _content(file: BinaryIO) -> bytes | memoryview:
    if file.tell() > IN_MEMORY_BYTES:
        file.flush()
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    file.seek(0)
    return file.read()
