"""Copies that give way: of each group of equal tensors one is kept, the others follow from it.

What stands in the place of a copy depends on how it follows from the kept one:

* the same: the kept one itself;
* its transpose, read by a Gemm: the kept one, and transB turned over;
* otherwise a Cast, a Transpose and a Reshape, as many as are needed, in front of the main graph.

The kept one lives in the main graph, where subgraphs see it; in a graph of another file it is an
initializer of its own, whose bytes are stored once (`retie.write`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from tiedexport import copies
from tiedexport.copies import Copy
from tiedexport.results.ties import Left, Mend
from tiedexport.retie.forms import dtype_of, is_made, key, label, ops_between, viewed, whole
from tiedexport.retie.graph import constant_value
from tiedexport.retie.kept import Kept
from tiedexport.stored import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from tiedexport.copies import Group
    from tiedexport.retie.graph import GraphFile
    from tiedexport.stored import StoredTensor

NODE_BYTES = 128
"""About what a Transpose node with its names takes: a smaller copy would not save any."""

_ABSORBING = {"Gemm", "MatMul"}


@dataclass(frozen=True)
class Change:
    """A stored weight whose uses now read another that differs a little, which was accepted.

    Attributes:
        file: index of the graph's file.
        old: an initializer of the main graph.
        new: makes the array that stands in its place, of the same shape and dtype.
    """

    file: int
    old: StoredTensor
    new: Callable[[], np.ndarray]


@dataclass
class Outcome:
    """What was mended, what stays and why, and what could be mended if it were accepted."""

    mends: list[Mend] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    proposals: list[Mend] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    touched: set[Place] = field(default_factory=set)
    left_keys: set[tuple[str, str, str]] = field(default_factory=set)


@dataclass(frozen=True)
class Rules:
    """What may be done.

    Attributes:
        atol: also look for weights whose elements differ by at most this.
        accept: tie these as well.
        gemm_flags: a Gemm may transpose by itself.
        smallest_bytes: copies below this size in different files stay.
    """

    atol: float = 0.0
    accept: bool = False
    gemm_flags: bool = True
    smallest_bytes: int = 0


def mend(files: Sequence[GraphFile], rules: Rules) -> Outcome:
    """Tie what is equal, then propose or tie what is nearly equal; the graphs change in place."""
    mender = _Mender(files, rules)
    # What is transposed and reshaped is found from one side only, which the order decides.
    for order in (_as_kept, list, _reversed):
        mender.run(0.0, order)
    if rules.atol:
        mender.run(rules.atol, _as_kept)
    return mender.outcome


class _Mender:
    """Searches through all files for copies and mends them; what each search did is remembered."""

    def __init__(self, files: Sequence[GraphFile], rules: Rules) -> None:
        self.outcome = Outcome()
        self._files, self._rules = files, rules
        self._file_of = {file.path: i for i, file in enumerate(files)}
        self._followers = defaultdict[Place, list[Copy]](list)
        self._left: set[Place] = set()
        self._labels: dict[tuple[object, str], str] = {}  # before a new node renumbers the scopes

    def run(
        self, atol: float, order: Callable[[Sequence[StoredTensor]], Sequence[StoredTensor]]
    ) -> None:
        """Mend what differs by at most this; in a group the first in this order is kept."""
        self._fixed: dict[Place, str] = {}
        self._freed: set[Place] = set()
        tensors = [tensor for file in self._files for tensor in file.tensors()]
        if not atol:  # each order looks at what those before it did not settle
            tensors = [tensor for tensor in tensors if tensor.place not in self._left]
        for tensor in tensors:
            self._labels.setdefault((tensor.handle, tensor.name), label(tensor))
            if reason := self._file(tensor).why_fixed(tensor):
                self._fixed.setdefault(tensor.place, reason)
        for group in copies.find(order(tensors), atol=atol):
            for part in self._movable(group, atol):
                self._mend(part)

    def _movable(self, group: Group, atol: float) -> list[Group]:
        """The groups that are left of one without the tensors that must stay."""
        members = [group.original, *(copy.tensor for copy in group.copies)]
        fixed = [tensor for tensor in members if tensor.place in self._fixed]
        if not fixed:
            return [group]
        forms = {copy.tensor: copy for copy in group.copies}
        for tensor in fixed:
            if tensor is not group.original:
                self._leave(group.original, forms[tensor], self._fixed[tensor.place])
        rest = copies.find([t for t in members if t.place not in self._fixed], atol=atol)
        if group.original.place in self._fixed:
            gone = {copy.tensor for part in rest for copy in part.copies}
            for tensor in (t for t in members if t not in gone and t not in fixed):
                self._leave(group.original, forms[tensor], self._fixed[group.original.place])
        return rest

    def _mend(self, group: Group) -> None:
        kept = Kept(self._files, self._file_of, group)
        self._freed.add(group.original.place)
        for copy in sorted(group.copies, key=lambda copy: copy.form != "same"):
            if copy.tensor.place == group.original.place:  # one physical copy already
                kept.adopt(self._file_of[Path(copy.tensor.home)], copy.tensor)
                continue
            if reason := self._why_not(group.original, copy):
                self._leave(group.original, copy, reason)
                continue
            index = self._file_of[Path(copy.tensor.home)]
            if not copy.exact and not self._rules.accept:
                self.outcome.proposals.append(self._record(group.original, copy, _how(copy)))
                continue
            how = kept.replace(index, copy, gemm_flags=self._rules.gemm_flags)
            self.outcome.mends.append(self._record(group.original, copy, how))
            self._freed.add(copy.tensor.place)
            self.outcome.touched |= {group.original.place, copy.tensor.place}
            if copy.exact:
                self._followers[group.original.place].append(copy)
            else:
                self._note_change(copy, partial(_from_original, group.original, copy))

    def _note_change(self, copy: Copy, new: Callable[[], np.ndarray]) -> None:
        """Note that a weight changes, and with it all that follow from it since the first round."""
        index = self._file_of[Path(copy.tensor.home)]
        if any(change.old == copy.tensor for change in self.outcome.changes):
            return
        self.outcome.changes.append(Change(index, copy.tensor, new))
        for follower in self._followers.get(copy.tensor.place, ()):
            self._note_change(follower, partial(_from_changed, new, follower))

    def _why_not(self, kept: StoredTensor, copy: Copy) -> str:
        """Why a copy has to stay; "" if it can follow from the kept one."""
        if copy.form.startswith("permuted"):
            return "in a runtime's blocked layout, which no ONNX node makes"
        file = self._file(copy.tensor)
        dtype, own = dtype_of(kept), dtype_of(copy.tensor)
        if dtype.is_floating_point() != own.is_floating_point() or (
            dtype != own and dtype.itemsize == own.itemsize and copy.form == "same"
        ):
            return f"of another type: {own.name}, not {dtype.name}"
        if dtype.bitwidth < 8 and (copy.form != "same" or kept.shape != copy.tensor.shape):
            return "of a type whose elements are packed, in another shape"
        ops = ops_between(kept, copy)
        for op in ops:
            if reason := file.why_unsupported(op, dtype if op == "Cast" else own):
                return reason
        if not is_made(kept, copy):
            return f"rounded to {own.name} at once: a Cast in ONNX Runtime rounds to FLOAT before"
        for tensor in (kept, copy.tensor):  # a graph may have to return what is elsewhere now
            reason = self._file(tensor).why_unsupported("Identity", dtype_of(tensor))
            if reason and "graph output" in tensor.uses:
                return reason
        elsewhere = copy.tensor.home != kept.home
        smallest = max(NODE_BYTES * bool(ops), self._rules.smallest_bytes * elsewhere)
        if copy.tensor.place.size_bytes < smallest:
            return "smaller than what would stand in its place"
        followers = self._followers.get(copy.tensor.place, ())
        if not copy.exact and not all(map(_overridable, (copy, *followers))):
            return (
                "nearly equal, but no initializer of the main graph: the change cannot be bounded"
            )
        return ""

    def _leave(self, kept: StoredTensor, copy: Copy, reason: str) -> None:
        if copy.tensor.place not in {kept.place, *self._left}:
            self._left.add(copy.tensor.place)
            self.outcome.left.append(Left(*self._labelled(kept, copy), copy.form, reason))
            self.outcome.left_keys.add(key(copy.tensor, self._file(copy.tensor).written_name))

    def _record(self, kept: StoredTensor, copy: Copy, how: str) -> Mend:
        place = copy.tensor.place
        saved = 0 if place in self._freed else place.size_bytes
        return Mend(*self._labelled(kept, copy), copy.form, how, saved, copy.difference)

    def _labelled(self, kept: StoredTensor, copy: Copy) -> tuple[str, str]:
        return self._labels[kept.handle, kept.name], self._labels[
            copy.tensor.handle, copy.tensor.name
        ]

    def _file(self, tensor: StoredTensor) -> GraphFile:
        return self._files[self._file_of[Path(tensor.home)]]


def _how(copy: Copy) -> str:
    return "shared" if copy.form == "same" else "Transpose"


def _from_original(original: StoredTensor, copy: Copy) -> np.ndarray:
    return viewed(whole(original), copy)


def _from_changed(new: Callable[[], np.ndarray], follower: Copy) -> np.ndarray:
    return viewed(new(), follower)


def _overridable(copy: Copy) -> bool:
    return not copy.tensor.scope and isinstance(copy.tensor.handle, ir.Value)


def _as_kept(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """Those first that others can follow from best.

    A flat weight has no axes to transpose. What only a Gemm or a MatMul reads could be read
    transposed as well, which suits a table of which a few rows are gathered less.
    """
    return sorted(tensors, key=lambda tensor: (-_rank(tensor), _only_multiplied(tensor)))


def _reversed(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    return list(reversed(tensors))


def _rank(tensor: StoredTensor) -> int:
    return sum(length > 1 for length in tensor.elements)


def _only_multiplied(tensor: StoredTensor) -> bool:
    """Whether all that reads a tensor can read its transpose for nothing."""
    value = constant_value(tensor.handle)
    return value is not None and all(use.node.op_type in _ABSORBING for use in value.uses())
