"""What a machine can do at most, and how near to that each measured latency comes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from tiedexport.results.status import Status
from tiedexport.spec import Precision

Limit = Literal["memory", "cache", "arithmetic"]
"""What a stage waits for: memory, the last-level cache that holds its weights, or products."""


class Kernel(Struct, frozen=True):
    """What one loop reached on this machine.

    Attributes:
        name: the library and its function.
        status, reason: "not run" where the library is not here.
        threads: CPU threads.
        working_set_bytes: read again and again; 0 for arithmetic.
        precision: that products were computed in; None for reading.
        per_s: bytes read, or operations, in a second: the median of all turns.
        best_per_s: of the quickest turn.
    """

    name: str
    status: Status
    threads: int
    reason: str = ""
    working_set_bytes: int = 0
    precision: Precision | None = None
    per_s: float | None = None
    best_per_s: float | None = None


class Placement(Struct, frozen=True):
    """One measured latency against the limits of its machine.

    The limit is max(moved bytes / read bandwidth, operations / peak), as in Williams, Waterman and
    Patterson, "Roofline: an insightful visual performance model for multicore architectures",
    Communications of the ACM 52 (2009).

    Attributes:
        weight_bytes: each weight that the stage uses once, however often it is used.
        moved_bytes: compulsory: those, and all inputs and outputs.
        operations: 2 m n k of each product; activations and biases are not counted.
        operations_per_byte: arithmetic intensity.
        bandwidth_per_s: bytes a second that were read of a working set as large as the weights,
            and `bandwidth_by` what read them fastest.
        peak_per_s: operations a second, and `peak_by` what computed fastest; what is stored in
            two bytes may be computed in fp32.
        limit_s: the shortest time that a call can take here.
        bound_by: what sets it.
        median_s: the time that it took.
        share: `limit_s` / `median_s`.
    """

    runtime: str
    stage: str
    precision: Precision
    batch: int
    threads: int
    memory: str
    weight_bytes: int
    moved_bytes: int
    operations: int
    operations_per_byte: float
    bandwidth_per_s: float
    bandwidth_by: str
    peak_per_s: float
    peak_by: str
    limit_s: float
    bound_by: Limit
    median_s: float
    share: float
    remark: str = ""


class Roofline(Struct, frozen=True):
    """Every kernel that was tried, and every latency of a CPU's runtime in its place.

    Attributes:
        last_level_cache_bytes: as the kernel tells it; None where it does not. Of a virtual
            machine it may be shared with others.
    """

    kernels: tuple[Kernel, ...]
    placements: tuple[Placement, ...]
    last_level_cache_bytes: int | None
    seconds: float
