"""Seconds and memory that `tiedexport build` takes for one large layer, in a fresh process.

python bench/build_large.py [--widths 16384,8192] [arguments of tiedexport build, as --target none]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from record import record

from tiedexport.memory import PeakMemory
from tiedexport.suite import write_checkpoint

SAMPLING_S = 0.2
"""The kernel holds the process still while it counts a gigabyte of pages: not too often."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", default="16384,8192")
    arguments, passed_on = parser.parse_known_args()
    widths = [int(width) for width in arguments.widths.split(",")]
    weight_bytes = 4 * sum(a * b for a, b in pairwise(widths))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "large.pt"
        write_checkpoint(checkpoint, widths)
        command = [sys.executable, "-m", "tiedexport", "build", str(checkpoint), *passed_on]
        start = perf_counter()
        with subprocess.Popen(command) as build, PeakMemory(build.pid, SAMPLING_S) as memory:
            build.wait()
        seconds = perf_counter() - start
        if build.returncode != 0:
            sys.exit(build.returncode)
        checkpoint_bytes = checkpoint.stat().st_size
    figures = {
        "widths": arguments.widths,
        "arguments": " ".join(passed_on),
        "weight_bytes": weight_bytes,
        "wall_s": seconds,
        "peak_pss_bytes": memory.peak_bytes,
        "peak_above_checkpoint_over_weight": (memory.peak_bytes - checkpoint_bytes) / weight_bytes,
    }
    record(f"build_large_{arguments.widths}", figures)


def build_bundle(path: Path, widths: list[int], precision: str) -> str:
    """The path of a bundle of an untrained model, made in a process of its own."""
    checkpoint = path.with_suffix(".pt")
    write_checkpoint(checkpoint, widths)
    command = [sys.executable, "-m", "tiedexport", "build", str(checkpoint)]
    command += ["--precision", precision, "--target", "none", "-q"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    checkpoint.unlink()
    return str(path.with_suffix(".tied"))


if __name__ == "__main__":
    main()
