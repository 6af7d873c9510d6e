"""The limits of this machine, measured here, and how near to them each runtime comes."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tiedexport.progress import Progress
from tiedexport.results.roofline import Kernel, Limit, Placement, Roofline
from tiedexport.roofline.counting import Work, work
from tiedexport.roofline.jobs import WithNative, WithNumpy, WithTorch, measured
from tiedexport.runtimes import choose_precision, runtime_named
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tiedexport.bundle import Bundle
    from tiedexport.results import Latency
    from tiedexport.roofline.jobs import Job

STEPS_AN_OCTAVE = 4
"""Working sets whose sizes differ by less than such a step are measured as one."""

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def roofline(
    bundle: Bundle,
    latencies: Iterable[Latency],
    *,
    duration_s: float = 0.2,
    progress: Progress | None = None,
    measure: Callable[[Job], list[Kernel]] = measured,
) -> Roofline:
    """Measure this machine, and place each latency of a runtime on its CPU against its limits.

    Reading is measured on working sets as large as the weights of each stage: what fits a cache is
    not limited by memory. Each library is measured in a fresh process, with as many threads as the
    latencies had; of all kernels the best counts, and a runtime that does more is the best kernel.

    Args:
        bundle: whose latencies they are.
        latencies: rows of `bench`; those that did not run, and those of a GPU, are left out.
        duration_s: of each kernel; there are about twenty for a number of threads.
        progress: where to show progress; by default nowhere.
        measure: for tests.
    """
    started = time.perf_counter()
    rows = [row for row in latencies if row.median_s and not runtime_named(row.runtime).on_gpu]
    works = {_key(row): _work(bundle, row) for row in rows}
    jobs = list(_jobs(bundle, rows, works, duration_s))
    kernels: list[Kernel] = []
    with (progress or Progress(quiet=True)).task("roofline", len(jobs)) as task:
        for job in jobs:
            kernels += measure(job)
            task.advance()
    return Roofline(
        kernels=tuple(kernels),
        placements=tuple(place(rows, works, kernels)),
        last_level_cache_bytes=last_level_cache_bytes(),
        seconds=time.perf_counter() - started,
    )


def working_set(size_bytes: int) -> int:
    """The size nearest to this one of those that are measured, in steps of an octave's quarter."""
    return round(2 ** (round(STEPS_AN_OCTAVE * math.log2(size_bytes)) / STEPS_AN_OCTAVE))


def _key(row: Latency) -> tuple[str, Precision, int]:
    return row.stage, row.precision, row.batch


def _work(bundle: Bundle, row: Latency) -> Work:
    return work(bundle.manifest.stage(row.stage), bundle.weights(row.precision), row.batch)


def _jobs(
    bundle: Bundle,
    rows: Sequence[Latency],
    works: dict[tuple[str, Precision, int], Work],
    duration_s: float,
) -> Iterable[Job]:
    sizes = tuple(sorted({working_set(one.weight_bytes) for one in works.values()}))
    native = runtime_named("native")
    able = tuple(p for p in bundle.manifest.precisions if choose_precision(native, bundle, p)[0])
    for threads in sorted({row.threads for row in rows}):
        yield WithNumpy(threads, sizes, duration_s)
        yield WithTorch(threads, sizes, duration_s)
        if able:
            yield WithNative(str(bundle.path), able, threads, duration_s)


def place(
    rows: Sequence[Latency],
    works: dict[tuple[str, Precision, int], Work],
    kernels: Sequence[Kernel],
    cache_bytes: int | None = None,
) -> Iterable[Placement]:
    """Every row against the best that any kernel, or any other row, has reached.

    Args:
        rows: latencies that were measured.
        works: stage, precision and batch → what a call must do.
        kernels: what was tried.
        cache_bytes: of the last-level cache; by default this machine's.
    """
    cache_bytes = cache_bytes or last_level_cache_bytes() or 0
    tried = [kernel for kernel in kernels if kernel.per_s]
    tried += [one for row in rows for one in _as_kernels(row, works[_key(row)])]
    for row in rows:
        done = works[_key(row)]
        reading = _best(one for one in tried if _reads(one, row, done))
        products = _best(one for one in tried if _computes(one, row))
        near: Limit = "cache" if done.weight_bytes <= cache_bytes else "memory"
        yield _placed(row, done, reading, products, near)


def _placed(row: Latency, done: Work, reading: Kernel, products: Kernel, near: Limit) -> Placement:
    assert row.median_s is not None
    assert reading.per_s is not None
    assert products.per_s is not None
    moving_s, computing_s = done.moved_bytes / reading.per_s, done.operations / products.per_s
    limit_s = max(moving_s, computing_s)
    return Placement(
        runtime=row.runtime,
        stage=row.stage,
        precision=row.precision,
        batch=row.batch,
        threads=row.threads,
        memory=row.memory,
        weight_bytes=done.weight_bytes,
        moved_bytes=done.moved_bytes,
        operations=done.operations,
        operations_per_byte=done.operations / done.moved_bytes,
        bandwidth_per_s=reading.per_s,
        bandwidth_by=reading.name,
        peak_per_s=products.per_s,
        peak_by=products.name,
        limit_s=limit_s,
        bound_by="arithmetic" if computing_s > moving_s else near,
        median_s=row.median_s,
        share=limit_s / row.median_s,
        remark=row.remark,
    )


def _as_kernels(row: Latency, done: Work) -> Iterable[Kernel]:
    """A row as what it shows to be possible: nothing is above a limit."""
    assert row.median_s is not None
    name = f"{row.runtime} {row.precision} {row.stage}, batch {row.batch}"
    shown = Kernel(name, "passed", row.threads)
    reading = done.moved_bytes / row.median_s
    yield replace(shown, working_set_bytes=done.weight_bytes, per_s=reading)
    yield replace(shown, precision=row.precision, per_s=done.operations / row.median_s)


def _best(able: Iterable[Kernel]) -> Kernel:
    return max(able, key=lambda kernel: kernel.per_s or 0.0)


def _reads(kernel: Kernel, row: Latency, done: Work) -> bool:
    size = kernel.working_set_bytes
    alike = size > 0 and working_set(size) == working_set(done.weight_bytes)
    return alike and kernel.threads == row.threads


def _computes(kernel: Kernel, row: Latency) -> bool:
    """Whether products of its weights may be computed so: in their type, or widened to fp32."""
    return kernel.precision in (row.precision, Precision.FP32) and kernel.threads == row.threads


def last_level_cache_bytes(caches: Path = _CACHES) -> int | None:
    """Size of the largest cache of the first processor; None where the kernel tells none."""
    sizes = []
    for path in caches.glob("index*/size"):
        if found := re.fullmatch(r"(\d+)([KMG]?)", path.read_text().strip()):
            sizes.append(int(found[1]) * _UNITS[found[2]])
    return max(sizes, default=None)
