"""Which tensors could be copies of which: told from samples at fixed positions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.copies.types import Route, bits, routes
from tiedexport.copies.views import View, sizes, views

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.stored import StoredTensor

_SAMPLES = 64

Key = tuple[int, np.dtype[Any]]
"""Number of elements and type."""


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
        self._shapes: dict[int, set[tuple[int, ...]]] = defaultdict(set)
        self._alike: dict[Key, list[int]] = defaultdict(list)
        for index in self._with_company():
            tensor = stored[index]
            self._shapes[tensor.length].add(tensor.elements)
            self._alike[tensor.length, tensor.dtype].append(index)
        self._of_bits: dict[tuple[int, np.dtype[Any], bool, bytes], list[int]] = defaultdict(list)
        for (length, dtype), indices in self._alike.items():
            for index, sample in zip(indices, self._samples[length, dtype], strict=True):
                for cast in (False, True):
                    key = length, dtype, cast, bits(sample, any_nan=cast).tobytes()
                    self._of_bits[key].append(index)

    def equal_to(self, index: int, left: set[int]) -> Iterator[Candidate]:
        """Those among `left` that may equal a view of the tensor at `index`, cast or not."""
        for view, sample in self._views(index):
            for dtype in self._dtypes[view.size]:
                for route in routes(self._stored[index].dtype, dtype):
                    cast = bool(route)
                    told = bits(sample, route, any_nan=cast).tobytes()
                    for other in self._of_bits.get((view.size, dtype, cast, told), ()):
                        if other in left:
                            yield Candidate(other, view, route)

    def close_to(self, index: int, left: set[int], atol: float) -> Iterator[Candidate]:
        """Those among `left`, of the same type, that may be within `atol` of a view."""
        for view, sample in self._views(index):
            key = view.size, self._stored[index].dtype
            if view.form.startswith("permuted") or key[1].kind == "c":
                continue
            with np.errstate(invalid="ignore", over="ignore"):
                far = np.abs(self._values(key) - sample.astype(np.float64)) > atol
            for row in np.flatnonzero(~far.any(axis=1)):  # NaN settles nothing here
                if (other := self._alike[key][row]) in left:
                    yield Candidate(other, view, ())

    def _views(self, index: int) -> Iterator[tuple[View, np.ndarray]]:
        """Views of a tensor that fit the shape of another, each with its samples."""
        tensor = self._stored[index]
        shapes = {shape for size in sizes(tensor.elements) for shape in self._shapes.get(size, ())}
        for view in views(tensor.elements, shapes):
            yield view, _sample(tensor, view)

    def _with_company(self) -> list[int]:
        """The tensors that have as many elements as another, or would have in a padded layout."""
        of_size: dict[int, set[int]] = defaultdict(set)
        for index, tensor in enumerate(self._stored):
            for size in sizes(tensor.elements):
                of_size[size].add(index)
        return sorted({i for indices in of_size.values() if len(indices) > 1 for i in indices})

    @cached_property
    def _samples(self) -> dict[Key, list[np.ndarray]]:
        return {
            (length, dtype): [
                self._stored[i].content.sample(sample_positions(length)) for i in indices
            ]
            for (length, dtype), indices in self._alike.items()
        }

    @cached_property
    def _dtypes(self) -> dict[int, list[np.dtype[Any]]]:
        dtypes: dict[int, list[np.dtype[Any]]] = defaultdict(list)
        for length, dtype in self._alike:
            dtypes[length].append(dtype)
        return dtypes

    def _values(self, key: Key) -> np.ndarray:
        """The samples as a table, [tensors, samples]."""
        if key not in self._tables:
            rows = self._samples.get(key, [])
            empty = np.zeros((0, len(sample_positions(key[0]))))
            self._tables[key] = np.stack(rows).astype(np.float64) if rows else empty
        return self._tables[key]

    @cached_property
    def _tables(self) -> dict[Key, np.ndarray]:
        return {}


def _sample(tensor: StoredTensor, view: View) -> np.ndarray:
    """The elements of a view at the fixed positions of its size."""
    origins = view.origins(sample_positions(view.size))
    sample = tensor.content.sample(np.minimum(origins, tensor.length - 1))
    return np.where(origins < tensor.length, sample, np.zeros(1, sample.dtype))


@cache
def sample_positions(length: int) -> np.ndarray:
    """Pseudo-random, in order, the same for all tensors of a length; all of a small one."""
    if length <= _SAMPLES:
        return np.arange(length)
    return np.unique(np.random.default_rng(length).integers(length, size=_SAMPLES))
