"""What streaming costs: bytes a second, memory, and the time of a step beside data in memory.

python bench/train_stream.py FOLDER [--gigabytes 4] [--format npy|parquet]

FOLDER is filled with shards of random uint8 images of 28×28 if it has none, and left as it is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec
import numpy as np
import torch
from record import record, take_turns

from tiedexport import data
from tiedexport.memory import anonymous_bytes, private_bytes, pss_bytes
from tiedexport.recipe import load_recipe
from tiedexport.training.samples import SamplesInMemory
from tiedexport.training.stream import StreamedSamples
from tiedexport.training.trainer import Trainer

PIXELS = 28 * 28
SHARDS = 16
STEPS_A_TURN = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--format", choices=["npy", "parquet"], default="npy")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--reading", action="store_true", help="only read, and print JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.reading:
        print(msgspec.json.encode(reading(arguments.folder, arguments.batch)).decode())
        return
    write(arguments.folder, arguments.gigabytes, arguments.format)
    alone = [sys.executable, __file__, str(arguments.folder), "--reading"]
    runs = [
        msgspec.json.decode(subprocess.check_output([*alone, "--batch", str(arguments.batch)]))
        for _ in range(3)
    ]
    figures = {name: median(run[name] for run in runs) for name in runs[0]}
    figures |= {f"step_{k}": v for k, v in steps(arguments).items()}
    figures |= {"batch": arguments.batch, "load_average": os.getloadavg()[1]}
    record(f"train_stream_{arguments.format}", figures)


def write(folder: Path, gigabytes: float, kind: str) -> None:
    """Shards of random pixels; row groups of 16 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        return
    rows = int(gigabytes * 1e9 / PIXELS / SHARDS)
    for number in range(SHARDS):
        random = np.random.default_rng(number)
        images = random.integers(0, 256, (rows, PIXELS), dtype=np.uint8)
        if kind == "npy":
            np.save(folder / f"{number:02d}.npy", images)
        else:
            import pyarrow as pa
            from pyarrow import parquet

            column = pa.FixedSizeListArray.from_arrays(pa.array(images.ravel()), PIXELS)
            table = pa.table({"images": column})
            parquet.write_table(table, folder / f"{number:02d}.parquet", row_group_size=20_000)


def reading(folder: Path, batch_size: int) -> dict[str, float]:
    """One epoch without training, from the page cache where the set fits into it."""
    start = perf_counter()
    stream = data.load(folder).stream
    assert stream is not None
    opened_s = perf_counter() - start
    before = private_bytes()
    largest = dict.fromkeys(("pss_bytes", "private_bytes", "anonymous_bytes"), 0)
    measured_s = 0.0
    start = perf_counter()
    for number, _ in enumerate(stream.epoch(0, batch_size, seed=0)):
        if number % 2000 == 1000:
            paused = perf_counter()
            for measure in (pss_bytes, private_bytes, anonymous_bytes):
                largest[measure.__name__] = max(largest[measure.__name__], measure())
            measured_s += perf_counter() - paused
    seconds = perf_counter() - start - measured_s
    return {
        "set_bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "samples": stream.count,
        "opening_s": opened_s,
        "bytes_a_second": stream.count * PIXELS / seconds,
        "before_bytes": before,
        **{f"largest_{name}": value for name, value in largest.items()},
    }


def steps(arguments: argparse.Namespace) -> dict[str, float]:
    """Turns of steps on streamed samples and on samples in memory, with one model each."""
    recipe = load_recipe(Path(__file__).parent.parent / "models" / "digits.toml")
    training = msgspec.structs.replace(recipe.training, batch_size=arguments.batch, shift=0)
    recipe = msgspec.structs.replace(recipe, training=training)
    loaded = data.load(arguments.folder)
    assert loaded.stream is not None
    streamed = StreamedSamples(loaded.stream, training, (PIXELS,))
    in_memory = SamplesInMemory(torch.from_numpy(loaded.train), training)
    turns = [Turn(recipe, samples) for samples in (streamed, in_memory)]
    with closing(turns[0]), closing(turns[1]):
        figures = take_turns(turns[0], turns[1], arguments.rounds)
    for name in ("ours_s", "theirs_s"):
        figures[name] /= STEPS_A_TURN
    return figures | {"rounds": arguments.rounds, "cores": len(os.sched_getaffinity(0))}


class Turn:
    """Some steps on the next batches, epoch after epoch."""

    def __init__(self, recipe, samples) -> None:
        self._trainer = Trainer(recipe, samples)
        self._samples = samples
        self._random = torch.Generator().manual_seed(0)
        self._epoch = -1
        self._batches = iter(())
        self._step = 0

    def __call__(self) -> None:
        """Take them."""
        for _ in range(STEPS_A_TURN):
            batch = next(self._batches, None)
            if batch is None:
                self._epoch += 1
                self._batches = self._samples.batches(self._epoch)
                batch = next(self._batches)
            self._trainer.step(batch, self._step, self._random)
            self._step += 1

    def close(self) -> None:
        """End the thread that reads ahead."""
        self._batches.close()


if __name__ == "__main__":
    main()
