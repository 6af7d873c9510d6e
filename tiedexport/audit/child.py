"""What ONNX Runtime and sessions do, seen in a process of its own.

A fresh process has no memory to reuse, and what a stranger's graph does to a runtime stays there.
"""

from __future__ import annotations

from msgspec import Struct

from tiedexport import fresh
from tiedexport.errors import RuntimeFailedError
from tiedexport.runtimes import Memory

TIME_LIMIT_S = 300.0

_SURROUNDINGS = {
    "CUDA_VISIBLE_DEVICES": "-1",
    # glibc gives every block of that size a mapping of its own, which goes back to the kernel when
    # it is freed; otherwise holes in the heap would count as memory that is held.
    "MALLOC_MMAP_THRESHOLD_": str(64 << 10),
}


class Optimise(Struct, frozen=True, tag=True):
    """Let ONNX Runtime write the graph that it would run."""

    graph: str
    output: str
    memory: Memory


class OpenGraphs(Struct, frozen=True, tag=True):
    """Keep a session of each ONNX file open after a run, and measure.

    Attributes:
        data: the files that hold weights.
        nodes: of each graph: so many has the graph without weights that it is compared with.
    """

    graphs: tuple[str, ...]
    memory: Memory
    data: tuple[str, ...]
    nodes: tuple[int, ...]


class OpenBundle(Struct, frozen=True, tag=True):
    """Keep a session of a bundle open after a run of each stage, and measure.

    Attributes:
        nodes: as of `OpenGraphs`; none where nothing can read the graphs.
    """

    bundle: str
    runtime: str
    precision: str | None
    memory: Memory
    data: tuple[str, ...]
    nodes: tuple[int, ...] = ()


class Done(Struct, frozen=True):
    """What a job found.

    Attributes:
        failed: why it did not, in the runtime's words.
        grown_bytes: by how much the process grew, libraries apart.
        overhead_bytes: by how much it grows for as many sessions and nodes without weights.
        unrun: why a graph was opened only.
        runtime, precision: which a bundle was opened in.
    """

    failed: str = ""
    grown_bytes: int = 0
    overhead_bytes: int = 0
    unrun: str = ""
    runtime: str = ""
    precision: str = ""


Job = Optimise | OpenGraphs | OpenBundle


def ask(*jobs: Job) -> list[Done]:
    """Do jobs one after the other in one fresh process that sees no GPU."""
    program = "-m", "tiedexport.audit.worker"
    try:
        return fresh.ask(
            program, jobs, list[Done], environment=_SURROUNDINGS, time_limit_s=TIME_LIMIT_S
        )
    except RuntimeFailedError as error:
        return [Done(error.what)] * len(jobs)
