"""The stage of live modules: parameters and buffers by the memory that they lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from tiedexport.audit.table import measured, not_run
from tiedexport.results.ties import STAGE_NAMES, Stage
from tiedexport.spec import Tie

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from tiedexport.audit.given import Given
    from tiedexport.results.ties import TieProof

_STAGE = STAGE_NAMES[0]


def examine(given: Given) -> list[Stage]:
    """One row: a weight is tied where several names, or uses in a forward pass, share its bytes.

    Raises:
        UsageError, BadInputError: the module cannot be made, or cannot be run on `input_shape`.
    """
    if given.live is None or given.module is None:
        return [not_run(_STAGE, "files hold no Python; give package.module:factory as well")]
    from tiedexport.audit.tensors import readable, stored_tensor

    module, subject = given.live, given.module
    named = dict(_named(module))
    stored = [stored_tensor(name, t) for name, t in named.items() if readable(t)]
    if not stored:
        why = "its tensors hold no values" if named else "it has no parameters"
        return [not_run(_STAGE, why, subject)]
    unread = [name for name in named if name not in {tensor.name for tensor in stored}]
    left_open = [f"not read: {', '.join(unread)} (no values, or no dense layout)"] * bool(unread)
    if given.input_shape is None and getattr(module, "input_shape", None) is None:
        left_open.append("names only: --input-shape shows the uses in a forward pass too")
        return [measured(_STAGE, subject, stored, reason="; ".join(left_open))]
    proofs = _proofs(module, given.input_shape)
    row = measured(
        _STAGE,
        subject,
        stored,
        declared=[Tie(proof.names[0], _uses(proof)) for proof in proofs],
        reason="; ".join([*left_open, *(p.reason for p in proofs if not p.holds)]),
    )
    if row.status == "one copy" and not all(proof.holds for proof in proofs):
        return [replace(row, status="not proven")]
    return [row]


def _proofs(module: nn.Module, input_shape: tuple[int, ...] | None) -> tuple[TieProof, ...]:
    from tiedexport import ties

    return ties.check(module, input_shape)


def _uses(proof: TieProof) -> tuple[str, ...]:
    return tuple(path.use for path in proof.paths) or proof.names


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)
