"""What the tests of the encoder share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tiedexport.encode import encode
from tiedexport.session import open_session

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.results.encode import EncodeResult

ROWS, BATCH = 500, 16
X = np.random.default_rng(0).random((ROWS, 20), np.float32)
"""Samples of the small dense model."""

HOW: dict[str, Any] = {"runtime": "torch", "threads": 1, "batch": BATCH, "part_rows": 96}


def run(bundle: Bundle, inputs: Any, output: Path, **options: Any) -> EncodeResult:
    """Encode in small parts."""
    given = inputs if isinstance(inputs, list) else [inputs]
    return encode(bundle.path, given, output, **{**HOW, **options})


def answers(bundle: Bundle, x: np.ndarray, verb: str = "encode") -> np.ndarray:
    """What a session makes of samples, in batches as `run` cuts them."""
    part = HOW["part_rows"]
    with open_session(bundle, runtime="torch", threads=1) as session:
        return np.concatenate(
            [
                getattr(session, verb)(x[at : min(at + BATCH, begin + part)])
                for begin in range(0, len(x), part)
                for at in range(begin, min(begin + part, len(x)), BATCH)
            ]
        )


def codes(table: pa.Table, name: str = "code") -> np.ndarray:
    """A column of lists of one size as [n, size]."""
    lists = table[name].combine_chunks()
    return np.asarray(lists.flatten()).reshape(len(lists), -1)


def lists_of(x: np.ndarray) -> pa.Array:
    """Samples [n, m] as a column of lists of one size."""
    return pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
