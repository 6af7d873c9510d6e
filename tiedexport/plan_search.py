"""Which weights an engine plan holds, and how often: its bytes are searched, in one sweep.

No call of TensorRT reads weights back, but a plan holds those that are baked into it element by
element: dense ones row by row, kernels with their channels last, each in the type that it is
computed in, contiguous or with every row filled up to some alignment.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from tiedexport import copies
from tiedexport.copies import chance
from tiedexport.copies.candidates import sample_positions
from tiedexport.copies.compare import largest_difference
from tiedexport.copies.types import SIGNIFICANDS, Route, bits, routes
from tiedexport.copies.views import View, orders
from tiedexport.stored import FileContent, Place, StoredTensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_COMPUTED_IN = tuple(np.dtype(kind) for kind in (np.float32, np.float16, ml_dtypes.bfloat16))
_ALIGNMENTS = (4, 8, 16, 32, 64, 128)
_KEY = 8
"""Bytes by which a layout is recognised; their first two sort out nearly all others."""

_PIECE = 1 << 24
_STARTS = 16

_OVERHEAD_BYTES = 157_286


@dataclass(frozen=True)
class Found:
    """One occurrence of a weight in a plan.

    Attributes:
        weight: as it was given.
        offset: of its first byte in the plan.
        view: the order in which it lies there.
        route: the types that it was cast to, the last of them the one that it has there.
        size_bytes: from its first byte to its last, with what fills up its rows.
    """

    weight: StoredTensor
    offset: int
    view: View
    route: Route
    size_bytes: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """That it has there."""
        return self.route[-1] if self.route else self.weight.dtype

    @property
    def form(self) -> str:
        """How it follows from the weight: "same", "transposed", "cast", "cast and transposed"."""
        return copies.form_of(self.view, self.route)

    def form_beside(self, first: Found) -> str:
        """How it follows from another occurrence of the weight, which may be transposed itself."""
        moved = "same" if self.view == first.view else "transposed"
        cast = () if self.dtype == first.dtype else (self.dtype,)
        return copies.form_of(replace(self.view, form=moved), cast)


@dataclass(frozen=True)
class PlanContents:
    """What a plan holds of some weights.

    Attributes:
        found: every occurrence, by offset.
        size_bytes: of the plan.
        unaccounted_bytes: of the plan without what was found: kernels, tables, and whatever form
            of a weight was not recognised.
    """

    found: tuple[Found, ...]
    size_bytes: int
    unaccounted_bytes: int

    def may_hide_weights(self, layers: int) -> bool:
        """Whether more is unaccounted for than the kernels of so many layers take.

        Plans of TensorRT-RTX without any weight take 11 KB to 0.15 MiB a layer, and as much again.
        A smaller weight in an unknown form may hide in that, too.
        """
        return self.unaccounted_bytes > _OVERHEAD_BYTES * (layers + 1)


class PlanSearch:
    """A search for some weights, in every order of their axes and in every type of a product.

    A weight that is itself a copy of another is not searched for again. Weights of less than 8
    bytes, and those that are equal to others by chance (`copies.chance`), cannot be told from
    other bytes and stay unaccounted for.

    Raises:
        BadInputError: a weight's file cannot be read.
    """

    def __init__(self, weights: Sequence[StoredTensor]) -> None:
        self.weights = weights
        self._layouts: dict[int, list[tuple[_Layout, int]]] = defaultdict(list)
        repeated = {id(copy.tensor) for group in copies.find(weights) for copy in group.copies}
        for weight in weights:
            if id(weight) not in repeated and _can_be_found(weight):
                for layout in _layouts(weight):
                    if (anchor := layout.anchor) is not None:
                        self._layouts[anchor[0]].append((layout, anchor[1]))

    def contents(self, plan: Path) -> PlanContents:
        """What a plan holds of the weights.

        Raises:
            BadInputError: the plan or a weight's file cannot be read.
        """
        content = FileContent(plan, 0, np.dtype("<u2"))
        size = plan.stat().st_size
        found: dict[tuple[int, int], Found] = {}
        keys = np.array(sorted(self._layouts), np.uint64)
        for position, key in _positions(content, size, keys):
            for layout, at in self._layouts[key]:
                place = position - at, id(layout.weight)
                if place not in found and layout.is_at(plan, position - at, size):
                    found[place] = layout.found(position - at)
        ordered = tuple(found[place] for place in sorted(found))
        return PlanContents(ordered, size, size - _covered(ordered))


def weights_in_plan(plan: Path, weights: Sequence[StoredTensor]) -> PlanContents:
    """Search one plan for weights, as `PlanSearch` does.

    Raises:
        BadInputError: the plan or a weight's file cannot be read.
    """
    return PlanSearch(weights).contents(plan)


@dataclass(frozen=True)
class _Layout:
    """A weight in one order and type, its rows `pitch` bytes apart."""

    weight: StoredTensor
    view: View
    route: Route
    columns: int
    pitch: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.route[-1] if self.route else self.weight.dtype

    @property
    def size_bytes(self) -> int:
        rows = self.view.size // self.columns
        return (rows - 1) * self.pitch + self.columns * self.dtype.itemsize

    @cached_property
    def anchor(self) -> tuple[int, int] | None:
        """Eight telling bytes and how far from the start they are; None if none tell anything."""
        count = -(-_KEY // self.dtype.itemsize)
        starts = np.unique(np.linspace(0, self.view.size - count, _STARTS).astype(np.int64))
        inner = self.view.shape[-1] if self.view.shape else 1
        over = np.maximum(0, starts % inner + count - inner)
        starts = np.maximum(0, starts - over) if inner >= count else starts - starts % inner
        best: tuple[int, int, int] | None = None
        for start in starts.tolist():
            key, different = self._key(start, count)
            if different and (best is None or different > best[0]):
                best = different, key, self.position(start)
        return None if best is None else best[1:]

    def position(self, index: int) -> int:
        """Of an element, in bytes from the start."""
        row, column = divmod(index, self.columns)
        return row * self.pitch + column * self.dtype.itemsize

    def _key(self, start: int, count: int) -> tuple[int, int]:
        """The eight bytes from an element on, and how many different elements they hold; 0: few."""
        indices = np.arange(start, min(start + count, self.view.size))
        elements = bits(self.weight.content.sample(self.view.origins(indices)), self.route)
        raw, held = bytearray(_KEY), []
        for index, element in zip(indices.tolist(), elements, strict=True):
            at = self.position(index) - self.position(start)
            if at + self.dtype.itemsize <= _KEY:
                raw[at : at + self.dtype.itemsize] = element.tobytes()
                held.append(int(element))
        different = len(set(held) - {0})
        return int.from_bytes(raw, "little"), different if different >= min(2, len(held)) else 0

    def is_at(self, plan: Path, offset: int, size: int) -> bool:
        """Whether every element is where this layout has it in a plan of `size` bytes."""
        if offset < 0 or offset + self.size_bytes > size:
            return False
        content = _Pitched(plan, offset, self)
        positions = sample_positions(self.view.size)
        ours = self.weight.content.sample(self.view.origins(positions))
        if not np.array_equal(bits(ours, self.route), bits(content.sample(positions))):
            return False
        there = StoredTensor(
            "", Place(str(plan), offset, self.size_bytes), self.dtype, self.view.shape, content
        )
        return largest_difference(self.weight, there, self.view, self.route, 0.0) is not None

    def found(self, offset: int) -> Found:
        return Found(self.weight, offset, self.view, self.route, self.size_bytes)


class _Pitched:
    """Elements of rows that are some bytes apart in a file."""

    def __init__(self, path: Path, offset: int, layout: _Layout) -> None:
        self._path, self._offset, self._layout = path, offset, layout
        self._whole = FileContent(path, offset, layout.dtype)

    def read(self, start: int, count: int) -> np.ndarray:
        layout = self._layout
        if layout.pitch == layout.columns * layout.dtype.itemsize:
            return self._whole.read(start, count)
        parts = []
        while count > 0:
            run = min(count, layout.columns - start % layout.columns)
            at = self._offset + layout.position(start)
            parts.append(FileContent(self._path, at, layout.dtype).read(0, run))
            start, count = start + run, count - run
        return np.concatenate(parts)

    def sample(self, indices: np.ndarray) -> np.ndarray:
        return np.concatenate([self.read(int(index), 1) for index in indices])

    def read_ahead(self, count: int) -> None:
        self._whole.read_ahead(self._layout.size_bytes // self._layout.dtype.itemsize)


def _can_be_found(weight: StoredTensor) -> bool:
    if weight.length < chance.LEAST_ELEMENTS:
        return weight.length * weight.dtype.itemsize >= _KEY
    return chance.informative(weight)


def _layouts(weight: StoredTensor) -> Iterator[_Layout]:
    """Every way in which a plan may hold a weight."""
    kinds = _COMPUTED_IN if weight.dtype in SIGNIFICANDS else ()
    ways: dict[Route, None] = dict.fromkeys([()])
    for kind in kinds:
        wider = kind.itemsize > weight.dtype.itemsize
        ways |= dict.fromkeys([(kind,)] if wider else routes(weight.dtype, kind))
    for view in orders(weight.elements):
        for route in ways:
            width = (route[-1] if route else weight.dtype).itemsize
            # An axis of one channel may be filled up as well as any other row.
            innermost = [1] if 1 in weight.shape else []
            for columns in reversed([*innermost, *accumulate(reversed(view.shape), mul)]):
                row = columns * width
                aligned = {-(-row // alignment) * alignment for alignment in _ALIGNMENTS} - {row}
                last = columns == view.size
                for pitch in [row] if last else sorted(aligned):
                    yield _Layout(weight, view, route, columns, pitch)


def _positions(plan: FileContent, size: int, keys: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where in a plan one of some keys stands, at even offsets, in order."""
    starts = np.zeros(1 << 16, bool)
    starts[(keys & np.uint64(0xFFFF)).astype(np.int64)] = True
    shifts = np.arange(0, 64, 16, dtype=np.uint64)
    for begin in range(0, size // 2, _PIECE):
        words = plan.read(begin, min(_PIECE + 3, size // 2 - begin))
        likely = np.flatnonzero(starts[words[:-3]])
        seen = words[likely[:, None] + np.arange(4)].astype(np.uint64) << shifts
        values = np.bitwise_or.reduce(seen, axis=1)
        for hit in np.flatnonzero(np.isin(values, keys)):
            yield 2 * (begin + int(likely[hit])), int(values[hit])


def _covered(found: Sequence[Found]) -> int:
    covered = end = 0
    for occurrence in found:
        stop = occurrence.offset + occurrence.size_bytes
        covered += max(0, stop - max(end, occurrence.offset))
        end = max(end, stop)
    return covered
