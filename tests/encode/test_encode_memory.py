"""What is held does not grow with the data."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
from conftest import needs_native

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle

MIB = 1 << 20
BOUND_BYTES = 96 * MIB
"""A few blocks of 8 MiB read ahead, being computed and waiting, a row group of 16 MiB twice, and
what libraries allocate once: far less than the input."""

ENCODE = """
import sys
from tiedexport.encode import encode
from tiedexport.memory import PeakMemory
import pyarrow.parquet
with PeakMemory() as memory:
    encode(sys.argv[1], [sys.argv[2]], sys.argv[3], runtime="native", threads=1, batch=1024)
print(memory.peak_bytes - memory.start_bytes)
"""


@needs_native
def test_an_input_larger_than_the_bound_passes_through(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    rows = 2 * BOUND_BYTES // 80
    np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(rows, 20))
    words = [dense_bundle.path, tmp_path / "x.npy", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", ENCODE, *map(str, words)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < BOUND_BYTES
