"""How much the memory of a process grows while it reads streamed data."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_READING = """
import sys
from tiedexport import data, memory

stream = data.load(sys.argv[1], held_back=64).stream
measures = (memory.pss_bytes, memory.private_bytes)
before = [measure() for measure in measures]
most = 0
for number, _ in zip(range(140), stream.epoch(0, 256, seed=0)):
    if number % 20 == 0:
        most = max(most, *(measure() - then for measure, then in zip(measures, before)))
print(most, number)
"""


def memory_growth_of_reading(folder: Path) -> int:
    """The most bytes beyond those before, in a process that does nothing else."""
    run = subprocess.run(
        [sys.executable, "-c", _READING, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    growth_bytes, batches = map(int, run.stdout.split())
    assert batches > 100
    return growth_bytes
