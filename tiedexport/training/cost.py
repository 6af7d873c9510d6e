"""What a training step costs on many GPUs: a model of it, and every assumption by name.

A step is a forward pass, a backward pass, the sum of the gradients over all processes, and the
optimizer. The gradients are sent in buckets as the backward pass finishes them, so that only what
does not fit beside it is waited for. Nothing here was measured on a cluster.

- A ring needs 2(n - 1) steps of 1/n of the bytes each. Source: Patarasuk and Yuan, "Bandwidth
  optimal all-reduce algorithms for clusters of workstations", JPDC 69 (2009).
- Over hosts the bytes are first scattered within each host, each GPU then sums its part with its
  fellows over the network, by a ring or, where its latency is too high, by two trees: Sanders,
  Speck and Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan", Parallel
  Computing 35 (2009).
- Buckets beside the backward pass: Li et al., "PyTorch Distributed: Experiences on Accelerating
  Data Parallel Training", VLDB 13 (2020), section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

BUCKET_BYTES = 25 << 20
"""What DDP collects before it sends, unless told."""

GRADIENT_BYTES = 4
"""The trainer keeps weights and gradients in float32; only the products are in bfloat16."""

ADAM_BYTES = 7 * 4
"""A parameter's traffic: gradient, weight and two moments read, all but the first written."""


@dataclass(frozen=True)
class Link:
    """What connects processes: seconds a message, and bytes a second in each direction."""

    latency_s: float
    bytes_a_second: float


@dataclass(frozen=True)
class Cluster:
    """Equal hosts of equal devices.

    Attributes:
        flops: operations a second that a product reaches.
        memory_bytes_a_second: of a device's memory.
        launch_s: the least that one layer takes in one direction, however small.
        devices: in a host.
        inner: between devices of a host.
        outer: of each device to those of other hosts.
    """

    flops: float
    memory_bytes_a_second: float
    launch_s: float
    devices: int
    inner: Link
    outer: Link


H100_HOSTS = Cluster(
    flops=0.4 * 989e12,
    memory_bytes_a_second=0.8 * 3.35e12,
    launch_s=50e-6,
    devices=8,
    inner=Link(latency_s=3e-6, bytes_a_second=0.8 * 450e9),
    outer=Link(latency_s=10e-6, bytes_a_second=0.9 * 50e9),
)
"""Assumptions, not measurements: 40 % of the 989 TFLOP/s of bfloat16 without sparsity, 80 % of 3.35
TB/s, 80 % of NVLink's 450 GB/s a direction, 90 % of 400 Gb/s a GPU, and ten launches of 5 µs for a
layer in a direction. The peaks are those of NVIDIA's data sheet of the H100 SXM."""


@dataclass(frozen=True)
class Step:
    """A simulated step.

    Attributes:
        compute_s: forward and backward pass.
        sent_bytes: by each process.
        communication_s: as if nothing went on beside it.
        waited_s: what of it is not hidden behind the backward pass.
        optimizer_s: Adam's.
    """

    compute_s: float
    sent_bytes: float
    communication_s: float
    waited_s: float
    optimizer_s: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.compute_s + self.waited_s + self.optimizer_s


def parameters(widths: Sequence[int], tied: bool) -> int:
    """Of a stack: each layer's matrix once or twice, and the biases of both directions."""
    return sum(
        (1 if tied else 2) * before * after + before + after for before, after in pairwise(widths)
    )


def simulate(
    widths: Sequence[int],
    rows: float,
    processes: int,
    cluster: Cluster,
    *,
    tied: bool,
    sharded: bool = False,
) -> Step:
    """One step of a stack in data parallel.

    Args:
        widths: of the encoder; the decoder goes the same way back.
        rows: of the batch, in each process; on average, so not whole where the batch is small.
        processes: one a device.
        cluster: what they run on.
        tied: whether each matrix serves both directions.
        sharded: FSDP2, wrapped at the root as `train --shard` does: all weights are gathered before
            the forward pass and all gradients scattered after the backward pass.
    """
    forward_s = 2 * sum(_product_s(a, b, rows, cluster) for a, b in pairwise(widths))
    gradients = list(_backward(widths, rows, cluster, tied))
    backward_s = gradients[-1][0]
    size_bytes = sum(size for _, size in gradients)
    communication_s = all_reduce_s(size_bytes, processes, cluster)
    if sharded:
        waited_s = communication_s
    else:
        waited_s = _last_arrival_s(_buckets(gradients), processes, cluster) - backward_s
    own = parameters(widths, tied) / (processes if sharded else 1)
    return Step(
        compute_s=forward_s + backward_s,
        sent_bytes=2 * (processes - 1) / processes * size_bytes,
        communication_s=communication_s,
        waited_s=waited_s,
        optimizer_s=own * ADAM_BYTES / cluster.memory_bytes_a_second,
    )


def ring_s(size_bytes: float, processes: int, link: Link) -> float:
    """Seconds of an all-reduce by a ring."""
    messages = 2 * (processes - 1)
    return messages * (link.latency_s + size_bytes / processes / link.bytes_a_second)


def all_reduce_s(size_bytes: float, processes: int, cluster: Cluster) -> float:
    """Seconds of an all-reduce of so many bytes in every process."""
    inside = min(processes, cluster.devices)
    hosts = -(-processes // inside)
    within_s = ring_s(size_bytes, inside, cluster.inner)
    if hosts == 1:
        return within_s
    part_bytes = size_bytes / inside
    messages = 2 * math.log2(hosts)
    trees_s = messages * cluster.outer.latency_s + 2 * part_bytes / cluster.outer.bytes_a_second
    return within_s + min(ring_s(part_bytes, hosts, cluster.outer), trees_s)


def _product_s(before: int, after: int, rows: float, cluster: Cluster) -> float:
    return max(2 * before * after * rows / cluster.flops, cluster.launch_s)


def _backward(
    widths: Sequence[int], rows: float, cluster: Cluster, tied: bool
) -> Iterator[tuple[float, int]]:
    """When each gradient is whole, and its bytes: the decoder's from outside in, then back out.

    A tied matrix has to wait for its second use, in the encoder; there is half as much to send, and
    half as long to hide it.
    """
    layers = list(pairwise(widths))
    now_s = 0.0
    for before, after in layers:
        now_s += 2 * _product_s(before, after, rows, cluster)
        yield now_s, GRADIENT_BYTES * (before + (0 if tied else before * after))
    for number, (before, after) in reversed(list(enumerate(layers))):
        # The first layer needs no gradient of its input.
        now_s += (2 if number else 1) * _product_s(before, after, rows, cluster)
        yield now_s, GRADIENT_BYTES * (after + before * after)


def _buckets(gradients: Iterable[tuple[float, int]]) -> Iterator[tuple[float, int]]:
    """Gradients that are sent together: when, and how many bytes."""
    when_s, size_bytes = 0.0, 0
    for when_s, size in gradients:
        size_bytes += size
        if size_bytes >= BUCKET_BYTES:
            yield when_s, size_bytes
            size_bytes = 0
    if size_bytes:
        yield when_s, size_bytes


def _last_arrival_s(
    buckets: Iterable[tuple[float, int]], processes: int, cluster: Cluster
) -> float:
    """When the last bucket is summed; one after the other."""
    free_s = 0.0
    for when_s, size_bytes in buckets:
        free_s = max(free_s, when_s) + all_reduce_s(size_bytes, processes, cluster)
    return free_s
