"""Pages show what was recorded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize("script", ["pages.py", "scaling.py"])
def test_the_tables_are_those_of_the_recorded_results(script: str) -> None:
    done = subprocess.run(
        [sys.executable, BENCH / script, "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
