"""What training in several processes costs: bytes and seconds a step, tied and untied.

python bench/training_cost.py [--widths 2048,512] [--batch 256]

The processes talk over loopback. Bytes are those that the kernel counted on their sockets. The time
of an all-reduce is fitted to latency and bandwidth, and a step of two processes predicted from that
and from the step of both by themselves, at the same time, each on half the batch.
docs/explanation/scaling.md shows it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import torch
from record import record
from torch import distributed

from tiedexport.recipe import Recipe, load_recipe
from tiedexport.training import cost
from tiedexport.training.group import ALONE, MEETING_PLACE, Group, joined
from tiedexport.training.samples import SamplesInMemory
from tiedexport.training.trainer import Trainer

COUNTS = (1, 2, 4)
STEPS_A_TURN = 5
REDUCED_BYTES = tuple(1 << power for power in range(10, 25, 2))
BYTES_RECEIVED_AT = 128
"""Where Linux's struct tcp_info (linux/tcp.h) has tcpi_bytes_received, of 64 bits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", default="2048,512")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--worker", action="store_true", help="one process; prints JSON")
    arguments = parser.parse_args()
    widths = tuple(map(int, arguments.widths.split(",")))
    if arguments.worker:
        work(widths, arguments.batch, arguments.rounds)
        return
    measured = {
        count: started(count, widths, arguments.batch, arguments.rounds) for count in COUNTS
    }
    figures: dict[str, Any] = {"widths": arguments.widths, "batch": arguments.batch}
    for way, found in measured[2]["ways"].items():
        figures[f"{way}_computed_bytes"] = computed_bytes(widths, "untied" not in way)
        figures[f"{way}_received_bytes"] = found["received_bytes"]
        for count in COUNTS:
            figures[f"{way}_step_s_{count}"] = measured[count]["ways"][way]["step_s"]
    for way, seconds in measured[2]["alone_s"].items():
        figures[f"{way}_alone_step_s_2"] = seconds
    for half_of_it, share in measured[2]["parts"].items():
        figures[f"{half_of_it}_received_over_size"] = share
    figures |= check(measured[2], widths)
    figures["cores"] = len(os.sched_getaffinity(0))
    figures["load_average"] = os.getloadavg()[1]
    record("training_cost", figures)


def started(processes: int, widths: tuple[int, ...], batch: int, rounds: int) -> dict[str, Any]:
    """Processes of this script that train together; what the first one says."""
    command = [sys.executable, __file__, "--worker", "--widths", ",".join(map(str, widths))]
    command += ["--batch", str(batch), "--rounds", str(rounds)]
    with tempfile.TemporaryDirectory() as meeting:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "WORLD_SIZE": str(processes),
            MEETING_PLACE: meeting,
        }
        workers = [
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(processes)
        ]
        said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        sys.exit("a worker failed")
    found: dict[str, Any] = msgspec.json.decode(said[0])
    return found


def work(widths: tuple[int, ...], batch: int, rounds: int) -> None:
    """Every way in turns, all processes at once."""
    torch.set_num_threads(1)
    recipe = load_recipe(Path(__file__).parent.parent / "models" / "digits.toml")
    with joined("cpu", shard=True) as group:
        ways = {
            f"{'fsdp' if shard else 'ddp'}_{'tied' if tied else 'untied'}": Way(
                changed(recipe, widths, tied, batch),
                dataclasses.replace(group, shard=shard),
                group,
            )
            for shard in (False, True)
            for tied in (True, False)
        }
        rows = batch // group.part.processes
        alone = {
            f"ddp_{name}": Way(changed(recipe, widths, tied, rows), ALONE, group)
            for name, tied in (("tied", True), ("untied", False))
        }
        for _ in range(rounds):
            for way in (*ways.values(), *alone.values()):
                way.turn()
        found = {
            "ways": {
                name: {"received_bytes": way.received_bytes, "step_s": min(way.seconds)}
                for name, way in ways.items()
            },
            "alone_s": {name: min(way.seconds) for name, way in alone.items()},
            "all_reduce_s": all_reduces(group) if group.part.processes > 1 else [],
            "parts": parts(group) if group.part.processes > 1 else {},
        }
        if group.leads:
            print(msgspec.json.encode(found).decode())


def changed(recipe: Recipe, widths: tuple[int, ...], tied: bool, batch: int) -> Recipe:
    """The recipe with another model and batch."""
    config = msgspec.structs.replace(recipe.config, widths=widths, tied=tied)
    training = msgspec.structs.replace(
        recipe.training, batch_size=batch, shift=0, schedule="constant"
    )
    return msgspec.structs.replace(recipe, config=config, training=training)


class Way:
    """One way of training, in a group; all of `everyone` begin a turn together."""

    def __init__(self, recipe: Recipe, group: Group, everyone: Group) -> None:
        batch, width = recipe.training.batch_size, recipe.config.widths[0]
        samples = torch.rand(batch * STEPS_A_TURN, width)
        self._everyone = everyone
        self._trainer = Trainer(
            recipe, SamplesInMemory(samples, recipe.training, group.part), group
        )
        self._trainer.train_epoch(0)
        self.seconds: list[float] = []
        self.received_bytes = 0.0

    def turn(self) -> None:
        """Some steps."""
        self._everyone.wait()
        before, start = received_bytes(), perf_counter()
        self._trainer.train_epoch(0)
        self.seconds.append((perf_counter() - start) / STEPS_A_TURN)
        self.received_bytes = (received_bytes() - before) / STEPS_A_TURN


def received_bytes() -> int:
    """What has arrived on this process's TCP connections."""
    total = 0
    for entry in os.scandir("/proc/self/fd"):
        try:
            if not os.readlink(entry.path).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:  # closed meanwhile, or no TCP
            continue
        total += struct.unpack_from("<Q", info, BYTES_RECEIVED_AT)[0]
    return total


def all_reduces(group: Group) -> list[float]:
    """Seconds of an all-reduce of each size; the least, as others use the machine too."""
    found = []
    for size_bytes in REDUCED_BYTES:
        values, seconds = torch.zeros(size_bytes // 4), []
        for _ in range(30):
            group.wait()
            start = perf_counter()
            distributed.all_reduce(values)
            seconds.append(perf_counter() - start)
        found.append(min(seconds))
    return found


def parts(group: Group) -> dict[str, float]:
    """What a process receives in the two halves of an all-reduce, over the size of the whole."""
    processes = group.part.processes
    whole, part = torch.zeros(processes << 20), torch.zeros(1 << 20)
    halves = {
        "all_gather": lambda: distributed.all_gather_single(whole, part),
        "reduce_scatter": lambda: distributed.reduce_scatter_single(part, whole),
    }
    found = {}
    for name, half in halves.items():
        half()
        group.wait()
        before = received_bytes()
        half()
        group.wait()
        found[name] = (received_bytes() - before) / whole.nbytes
    return found


def computed_bytes(widths: tuple[int, ...], tied: bool) -> int:
    """What each of two processes receives while all gradients are summed: their own size."""
    return cost.GRADIENT_BYTES * cost.parameters(widths, tied)


def check(two: dict[str, Any], widths: tuple[int, ...]) -> dict[str, float]:
    """A link fitted to the all-reduces, and how far steps predicted with it are from measured."""
    sizes = np.array(REDUCED_BYTES, float)
    seconds = np.array(two["all_reduce_s"])
    # In relative terms, or the largest alone would decide.
    columns = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
    (base_s, byte_s), *_ = np.linalg.lstsq(columns, np.ones_like(seconds), rcond=None)
    link = cost.Link(latency_s=max(base_s, 0) / 2, bytes_a_second=1 / byte_s)
    figures = {
        "fitted_latency_s": link.latency_s,
        "fitted_bytes_a_second": link.bytes_a_second,
        "fit_largest_error": float(np.abs((base_s + sizes * byte_s) / seconds - 1).max()),
    }
    for way in ("ddp_tied", "ddp_untied"):
        size_bytes = computed_bytes(widths, "untied" not in way)
        predicted_s = two["alone_s"][way] + cost.ring_s(size_bytes, 2, link)
        figures[f"{way}_predicted_step_s_2"] = predicted_s
        figures[f"{way}_prediction_error"] = predicted_s / two["ways"][way]["step_s"] - 1
    return figures


if __name__ == "__main__":
    main()
