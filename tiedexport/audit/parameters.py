"""The stage of live modules: parameters and buffers by the memory that they lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from tiedexport.audit.table import measured, not_run
from tiedexport.errors import BadInputError, UsageError
from tiedexport.results.ties import STAGE_NAMES, Stage
from tiedexport.spec import Tie

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from tiedexport.audit.given import Given
    from tiedexport.results.ties import TieProof

_STAGE = STAGE_NAMES[0]


def examine(given: Given, _before: Sequence[Stage]) -> list[Stage]:
    """One row: a weight is tied where several names, or uses in a forward pass, share its bytes.

    Raises:
        UsageError, BadInputError: the module cannot be made, or cannot be run on `input_shape`.
    """
    if given.live is None or given.module is None:
        return [not_run(_STAGE, "no live module was given; give package.module:factory as well")]
    from tiedexport.tensors import readable, stored_tensor

    module, subject = given.live, given.module
    named = dict(_named(module))
    stored = [stored_tensor(name, t) for name, t in named.items() if readable(t)]
    if not stored:
        why = "its tensors hold no values" if named else "it has no parameters"
        return [not_run(_STAGE, why, subject)]
    unread = sorted(named.keys() - {tensor.name for tensor in stored})
    left_open = [f"not read: {', '.join(unread)} (no values, or no dense layout)"] * bool(unread)
    proofs, why_not = _proofs(module, given.input_shape)
    if why_not:
        row = measured(_STAGE, subject, stored)
        return [replace(row, reason="; ".join([*left_open, why_not]))]
    declared = [Tie(proof.names[0], _uses(proof)) for proof in proofs]
    doubts = [f"{proof.names[0]}: {proof.reason}" for proof in proofs if not proof.holds]
    row = measured(_STAGE, subject, stored, declared=declared)
    status = "not proven" if doubts and row.status == "one copy" else row.status
    return [replace(row, status=status, reason="; ".join([*left_open, *doubts]))]


def _proofs(
    module: nn.Module, input_shape: tuple[int, ...] | None
) -> tuple[tuple[TieProof, ...], str]:
    """The proof of each tie; or none, and why only names can tell."""
    from tiedexport import ties

    try:
        return ties.check(module, input_shape), ""
    except UsageError:
        if input_shape is not None:
            raise
        return (), "names only: --input-shape shows the uses in a forward pass too"
    except BadInputError as error:  # of the module, and its findings will tell
        return (), f"names only: {error.what}"


def _uses(proof: TieProof) -> tuple[str, ...]:
    return tuple(path.use for path in proof.paths) or proof.names


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
