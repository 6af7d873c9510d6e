"""What fresh processes take: seconds to a first output, and memory."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from tiedexport.results.status import Status
from tiedexport.spec import Precision


class ColdStart(Struct, frozen=True):
    """From the start of a process to its first output, of one runtime and precision.

    Files and libraries are in the page cache: a process before the counted ones has read them.
    Each part is the median of all processes, by clock readings of the process itself; so is the
    total, which is therefore not quite their sum.

    Attributes:
        check: how far the bundle's files were checked: every hash, or sizes.
        processes: how many were counted.
        start_s: from before the process was made to the first line of its program.
        import_s: of tiedexport and numpy.
        open_s: `open_bundle`.
        session_s: `open_session`, the import of the runtime's library included.
        run_s: the first call, one sample through the autoencoder.
        total_s: all of that, with `least_s` and `most_s` of single processes.
    """

    runtime: str
    precision: Precision
    memory: str
    threads: int
    status: Status
    reason: str = ""
    check: Literal["hash", "size"] = "hash"
    processes: int = 0
    start_s: float | None = None
    import_s: float | None = None
    open_s: float | None = None
    session_s: float | None = None
    run_s: float | None = None
    total_s: float | None = None
    least_s: float | None = None
    most_s: float | None = None
    remark: str = ""


class Held(Struct, frozen=True):
    """What a process holds at one time.

    Attributes:
        pss_bytes: its private pages, and its share of each page that others map too.
        private_bytes: what would be free if it ended.
    """

    pss_bytes: int
    private_bytes: int


class Footprint(Struct, frozen=True):
    """Memory of a fresh process that runs a bundle in one runtime and precision.

    Attributes:
        batch: the largest that was run, after 1.
        base: with tiedexport and numpy imported and the arrays of all calls made.
        loaded: with the session open.
        ran: after the autoencoder ran.
        peak_pss_bytes: the largest of samples from outside; what lasts a moment may be missed.
        device_bytes: by how much less is free on the GPU, its context included; None on a CPU.
        disk_bytes: of the files that this precision takes: weights and graphs, on a GPU its
            engines.
    """

    runtime: str
    precision: Precision
    memory: str
    threads: int
    status: Status
    reason: str = ""
    batch: int = 0
    base: Held | None = None
    loaded: Held | None = None
    ran: Held | None = None
    peak_pss_bytes: int | None = None
    device_bytes: int | None = None
    disk_bytes: int | None = None
    remark: str = ""
