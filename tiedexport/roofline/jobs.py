"""What a fresh process is asked to measure: each has thread pools of one library only."""

from __future__ import annotations

from msgspec import Struct

from tiedexport import fresh
from tiedexport.errors import RuntimeFailedError
from tiedexport.results.roofline import Kernel
from tiedexport.spec import Precision

ONE_BLAS_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")


class WithNumpy(Struct, frozen=True, tag=True):
    """Read and multiply in threads of Python's, one BLAS thread each.

    Attributes:
        working_sets: bytes that are read again and again, all threads together.
        duration_s: of each kernel.
    """

    threads: int
    working_sets: tuple[int, ...]
    duration_s: float


class WithTorch(Struct, frozen=True, tag=True):
    """The same by torch with threads of its own."""

    threads: int
    working_sets: tuple[int, ...]
    duration_s: float


class WithNative(Struct, frozen=True, tag=True):
    """Encode with the native runtime: a sample to read the weights, many to multiply."""

    bundle: str
    precisions: tuple[Precision, ...]
    threads: int
    duration_s: float


Job = WithNumpy | WithTorch | WithNative


def measured(job: Job) -> list[Kernel]:
    """What a fresh process measured, or a row that says why it did not."""
    one = ONE_BLAS_THREAD if isinstance(job, WithNumpy) else {}
    try:
        return fresh.ask(("-m", "tiedexport.roofline.worker"), job, list[Kernel], environment=one)
    except RuntimeFailedError as error:
        name = type(job).__name__.removeprefix("With").lower()
        return [Kernel(name, "not run", job.threads, error.what)]
