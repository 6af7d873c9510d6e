"""Equality of weights by content: the same, transposed, cast to another type, or blocked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiedexport.copies import chance
from tiedexport.copies.candidates import Candidates
from tiedexport.copies.compare import largest_difference
from tiedexport.copies.types import by_width

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tiedexport.copies.candidates import Candidate
    from tiedexport.copies.types import Route
    from tiedexport.copies.views import View
    from tiedexport.stored import StoredTensor

    Proposing = Callable[[int, set[int]], Iterator[Candidate]]


@dataclass(frozen=True)
class Copy:
    """A stored tensor that repeats another.

    `tensor` is `original.transpose(axes).reshape(tensor.shape).astype(tensor.dtype)`, unless `form`
    begins with "permuted": then a runtime's blocked layout separates them and `axes` is empty.

    Attributes:
        form: "same", "transposed", "cast", "cast and transposed", "permuted (…)".
        difference: largest |original - copy| over all elements; 0 unless `atol` admitted more.
        exact: no bit differs, but for NaNs that a cast made. With `atol` the sign of a zero and the
            payload of a NaN may, at a difference of 0.
    """

    tensor: StoredTensor
    form: str
    axes: tuple[int, ...]
    difference: float = 0.0
    exact: bool = True


@dataclass(frozen=True)
class Group:
    """A stored weight and every other tensor that repeats it, in the order given.

    The original is the first of the widest type, a flat one last: it has no axes to transpose.
    Tensors of one place stand here as copies of form "same", and count once by `place`.
    """

    original: StoredTensor
    copies: tuple[Copy, ...]


def find(tensors: Iterable[StoredTensor], *, atol: float = 0.0) -> list[Group]:
    """Every weight that is stored or named more than once, by content.

    Samples of each tensor decide who could be a copy; only candidates are compared in full, piece
    by piece. Elements are compared by their bits, so that one may stand for the other everywhere.
    Tensors that are equal by chance are left out (`copies.chance`): fewer than 16 elements,
    constants, identities, masks, arithmetic and geometric progressions. Other tables that a formula
    gives, as sines of positions, are copies like any other.

    Args:
        tensors: of any number of files.
        atol: also take tensors of one type whose elements differ by at most this. They form groups
            of their own behind the others, among the originals and the tensors without a copy.

    Raises:
        BadInputError: a file ended or failed while it was read.
    """
    stored = [tensor for tensor in tensors if tensor.length >= chance.LEAST_ELEMENTS]
    groups, single = _grouped(stored, Candidates(stored).equal_to, 0.0)
    if atol > 0.0:
        near = Candidates(single)
        groups += _grouped(single, lambda index, left: near.close_to(index, left, atol), atol)[0]
    return groups


def _grouped(
    stored: Sequence[StoredTensor], candidates: Proposing, atol: float
) -> tuple[list[Group], list[StoredTensor]]:
    """The groups, and the tensors that are no copy of another, both in the order given."""
    left, groups, originals = set(range(len(stored))), {}, set(range(len(stored)))
    weighty: dict[int, bool] = {}
    for index in sorted(left, key=lambda i: _precedence(stored[i]), reverse=True):
        if index not in left:
            continue
        left.discard(index)
        copies = {}
        for candidate in candidates(index, left):
            other = candidate.index
            if other not in weighty:
                weighty[other] = chance.informative(stored[other])
            if not weighty[other] or other not in left:
                continue
            if (found := _copy(stored[index], stored[other], candidate, atol)) is not None:
                copies[other] = found
                left.discard(other)
        if copies:
            groups[index] = Group(stored[index], tuple(copies[i] for i in sorted(copies)))
            originals -= copies.keys()
    return [groups[i] for i in sorted(groups)], [stored[i] for i in sorted(originals)]


def _precedence(tensor: StoredTensor) -> tuple[tuple[int, int], bool]:
    return by_width(tensor.dtype), sum(length > 1 for length in tensor.elements) > 1


def _copy(
    original: StoredTensor, other: StoredTensor, candidate: Candidate, atol: float
) -> Copy | None:
    view, route = candidate.view, candidate.route
    one_place = original.place == other.place and original.place.offset >= 0
    if one_place and view.form == "same" and not route:
        return Copy(other, "same", view.declared_axes)
    difference = largest_difference(original, other, view, route, atol)
    if difference is None:
        return None
    return Copy(other, form_of(view, route), view.declared_axes, difference, exact=atol == 0.0)


def form_of(view: View, route: Route) -> str:
    """The words for a view that was cast along a route."""
    if not route:
        return view.form
    return "cast" if view.form == "same" else f"cast and {view.form}"
