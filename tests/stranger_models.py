"""ONNX files as strangers bring them."""

from __future__ import annotations

from tests.broken_models import BROKEN
from tests.odd_models import ODD, OTHER, TRANSPOSE, WEIGHT, Stranger

__all__ = ["OTHER", "STRANGERS", "TRANSPOSE", "WEIGHT", "Stranger"]

STRANGERS: dict[str, Stranger] = ODD | BROKEN
"""Name → how to make the file, and whether it is broken."""
