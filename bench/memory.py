"""What open sessions hold in memory, and how soon the first one answers.

python bench/memory.py [--mib 256] [--processes 4] [--rounds 5] [--only onnxruntime_fp32]

One tied layer; encoder, decoder and autoencoder stay open after a run at batch 1 and 64. Every
process first runs a tiny model: libraries, threads and inputs are in its base.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np
from build_large import build_bundle
from record import record
from ways import Opened, Way, missing, opened

from tiedexport import open_bundle, open_session
from tiedexport.memory import data_pss_bytes, private_bytes

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from typing import Self

FEATURES = 8192
BATCHES = (1, 64)
STAGES = ("encoder", "decoder", "autoencoder")
CALLS, OPENS = 5, 50


WAYS = (
    Way("native", "fp32"),
    Way("native", "fp16"),
    Way("native", "bf16"),
    Way("onnxruntime", "fp32"),
    Way("onnxruntime", "fp32", "packed"),
    Way("onnxruntime", "fp32", "default"),
    Way("onnxruntime", "fp16"),
    Way("torch", "fp32"),
    Way("torch", "bf16"),
    Way("torch", "fp16"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256, help="size of the weight, in any type")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="ways whose script has this in its name")
    arguments = parser.parse_args()
    weight_bytes = arguments.mib << 20
    ways = [way for way in WAYS if arguments.only in way.script]
    for way in ways.copy():
        if reason := missing(way):
            print(f"{way} is not run: {reason}")
            ways.remove(way)
    measured: dict[Way, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        tiny = _built(folder, "tiny", 4, "fp32,fp16,bf16")
        full = _built(folder, "full", weight_bytes // 4 // FEATURES, "fp32")
        bundles = dict.fromkeys(ways, full)
        if halves := [way for way in ways if way.precision != "fp32"]:
            half = _built(folder, "half", weight_bytes // 2 // FEATURES, "fp16,bf16")
            bundles |= dict.fromkeys(halves, half)
        for turn in range(arguments.rounds):
            for way in ways[:: -1 if turn % 2 else 1]:
                many = arguments.processes if turn == 0 else 1
                measured[way].append(measure(way, tiny, bundles[way], many, weight_bytes))
        growth = {
            way: _growth(way, tiny, full)
            for way in ways
            if (way.precision, way.memory) == ("fp32", "shared")
        }
        checks = _checks(full, arguments.rounds)
    record("memory_checks", checks)
    for way, turns in measured.items():
        figures: dict[str, Any] = {
            name: median(turn[name] for turn in turns if name in turn) for name in turns[0]
        }
        if way in growth:
            figures |= {"opens": OPENS, "growth_bytes": growth[way]}
        settings = {"weight_bytes": weight_bytes, "processes": arguments.processes}
        record(way.script, {**figures, **settings, "rounds": arguments.rounds})


def _built(folder: str, name: str, code: int, precision: str) -> str:
    return build_bundle(Path(folder) / name, [FEATURES, code], precision)


def measure(
    way: Way, tiny: str, bundle: str, processes: int, weight_bytes: int, threads: int = 1
) -> dict[str, float]:
    """Seconds of one process, its memory, and that of several which are alive at once."""
    with ExitStack() as alive:
        first = alive.enter_context(Process(way, tiny, bundle, threads))
        open_bundle(bundle)  # reads every byte, so that no disk is measured
        figures: dict[str, float] = first.ask("first_output")
        figures |= first.ask("run")
        figures["one_over_weight"] = first.growth_bytes() / weight_bytes
        if processes == 1:
            return figures
        others = [
            alive.enter_context(Process(way, tiny, bundle, threads)) for _ in range(processes - 1)
        ]
        for other in others:
            other.ask("first_output")
            other.ask("run")
        together = sum(process.growth_bytes() for process in (first, *others))
        return {**figures, "together_over_weight": together / weight_bytes}


def _growth(way: Way, tiny: str, bundle: str) -> int:
    """Private bytes more after many opens and closes than after the first few."""
    with Process(way, tiny, bundle) as process:
        before = process.ask("open_and_close", 3)
        return int(process.ask("open_and_close", OPENS) - before)


def _checks(bundle: str, rounds: int) -> dict[str, float]:
    """Seconds that opening takes with every byte hashed, and with sizes checked only."""
    seconds: dict[str, list[float]] = {"hash": [], "size": []}
    for _ in range(rounds + 1):
        for check, taken in seconds.items():
            start = perf_counter()
            open_bundle(bundle, check=check)
            taken.append(perf_counter() - start)
    return {f"{check}_s": median(taken[1:]) for check, taken in seconds.items()}


class Process:
    """A `Holder` in a process of its own."""

    def __init__(self, way: Way, tiny: str, bundle: str, threads: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, way, tiny, bundle, threads))
        self._process.start()
        theirs.close()
        self._pipe.recv()
        self._base_bytes = self._held_bytes()

    def ask(self, method: str, *arguments: object) -> Any:
        """What a method of the holder returns."""
        self._pipe.send((method, arguments))
        return self._pipe.recv()

    def growth_bytes(self) -> int:
        """Data that it holds more than before it opened the bundle."""
        return self._held_bytes() - self._base_bytes

    def _held_bytes(self) -> int:
        assert self._process.pid is not None
        return data_pss_bytes(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, way: Way, tiny: str, bundle: str, threads: int) -> None:
    logging.disable(logging.WARNING)  # of copies: they are what is measured
    holder = Holder(way, tiny, bundle, threads)
    pipe.send("ready")
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(holder, method)(*arguments))


class Holder:
    """Opens a bundle in one way and keeps it open."""

    def __init__(self, way: Way, tiny: str, bundle: str, threads: int) -> None:
        self._way, self._bundle, self._threads = way, bundle, threads
        self._arrays = _arrays(bundle)
        warming = opened(way, tiny, threads)
        for (stage, _), (x, out) in _arrays(tiny).items():
            warming.run(stage, x, out)
        warming.close()
        del warming
        gc.collect()

    def first_output(self) -> dict[str, float]:
        """Seconds from the bundle's path to the first output of the autoencoder, batch 1.

        Seconds of the processor as well: on a busy machine they tell more.
        """
        x, out = self._arrays["autoencoder", 1]
        start, cpu_start = perf_counter(), process_time()
        self._opened = opened(self._way, self._bundle, self._threads)
        self._opened.run("autoencoder", x, out)
        wall_s, cpu_s = perf_counter() - start, process_time() - cpu_start
        return {"first_output_s": wall_s, "first_output_cpu_s": cpu_s}

    def run(self) -> dict[str, float]:
        """Every stage at every batch size; median seconds of the autoencoder."""
        figures = {}
        for (stage, batch), (x, out) in self._arrays.items():
            self._opened.run(stage, x, out)
            if stage == "autoencoder":
                seconds = [_seconds(self._opened, stage, x, out) for _ in range(CALLS)]
                figures[f"batch_{batch}_s"] = median(seconds)
        return figures

    def open_and_close(self, times: int) -> int:
        """Private bytes after opening, running every stage at batch 1 and closing so often."""
        for _ in range(times):
            with open_session(
                open_bundle(self._bundle, check="size"),
                runtime=self._way.runtime,
                precision=self._way.precision,
                memory="shared",
                threads=1,
            ) as session:
                for stage in STAGES:
                    session.run(stage, *self._arrays[stage, 1])
        gc.collect()
        return private_bytes()


def _arrays(path: str) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    """Random inputs of every stage and batch size, and what takes the outputs, in memory."""
    manifest, rng = open_bundle(path, check="size").manifest, np.random.default_rng(0)
    made = {}
    for stage in map(manifest.stage, STAGES):
        for batch in BATCHES:
            x = rng.random((batch, *stage.inputs[0].element_shape), np.float32)
            out = np.ones((batch, *stage.outputs[0].element_shape), np.float32)
            made[stage.name, batch] = x, out
    return made


def _seconds(way: Opened, stage: str, x: np.ndarray, out: np.ndarray) -> float:
    start = perf_counter()
    way.run(stage, x, out)
    return perf_counter() - start


if __name__ == "__main__":
    main()
