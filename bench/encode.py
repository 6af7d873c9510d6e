"""How fast `tiedexport encode` is beside the bare loop over an array in memory, and what it holds.

python bench/encode.py NAME.tied [--rows 100000] [--rounds 7] [--threads 1] [--large GB]

The bare loop calls a session on slices of a float32 array. Both compute in the same batches, in
turns, from files that the system has in memory; the rate of `encode` is from the first row that is
read to the last one that is synced, so few rows would show how long the first block takes. With
--large a file of that many GB of float32 is written, and encoded in a process of its own whose Pss
is sampled.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from record import record

from tiedexport import open_session
from tiedexport.encode import encode
from tiedexport.encode.planning import quickest_batch
from tiedexport.memory import PeakMemory

WAYS = {
    "npy to npy": ("x.npy", "z.npy"),
    "npy to Parquet": ("x.npy", "z"),
    "Parquet to Parquet": ("x.parquet", "z"),
}
CHUNK_ROWS = 1 << 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--large", type=float, default=0, help="GB of a file to encode")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.large:
            record("encode_large", large(arguments, Path(folder)))
        else:
            figures = rates(arguments, Path(folder))
            record(f"encode_{arguments.threads}", figures, shown(figures))


def rates(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Rows a second of the bare loop and of each way, round by round."""
    with open_session(
        arguments.bundle, runtime="native", precision="fp32", threads=arguments.threads
    ) as session:
        stage = session.bundle.manifest.stage("encoder")
        batch = quickest_batch(session, stage)
        x = write_inputs(folder, arguments.rows, stage.inputs[0].element_shape)
        out = np.empty((len(x), *stage.outputs[0].element_shape), np.float32)

        def bare() -> float:
            start = perf_counter()
            for at in range(0, len(x), batch):
                session.run("encoder", x[at : at + batch], out[at : at + batch])
            return len(x) / (perf_counter() - start)

        def through(source: str, target: str) -> float:
            for left in folder.glob("z*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            result = encode(
                arguments.bundle, [folder / source], folder / target, runtime="native",
                precision="fp32", threads=arguments.threads, batch=batch,
            )  # fmt: skip
            assert result.rows_per_s is not None
            return result.rows_per_s

        found: dict[str, list[float]] = {name: [] for name in ("bare loop", *WAYS)}
        bare()
        for _ in range(arguments.rounds):
            before = bare()
            for name, (source, target) in WAYS.items():
                rate, after = through(source, target), bare()
                found["bare loop"].append(after)
                # Beside the loops before and after it, so that a drift of the machine cancels.
                found[name].append(2 * rate / (before + after))
                before = after
    return {
        "batch": batch,
        "rows": len(x),
        "rounds": arguments.rounds,
        "bare_rows_per_s": median(found.pop("bare loop")),
        "ratio": {name: median(ratios) for name, ratios in found.items()},
        "ratio_quartiles": {name: quantiles(r, n=4)[::2] for name, r in found.items()},
    }


def shown(figures: dict[str, Any]) -> dict[str, Any]:
    """The ratios with their quartiles."""
    lines = {
        name: f"{ratio:.3f} ({figures['ratio_quartiles'][name][0]:.3f}"
        f"–{figures['ratio_quartiles'][name][1]:.3f}) of the bare loop"
        for name, ratio in figures["ratio"].items()
    }
    return {"bare loop": f"{figures['bare_rows_per_s']:,.0f} rows/s", **lines}


def write_inputs(folder: Path, rows: int, shape: tuple[int, ...]) -> np.ndarray:
    """The same rows as .npy and as Parquet, and in memory."""
    x = np.random.default_rng(0).random((rows, *shape), np.float32)
    np.save(folder / "x.npy", x)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), int(np.prod(shape)))
    table = pa.table({"id": np.arange(rows), "image": flat})
    pq.write_table(table, folder / "x.parquet", row_group_size=8192, use_dictionary=["id"])
    return x


def large(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Rows a second, and the peak of Pss, with a file of many GB."""
    with open_session(arguments.bundle, runtime="native") as session:
        shape = session.bundle.manifest.stage("encoder").inputs[0].element_shape
    row_bytes = 4 * int(np.prod(shape))
    rows = int(arguments.large * 1e9) // row_bytes
    chunk = np.random.default_rng(0).random((CHUNK_ROWS, *shape), np.float32)
    mapped = np.lib.format.open_memmap(
        folder / "x.npy", mode="w+", dtype=np.float32, shape=(rows, *shape)
    )
    for at in range(0, rows, CHUNK_ROWS):
        mapped[at : at + CHUNK_ROWS] = chunk[: rows - at]
    del mapped
    words = ["-m", "tiedexport", "encode", arguments.bundle, str(folder / "x.npy")]
    options = ["-o", str(folder / "z"), "--runtime", "native", "--threads",
               str(arguments.threads), "--json", "-", "--quiet"]  # fmt: skip
    command = [sys.executable, *words, *options]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        PeakMemory(process.pid, interval_s=0.1) as memory,
    ):
        printed = process.communicate()[0]
    result = json.loads(printed)
    kept = {name: result[name] for name in ("rows", "batch", "parts", "seconds", "rows_per_s")}
    return {"input_bytes": rows * row_bytes, "threads": arguments.threads, **kept,
            "peak_pss_bytes": memory.peak_bytes}  # fmt: skip


if __name__ == "__main__":
    main()
