"""Pages show what was recorded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def test_the_tables_are_those_of_the_recorded_results() -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "pages.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
