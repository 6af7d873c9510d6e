"""Whatever moment a call is killed at, the next ones end where an undisturbed one does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import contents, needs_native

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.bundle import Bundle

KILLS = 50
ROWS, BAD = 6000, (17, 149, 150, 3001)


@pytest.fixture(scope="module")
def memory_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory where there is one: a disk takes long to sync so many small parts."""
    memory = Path("/dev/shm")
    root = memory if os.access(memory, os.W_OK) else tmp_path_factory.getbasetemp()
    with tempfile.TemporaryDirectory(dir=root) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def outputs(dense_bundle: Bundle, memory_disk: Path) -> Path:
    folder = memory_disk
    x = np.random.default_rng(0).random((ROWS, 20), np.float32)
    x[BAD, 3] = np.nan
    np.save(folder / "x.npy", x)
    words = [Path(__file__).with_name("killed_often.py"), dense_bundle.path, folder / "x.npy"]
    done = subprocess.run(
        [sys.executable, *map(str, words), str(folder), str(KILLS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= KILLS
    return folder


@needs_native
def test_after_fifty_kills_every_byte_is_as_without_them(outputs: Path) -> None:
    undisturbed = contents(outputs / "undisturbed")
    jobs = [path for path in outputs.iterdir() if path.name.isdecimal()]
    assert jobs
    for job in jobs:
        assert contents(job) == undisturbed


@needs_native
def test_after_fifty_kills_an_array_is_as_without_them(outputs: Path) -> None:
    undisturbed = (outputs / "undisturbed.npy").read_bytes()
    records = contents(outputs / "undisturbed.npy.job")
    arrays = [path for path in outputs.glob("*.npy") if path.stem.isdecimal()]
    assert arrays
    for array in arrays:
        assert array.read_bytes() == undisturbed
        assert contents(array.with_name(f"{array.name}.job")) == records


@needs_native
def test_no_row_is_lost_or_there_twice(outputs: Path) -> None:
    rows = pq.read_table(outputs / "0")["row"].to_pylist()
    assert rows == [row for row in range(ROWS) if row not in BAD]
    array = np.load(outputs / "1.npy")
    assert sorted(np.flatnonzero(np.isnan(array).any(axis=1))) == list(BAD)
