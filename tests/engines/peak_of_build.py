"""Prints by how many bytes the second build of two raises the peak: peak_of_build.py TWO.pickle."""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path

from tiedexport.engines import builder_for


def peak_bytes() -> int:
    """The most that this program has held; unlike getrusage's, not also the one before exec."""
    kibibytes = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert kibibytes is not None
    return int(kibibytes[1]) << 10


def main(requests: Path) -> None:
    """The first build is small, and loads what every build needs."""
    peaks = []
    for request in pickle.loads(requests.read_bytes()):
        builder_for(request.target).build(request)
        peaks.append(peak_bytes())
    sys.stdout.write(str(peaks[1] - peaks[0]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
