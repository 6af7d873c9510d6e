"""`audit`: how many physical copies of each tied weight there are, from Python to the device.

Each stage of a weight's way has a file here: its `examine` takes what was given and the rows of the
stages before, and returns its own rows, or one that says why there is none. Of the other files,
`given` sorts what was given, `table` makes a row of stored tensors, `tensors` reads those of torch,
and `child` and `worker` are the two sides of a process that is watched.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING

from tiedexport import environment
from tiedexport.audit.given import Given, label, listed, sort_out
from tiedexport.progress import Progress
from tiedexport.results.ties import AuditResult, Finding, Stage, StageName

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tiedexport.audit.given import Thing

_HOME_OF_STAGE: dict[StageName, str] = {
    "Python parameters": "parameters",
    "checkpoint": "weights",
    "ONNX files": "graphs",
    "ONNX Runtime's optimised graph": "optimised",
    "process memory": "process",
    "engine plan": "plans",
    "device memory": "device",
}


def audit(
    things: Thing | Iterable[Thing],
    *,
    input_shape: Sequence[int] | None = None,
    deep: bool = False,
    progress: Progress | None = None,
) -> AuditResult:
    """Count the physical copies of every tied weight, by content and never by name.

    No thing is modified. Files are read in pieces: only tensors that could be copies of each other
    are read whole.

    Args:
        things: a checkpoint or bare state dict (.pt), .safetensors files, .onnx files or a folder
            of them, a bundle, engine plans beside what they were built from, a live module, itself
            or as "package.module:factory". One, or several that go together: each answers for its
            own stages.
        input_shape: of one item, for a live module that does not tell.
        deep: run ONNX Runtime and its sessions on more than 512 MiB of weights too, and every
            runtime of a bundle.
        progress: where to show progress; by default nowhere.

    Raises:
        UsageError: a thing is of no known kind, or things do not go together.
        BadInputError: a thing is missing, damaged, or its code raised.
        ModuleNotFoundError: the package that reads a thing is not installed.
    """
    started = time.perf_counter()
    things = listed(things)
    given = sort_out(things, input_shape, deep)
    rows: list[Stage] = []
    progress = progress or Progress(quiet=True)
    with progress.task("audit", len(_HOME_OF_STAGE)) as task:
        for stage, home in _HOME_OF_STAGE.items():
            rows += importlib.import_module(f"{__name__}.{home}").examine(given, rows)
            task.advance(note=stage)
    return AuditResult(
        things=tuple(map(label, things)),
        stages=tuple(rows),
        environment=environment.current(),
        seconds=time.perf_counter() - started,
        findings=_findings(given),
    )


def _findings(given: Given) -> tuple[Finding, ...]:
    """The mistakes of a live module."""
    if given.live is None or given.module is None:
        return ()
    from tiedexport import ties

    # A factory may stand elsewhere than the classes of what it makes, which are searched anyway.
    home = [] if given.instance is not None else [sys.modules[given.module.partition(":")[0]]]
    return ties.findings(given.live, given.input_shape, sources=home)
