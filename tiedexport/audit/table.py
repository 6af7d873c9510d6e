"""Stored tensors → a row of the audit's table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tiedexport import copies
from tiedexport.copies.chance import informative
from tiedexport.results.ties import Stage, StoredCopy, TiedWeight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tiedexport.results.ties import StageName, StageStatus
    from tiedexport.spec import Tie
    from tiedexport.stored import Place, StoredTensor

ORIGINAL = "original"
MEMORY, DEVICE = "memory", "device"
"""In the place of a file; an offset is an address there, and none that anybody could look up."""


def not_run(name: StageName, reason: str, subject: str = "", *, counts: bool = True) -> Stage:
    """A row that says why there is nothing to see."""
    return Stage(name, "not run", subject, reason, counts=counts)


def measured(
    name: StageName,
    subject: str,
    tensors: Sequence[StoredTensor],
    *,
    declared: Iterable[Tie] | None = None,
    reason: str = "",
    counts: bool = True,
) -> Stage:
    """Find every tie among tensors, and count its physical copies by place.

    Args:
        name: of the stage.
        subject: what was looked at.
        tensors: everything that is stored there.
        declared: the weights that somebody says are tied, with their uses. By default a weight of
            one place is a tie where several names or uses lead to it.
        reason: what the figures leave open.
        counts: whether the row decides the verdict.
    """
    uses = None if declared is None else {tie.weight: tie.uses for tie in declared}
    ties = tuple(_ties(tensors, uses))
    stored = sum(place.size_bytes for place in {tensor.place for tensor in tensors})
    needed = stored - sum(tie.stored_bytes - tie.needed_bytes for tie in ties)
    return Stage(name, verdict(ties), subject, reason, ties, needed, stored, counts)


def verdict(ties: Sequence[TiedWeight]) -> StageStatus:
    """What ties say together."""
    if any(len(tie.copies) > 1 for tie in ties):
        return "copies"
    return "one copy" if ties else "no tie"


def shown(file: str) -> str:
    """A file as short as it can be named from the current folder."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def copy_of(tensor: StoredTensor) -> StoredCopy:
    """A tensor as the one copy of a weight."""
    return _copy([(tensor, ORIGINAL)], several_homes=False)


def _ties(
    tensors: Sequence[StoredTensor], declared: dict[str, tuple[str, ...]] | None
) -> Iterator[TiedWeight]:
    """Where ties are declared these come first, before copies of what is no tie, such as biases."""
    grouped, others = set(), []
    for group in copies.find(tensors):
        members = [(group.original, ORIGINAL), *((c.tensor, c.form) for c in group.copies)]
        grouped |= {id(tensor) for tensor, _ in members}
        known = [tensor.name for tensor, _ in members if tensor.name in (declared or ())]
        tie = _tie(members, declared[known[0]] if declared and known else ())
        if declared is None or known:
            yield tie
        elif len(tie.copies) > 1:
            others.append(tie)
    for tensor in tensors:
        if id(tensor) in grouped:
            continue
        if declared is None and len(tensor.uses) > 1 and informative(tensor):
            yield _tie([(tensor, ORIGINAL)], ())
        elif declared is not None and tensor.name in declared:
            yield _tie([(tensor, ORIGINAL)], declared[tensor.name])
    yield from others


def _tie(members: Sequence[tuple[StoredTensor, str]], declared: tuple[str, ...]) -> TiedWeight:
    """One weight from each tensor that repeats it, and how."""
    places: dict[Place, list[tuple[StoredTensor, str]]] = {}
    for tensor, form in members:
        places.setdefault(tensor.place, []).append((tensor, form))
    several_homes = len({tensor.home for tensor, _ in members}) > 1
    physical = [_copy(here, several_homes) for here in places.values()]
    if declared and len(physical) == 1:
        physical = [replace(physical[0], uses=declared)]
    stored = sum(copy.size_bytes for copy in physical)
    return TiedWeight(members[0][0].name, tuple(physical), physical[0].size_bytes, stored)


def _copy(here: Sequence[tuple[StoredTensor, str]], several_homes: bool) -> StoredCopy:
    """The tensors of one place."""
    first, form = here[0]
    nowhere = first.place.file in (MEMORY, DEVICE) or first.place.offset < 0
    uses = dict.fromkeys(
        f"{shown(tensor.home)}: {use}" if several_homes else use
        for tensor, _ in here
        for use in tensor.uses or (tensor.name,) * (len(here) > 1)
    )
    return StoredCopy(
        name=first.name,
        file=shown(first.place.file),
        offset=None if nowhere else first.place.offset,
        size_bytes=first.place.size_bytes,
        dtype=str(first.dtype),
        shape=first.shape,
        form=form,
        uses=tuple(uses),
        scope=first.scope,
    )
