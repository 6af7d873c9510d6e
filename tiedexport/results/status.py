"""What became of one row of any result."""

from __future__ import annotations

from typing import Literal

Status = Literal["passed", "failed", "not run"]
"""A row that is not "passed" says why; one that did not run never counts as passed."""
