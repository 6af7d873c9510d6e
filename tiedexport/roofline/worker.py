"""The fresh process: loops that do nothing but read, or nothing but multiply."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tiedexport.results.roofline import Kernel
from tiedexport.roofline.jobs import Job, WithNative, WithNumpy, WithTorch
from tiedexport.roofline.turns import turns_s
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

LINE_BYTES = 64
TURN_BYTES = 32 << 20
"""A turn reads a small working set again until it has read so much: it lasts a millisecond."""

SQUARES = (256, 512, 1024)
"""Orders of the matrices that are multiplied; the largest take most libraries to their peak."""

SAMPLES = 256
"""That are encoded at once where the native runtime is to multiply."""

Part = Callable[[], object]
_FP32, _FP16, _BF16 = Precision


def main() -> None:
    """A job on standard input, kernels into the file of the first argument."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    Path(sys.argv[1]).write_bytes(msgspec.json.encode(list(kernels(job))))


def kernels(job: Job) -> Iterator[Kernel]:
    """Every kernel of a job."""
    if isinstance(job, WithNumpy):
        return _numpy(job)
    return _torch(job) if isinstance(job, WithTorch) else _native(job)


def reached(kernel: Kernel, amount: int, seconds: list[float]) -> Kernel:
    """The kernel with what it did a second, `amount` a turn."""
    return msgspec.structs.replace(
        kernel, per_s=amount / median(seconds), best_per_s=amount / min(seconds)
    )


def _numpy(job: WithNumpy) -> Iterator[Kernel]:
    for size in job.working_sets:
        slice_bytes = max(LINE_BYTES, size // job.threads // LINE_BYTES * LINE_BYTES)
        repeats = max(1, TURN_BYTES // slice_bytes)
        memory = np.ones((job.threads, slice_bytes), np.uint8)
        for name, read in _readings(repeats):
            parts = [partial(read, each) for each in memory]
            kernel = Kernel(f"numpy {name}", "passed", job.threads, working_set_bytes=memory.nbytes)
            yield reached(kernel, repeats * memory.nbytes, turns_s(parts, job.duration_s))
    for order in SQUARES:
        squares = [np.ones((3, order, order), np.float32) for _ in range(job.threads)]
        parts = [partial(np.matmul, a, b, out=out) for a, b, out in squares]
        kernel = Kernel(f"numpy sgemm {order}", "passed", job.threads, precision=_FP32)
        yield reached(kernel, 2 * order**3 * job.threads, turns_s(parts, job.duration_s))


def _readings(repeats: int) -> Iterator[tuple[str, Callable[[np.ndarray], object]]]:
    """Kernels that read bytes [n] so many times; all let other threads run meanwhile."""

    def again(kind: DTypeLike, memory: np.ndarray) -> np.ndarray:
        row = memory.view(kind)
        return np.broadcast_to(row, (repeats, len(row)))

    yield "max of int64", lambda memory: np.max(again(np.int64, memory), axis=1)
    yield "max of uint8", lambda memory: np.max(again(np.uint8, memory), axis=1)
    yield "or of uint64", lambda memory: np.bitwise_or.reduce(again(np.uint64, memory), axis=1)
    yield "dot of fp32", lambda memory: [np.dot(x, x) for x in again(np.float32, memory)]


def _torch(job: WithTorch) -> Iterator[Kernel]:
    try:
        import torch
    except ImportError as error:
        yield Kernel("torch", "not run", job.threads, str(error))
        return
    torch.set_num_threads(job.threads)
    with torch.inference_mode():
        for size in job.working_sets:
            columns = max(1, min(1024, size // 4))
            matrix = torch.ones(max(1, size // 4 // columns), columns)
            repeats = max(1, TURN_BYTES // matrix.nbytes)
            part = _times(repeats, partial(torch.mv, matrix, torch.ones(columns)))
            kernel = Kernel("torch mv", "passed", job.threads, working_set_bytes=matrix.nbytes)
            yield reached(kernel, repeats * matrix.nbytes, turns_s([part], job.duration_s))
        kinds = {_FP32: torch.float32, _FP16: torch.float16, _BF16: torch.bfloat16}
        for precision, kind in kinds.items():
            for order in SQUARES:
                a, b, out = torch.ones(3, order, order, dtype=kind)
                part = partial(torch.mm, a, b, out=out)
                kernel = Kernel(f"torch mm {order}", "passed", job.threads, precision=precision)
                seconds = turns_s([part], job.duration_s)
                yield reached(kernel, 2 * order**3, seconds)
                if median(seconds) > job.duration_s / 4:
                    break  # it has no kernel of this type worth waiting for


def _times(repeats: int, call: Part) -> Part:
    def part() -> None:
        for _ in range(repeats):
            call()

    return part


def _native(job: WithNative) -> Iterator[Kernel]:
    from tiedexport.bundle import open_bundle
    from tiedexport.contender import golden_inputs
    from tiedexport.roofline.counting import work
    from tiedexport.session import open_session

    bundle = open_bundle(job.bundle, check="size")
    stage = bundle.manifest.stage("encoder")
    spec = stage.outputs[0]
    for precision in job.precisions:
        weights = bundle.weights(precision)
        with open_session(
            bundle, runtime="native", precision=precision, threads=job.threads
        ) as session:
            for batch in (1, SAMPLES):
                x = golden_inputs(bundle, stage, batch)
                out = np.empty((batch, *spec.element_shape), spec.dtype.dtype)
                seconds = turns_s([session.bind("encoder", x, out)], job.duration_s)
                done = work(stage, weights, batch)
                kernel = Kernel(f"native encode {precision}", "passed", job.threads)
                yield reached(*_counted(kernel, done, precision, batch), seconds)


def _counted(kernel: Kernel, done: Any, precision: Precision, batch: int) -> tuple[Kernel, int]:
    """One sample reads; many multiply."""
    if batch == 1:
        sized = msgspec.structs.replace(kernel, working_set_bytes=done.weight_bytes)
        return sized, done.moved_bytes
    return msgspec.structs.replace(kernel, precision=precision), done.operations


if __name__ == "__main__":
    main()
