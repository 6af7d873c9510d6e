"""Memory is read as the kernel accounts it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiedexport.errors import MissingRuntimeError
from tiedexport.memory import PeakMemory, data_pss_bytes, held_bytes, private_bytes, pss_bytes

MIB = 1 << 20


def test_touched_private_pages_count_in_both_measures():
    pss_before, private_before = pss_bytes(), private_bytes()
    with mmap.mmap(-1, 32 * MIB) as pages:  # new ones, where the heap may hand out old ones
        for _ in range(32):
            pages.write(os.urandom(MIB))
        assert pss_bytes() - pss_before >= 31 * MIB
        assert private_bytes() - private_before >= 31 * MIB


def test_private_bytes_never_exceed_pss_by_more_than_rounding():
    assert private_bytes() <= pss_bytes() + MIB


TWO_MAPPINGS = """
import mmap, sys
from pathlib import Path
from tiedexport.memory import data_pss_bytes, held_bytes, pss_bytes
path = Path(sys.argv[1])
measure = {"data": data_pss_bytes, "held": lambda: held_bytes([path])}[sys.argv[2]]
measure()
before = measure()
with path.open("rb") as file:
    twice = [mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) for _ in range(2)]
assert all(sum(pages[::4096]) for pages in twice)
after = measure()
print(after - before, after, pss_bytes())
"""


def two_mappings(path: Path, measure: str) -> tuple[int, ...]:
    """In a process of its own, as this one's threads allocate when they like: growth, held, Pss."""
    command = [sys.executable, "-c", TWO_MAPPINGS, path, measure]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return tuple(map(int, printed.split()))


def test_data_are_what_a_process_maps_and_holds_but_not_its_code(tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(16 * MIB))
    grown, data, everything = two_mappings(tmp_path / "file", "data")
    assert 16 * MIB <= grown < 17 * MIB
    assert data < everything


def test_reserved_but_untouched_pages_do_not_count():
    before = pss_bytes()
    with mmap.mmap(-1, 1024 * MIB):
        assert pss_bytes() - before < 512 * MIB  # room for what other threads allocate


def test_peak_memory_sees_an_allocation_that_is_gone_at_the_end():
    with PeakMemory(interval_s=0.001) as peak:
        pages = bytearray(os.urandom(MIB)) * 64
        while peak.peak_bytes - peak.start_bytes < 60 * MIB:
            pages[0] ^= 1  # hold the pages until the sampler has looked
        del pages
    assert peak.peak_bytes - peak.start_bytes >= 60 * MIB
    assert pss_bytes() < peak.peak_bytes


def test_peak_memory_of_another_process_outlives_it():
    code = f"import sys; pages = bytearray(b'x') * {64 * MIB}; print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with PeakMemory(child.pid, interval_s=0.001) as peak:
            child.communicate(b"\n")
    assert peak.peak_bytes >= 64 * MIB


@pytest.mark.parametrize("measure", [pss_bytes, private_bytes, data_pss_bytes])
def test_a_process_that_does_not_exist_is_an_error_that_names_it(measure):
    with pytest.raises(MissingRuntimeError, match=r"/proc/4194999/smaps"):
        measure(4194999)  # above the kernel's largest process id


def test_held_bytes_count_a_mapped_file_once_however_many_map_it(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(32 * MIB))
    code = (
        "import mmap, sys; m = mmap.mmap(open(sys.argv[1], 'rb').fileno(), 0, prot=mmap.PROT_READ)"
        "; sum(m[::4096]); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        grown, _, _ = two_mappings(path, "held")
        other.communicate(b"\n")
    assert 32 * MIB <= grown < 34 * MIB


def test_held_bytes_count_private_pages_and_no_library():
    before = held_bytes([])
    with mmap.mmap(-1, 32 * MIB) as pages:
        for _ in range(32):
            pages.write(os.urandom(MIB))
        assert held_bytes([]) - before >= 31 * MIB
    assert held_bytes([]) <= pss_bytes()
