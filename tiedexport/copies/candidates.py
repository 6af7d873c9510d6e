"""Which tensors could be copies of which: told from samples at fixed positions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.copies.types import Route, bits, routes
from tiedexport.copies.views import View, sizes, views

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.stored import StoredTensor

_SAMPLES = 64


@dataclass(frozen=True)
class Candidate:
    """The tensor at `index` agrees with a view of another, cast along a route, at all samples."""

    index: int
    view: View
    route: Route


class Candidates:
    """An index of tensors by their samples: a look-up instead of a comparison with every other."""

    def __init__(self, stored: Sequence[StoredTensor]) -> None:
        self._stored = stored
        self._of_length: dict[int, list[int]] = defaultdict(list)
        for index, tensor in enumerate(stored):
            self._of_length[tensor.length].append(index)
        self._sampled = {
            index: tensor.content.sample(sample_positions(tensor.length))
            for index, tensor in enumerate(stored)
            if self._has_company(tensor)
        }
        self._same: dict[tuple[int, np.dtype[Any], bytes], list[int]] = defaultdict(list)
        self._cast: dict[tuple[int, np.dtype[Any], bytes], list[int]] = defaultdict(list)
        for index, sample in self._sampled.items():
            key = stored[index].length, stored[index].dtype
            self._same[*key, bits(sample).tobytes()].append(index)
            self._cast[*key, bits(sample, any_nan=True).tobytes()].append(index)

    def equal_to(self, index: int, left: set[int]) -> Iterator[Candidate]:
        """Those among `left` that may equal a view of the tensor at `index`, cast or not."""
        for view, sample in self._views(index, left):
            dtypes = {self._stored[i].dtype for i in self._of_length[view.size] if i in left}
            for dtype in sorted(dtypes, key=str):
                for route in routes(self._stored[index].dtype, dtype):
                    known = self._cast if route else self._same
                    key = bits(sample, route, any_nan=bool(route)).tobytes()
                    for other in known.get((view.size, dtype, key), ()):
                        if other in left:
                            yield Candidate(other, view, route)

    def close_to(self, index: int, left: set[int], atol: float) -> Iterator[Candidate]:
        """Those among `left`, of the same type, that may be within `atol` of a view."""
        for view, sample in self._views(index, left):
            if view.form.startswith("permuted"):
                continue
            others = [
                i
                for i in self._of_length[view.size]
                if i in left and self._stored[i].dtype == self._stored[index].dtype
            ]
            if not others:
                continue
            table = np.stack([self._sampled[i] for i in others]).astype(np.float64)
            with np.errstate(invalid="ignore"):
                far = np.abs(table - sample.astype(np.float64)) > atol  # NaN settles nothing here
            for other in np.flatnonzero(~far.any(axis=1)):
                yield Candidate(others[other], view, ())

    def _views(self, index: int, left: set[int]) -> Iterator[tuple[View, np.ndarray]]:
        """Views of a tensor that fit something that is left, each with its samples."""
        tensor = self._stored[index]
        if index not in self._sampled:
            return
        shapes = {
            self._stored[i].elements
            for length in sizes(tensor.elements)
            for i in self._of_length[length]
            if i in left
        }
        for view in views(tensor.elements, shapes):
            yield view, _sample(tensor, view)

    def _has_company(self, tensor: StoredTensor) -> bool:
        """Whether another tensor has as many elements, blocked and padded or not."""
        lengths = sizes(tensor.elements)
        return sum(len(self._of_length.get(length, ())) for length in lengths) > 1 or (
            tensor.length in self._padded_lengths()
        )

    def _padded_lengths(self) -> set[int]:
        if not hasattr(self, "_padded"):
            self._padded = {size for t in self._stored for size in sizes(t.elements) - {t.length}}
        return self._padded


def _sample(tensor: StoredTensor, view: View) -> np.ndarray:
    """The elements of a view at the fixed positions of its size."""
    origins = view.origins(sample_positions(view.size))
    sample = tensor.content.sample(np.minimum(origins, tensor.length - 1))
    return np.where(origins < tensor.length, sample, np.zeros(1, sample.dtype))


@lru_cache(maxsize=1024)
def sample_positions(length: int) -> np.ndarray:
    """Pseudo-random, in order, the same for all tensors of a length; all of a small one."""
    if length <= _SAMPLES:
        return np.arange(length)
    return np.unique(np.random.default_rng(length).integers(length, size=_SAMPLES))
