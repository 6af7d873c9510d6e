"""Arrays among which copies are searched, for the suites of `tiedexport.copies`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiedexport.copies import find
from tiedexport.stored import StoredTensor, in_memory

FP16, FP32, FP64 = (np.dtype(kind) for kind in (np.float16, np.float32, np.float64))


def random(*shape: int, seed: int = 0, dtype: Any = FP32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def stored(**arrays: np.ndarray) -> list[StoredTensor]:
    return [in_memory(name, np.ascontiguousarray(array)) for name, array in arrays.items()]


def found(**arrays: np.ndarray) -> dict[str, str]:
    """Copy → "form of original"."""
    return {
        copy.tensor.name: f"{copy.form} of {group.original.name}"
        for group in find(stored(**arrays))
        for copy in group.copies
    }
