"""What a pod needs, reckoned from the bundle, with the arithmetic in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiedexport.package.triton import KEPT_VERSIONS, STAGES
from tiedexport.session import one_precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.bundle import Bundle
    from tiedexport.package.triton import Options

_MIB = 1 << 20
_SERVER_MIB, _INSTANCE_MIB = 256, 96
"""Of private pages 35 and 25 were measured on a CPU; ONNX Runtime in place of the native runtime
adds some 40 to an instance."""
_DEVICE_MIB = 1024
"""Host memory of a process that uses CUDA, before anything is loaded."""
_EXCHANGE_MIB = 1
"""Shared memory that the python backend begins with, an instance."""
_HEADROOM = 1.25


@dataclass(frozen=True)
class Budget:
    """What is requested for a pod and what it may not exceed.

    Attributes:
        memory_mib, shared_mib: of memory in all, and of it for /dev/shm.
        storage_mib: of the volume of models, for as many versions as it may hold.
        cpus, most_cpus: with one model computing in every instance, and with all three.
        gpus: devices.
        lines: the arithmetic.
    """

    memory_mib: int
    shared_mib: int
    storage_mib: int
    cpus: int
    most_cpus: int
    gpus: int
    lines: tuple[str, ...]


def budget(bundle: Bundle, options: Options) -> Budget:
    """What the models of a bundle need in one pod.

    Weights are counted once a version: instances map one file, whose pages are charged to the pod
    that reads them first. While a new version is loaded there are two, with twice the instances.

    Raises:
        BundleError: the bundle does not hold the precision.
    """
    processes = len(STAGES) * options.instances * KEPT_VERSIONS
    on_device = options.backend == "tensorrt" or options.device == "gpu"
    instance_mib = _INSTANCE_MIB if options.backend == "python" else 0
    server_mib = _SERVER_MIB
    if on_device:
        server_mib += _DEVICE_MIB
        instance_mib += _DEVICE_MIB if options.backend == "python" else 0
    weights_mib = _mib(_weight_bytes(bundle, options))
    rows_mib = _mib(options.max_batch * max(_row_bytes(bundle)))
    exchange_mib = processes * (_EXCHANGE_MIB + 2 * rows_mib)
    exact = KEPT_VERSIONS * weights_mib + server_mib + processes * instance_mib + exchange_mib
    memory_mib = math.ceil(exact * _HEADROOM / 64) * 64
    sizes = (
        f"{KEPT_VERSIONS} versions x {weights_mib} MiB of weights, each mapped once by all",
        f"+ {server_mib} MiB of server",
        f"+ {processes} instances ({len(STAGES)} models x {options.instances} x {KEPT_VERSIONS}"
        f" versions) x {instance_mib} MiB",
        f"+ {exchange_mib} MiB of /dev/shm (an instance: {_EXCHANGE_MIB} MiB and a batch of"
        f" {options.max_batch} in and out)",
        f"= {exact} MiB; with a quarter more, in steps of 64: {memory_mib} MiB",
    )
    cpus = options.threads * options.instances
    return Budget(
        memory_mib=memory_mib,
        shared_mib=exchange_mib,
        storage_mib=(KEPT_VERSIONS + 1) * max(64, _mib(_file_bytes(bundle))),
        cpus=cpus,
        most_cpus=len(STAGES) * cpus,
        gpus=int(on_device),
        lines=sizes,
    )


def _mib(size_bytes: int) -> int:
    return math.ceil(size_bytes / _MIB)


def _weight_bytes(bundle: Bundle, options: Options) -> int:
    """Of the file that is mapped: the largest where the runtime chooses; of plans, all of them."""
    manifest = bundle.manifest
    if options.backend == "tensorrt":
        return sum(manifest.files[plan.file].size_bytes for plan in manifest.plans)
    held = manifest.weights
    if options.precision is not None:
        bundle.weights_path(wanted := one_precision(options.precision))
        held = {wanted: held[wanted]}
    return max(manifest.files[file].size_bytes for file in held.values())


def _file_bytes(bundle: Bundle) -> int:
    return sum(record.size_bytes for record in bundle.manifest.files.values())


def _row_bytes(bundle: Bundle) -> Iterator[int]:
    for stage in bundle.manifest.stages:
        for spec in (*stage.inputs, *stage.outputs):
            yield math.prod(spec.element_shape) * spec.dtype.itemsize
