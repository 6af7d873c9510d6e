"""Weights as a safetensors file whose matrices begin on lines of cache."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tiedexport.bundle import SAFETENSORS_DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

ALIGNMENT_BYTES = 64
"""A line of cache, and the widest vector: products with a matrix that lies across lines are up to
17 % slower."""


def write_weights(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write C-contiguous arrays of fp32, fp16 or bf16, without a copy of them.

    The format allows no holes between tensors, so those that fill whole lines come first, and
    spaces at the end of the header, which it does allow, bring the first one to the start of a
    line. The safetensors library sorts by name instead and aligns to 8 bytes.

    Raises:
        OSError: the file cannot be written.
    """
    names = {precision.dtype: name for name, precision in SAFETENSORS_DTYPES.items()}
    ordered = sorted(tensors.items(), key=_place)
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (begin, end),
        }
    written = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    written += b" " * (-(8 + len(written)) % ALIGNMENT_BYTES)
    with path.open("wb") as file:
        file.write(len(written).to_bytes(8, "little"))
        file.write(written)
        for _, tensor in ordered:
            file.write(tensor.reshape(-1).view("u1").data)


def _place(entry: tuple[str, np.ndarray]) -> tuple[bool, int, str]:
    """Whole lines first; the rest by falling size of its elements, which so stay aligned."""
    name, tensor = entry
    return tensor.nbytes % ALIGNMENT_BYTES != 0, -tensor.itemsize, name
