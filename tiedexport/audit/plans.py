"""The stage of engine plans: which weights their bytes hold, and how often."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tiedexport.audit import graphs, weights
from tiedexport.audit.table import ORIGINAL, copy_of, measured, not_run, shown, verdict
from tiedexport.plan_search import PlanSearch
from tiedexport.results.ties import STAGE_NAMES, Stage, StoredCopy, TiedWeight

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from tiedexport.audit.given import Given
    from tiedexport.bundle import Bundle
    from tiedexport.manifest import PlanRecord
    from tiedexport.plan_search import Found
    from tiedexport.stored import StoredTensor

_STAGE = STAGE_NAMES[5]


def examine(given: Given, _before: Sequence[Stage]) -> list[Stage]:
    """One row over the given plans, and one over those of a bundle for each target and precision.

    A weight in two plans of a row is stored twice.

    Raises:
        BadInputError: a plan, or what it was built from, cannot be read.
    """
    rows = [] if given.bundle is None else _of_bundle(given.bundle)
    if given.plans:
        rows.append(_of_files(given))
    if not rows and given.bundle is not None:
        return [not_run(_STAGE, "the bundle holds no plan; tiedexport build --target makes them")]
    return rows or [not_run(_STAGE, "no plan was given; give it beside what it was built from")]


def _of_files(given: Given) -> Stage:
    """Plans of which nothing is known but what they were built from."""
    declared = None
    if given.graphs:
        stored = graphs.read(given.graphs)
    elif given.weights:
        stored, declared = weights.read(given.weights)
    else:
        assert given.bundle is not None  # a plan alone was refused
        precision, *_ = given.bundle.manifest.weights
        stored = weights.safetensors(given.bundle.weights_path(precision))
        declared = list(given.bundle.manifest.ties)
    subject = ", ".join(shown(str(path)) for path in given.plans)
    source = measured(_STAGE, subject, stored, declared=declared)
    uses = {tie.name: tie.uses for tie in source.ties}
    return _searched(subject, given.plans, PlanSearch(stored), uses)


def _of_bundle(bundle: Bundle) -> list[Stage]:
    groups: dict[tuple[str, str, str], list[PlanRecord]] = defaultdict(list)
    for plan in bundle.manifest.plans:
        groups[plan.target, plan.precision, plan.weights].append(plan)
    uses = {tie.weight: tie.uses for tie in bundle.manifest.ties}
    searches = {
        precision: PlanSearch(weights.safetensors(bundle.weights_path(precision)))
        for precision in {plan.precision for plan in bundle.manifest.plans}
    }
    return [
        _searched(
            f"{target} {precision}, weights {form}",
            [bundle.path / plan.file for plan in plans],
            searches[plans[0].precision],
            uses,
            {b.name for plan in plans for b in plan.bindings if b.role == "weight"},
        )
        for (target, precision, form), plans in groups.items()
    ]


def _searched(
    subject: str,
    plans: Sequence[Path],
    search: PlanSearch,
    uses: dict[str, tuple[str, ...]],
    bound: Collection[str] = (),
) -> Stage:
    """One row over plans.

    Args:
        subject: what they are.
        plans: looked at together.
        search: for the weights that they were built from.
        uses: tied weight → its uses.
        bound: weights that the plans take as inputs, from the place where they are stored. Where
            they take all of them, their builder has seen none, and none can hide in them.
    """
    occurrences: dict[int, list[tuple[Path, Found]]] = defaultdict(list)
    doubts = []
    stored = search.weights
    matrices = [tensor for tensor in stored if len(tensor.shape) > 1]
    layers = sum(max(1, len(uses.get(matrix.name, ()))) for matrix in matrices)
    baked = any(tensor.name not in bound for tensor in stored)
    for path in plans:
        contents = search.contents(path)
        for found in contents.found:
            occurrences[id(found.weight)].append((path, found))
        if baked and contents.may_hide_weights(layers):
            doubts.append(f"{shown(str(path))} has {contents.unaccounted_bytes:,}")
    held = [
        (tensor.name, _copies(tensor, tensor.name in bound, occurrences[id(tensor)]))
        for tensor in stored
    ]
    return _row(subject, held, uses, doubts)


def _copies(
    tensor: StoredTensor, bound: bool, occurrences: Sequence[tuple[Path, Found]]
) -> list[StoredCopy]:
    """A weight where it is stored, if plans take it from there, then its bytes in plans."""
    copies = [copy_of(tensor)] if bound else []
    for path, found in occurrences:
        beside = found.form if bound else found.form_beside(occurrences[0][1])
        copies.append(
            StoredCopy(
                tensor.name,
                shown(str(path)),
                found.offset,
                found.size_bytes,
                found.dtype.name,
                tensor.shape,
                beside if copies else ORIGINAL,
            )
        )
    return copies


def _row(
    subject: str,
    held: Sequence[tuple[str, Sequence[StoredCopy]]],
    uses: dict[str, tuple[str, ...]],
    doubts: Sequence[str],
) -> Stage:
    """Weights with their copies, and plans with bytes that nobody knows → a row."""
    ties = tuple(
        _tie(name, copies, uses.get(name, ()))
        for name, copies in held
        if len(copies) > 1 or (copies and name in uses)
    )
    stored_bytes = sum(copy.size_bytes for _, copies in held for copy in copies)
    needed_bytes = stored_bytes - sum(tie.stored_bytes - tie.needed_bytes for tie in ties)
    status, reason = verdict(ties), ""
    if doubts and status != "copies":
        status = "not proven"
        reason = f"bytes in which a weight could hide in an unknown form: {', '.join(doubts)}"
    elif not stored_bytes:
        reason = "none of these weights is in it: they are its inputs, or it was built from others"
    return Stage(_STAGE, status, subject, reason, ties, needed_bytes, stored_bytes)


def _tie(name: str, copies: Sequence[StoredCopy], uses: tuple[str, ...]) -> TiedWeight:
    if len(copies) == 1:
        copies = [replace(copies[0], uses=uses)]
    stored_bytes = sum(copy.size_bytes for copy in copies)
    return TiedWeight(name, tuple(copies), copies[0].size_bytes, stored_bytes)
