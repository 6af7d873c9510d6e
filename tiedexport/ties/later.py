"""Calls that would lose a tie, each tried on a copy of the module."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tiedexport.errors import BadInputError
from tiedexport.results.ties import Finding
from tiedexport.ties import lines, quantized
from tiedexport.ties.held import faithful_copy
from tiedexport.ties.proof import tied, uses_of
from tiedexport.ties.runs import run
from tiedexport.ties.weights import weights_in_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.ties.uses import Use
    from tiedexport.ties.weights import Weight

Key = tuple[frozenset[str], int, int]
"""What a tie is known by: its Parameters' names, how many tensors it has, how often it is used."""


@dataclass(frozen=True)
class Call:
    """Something that people do to a module, in words and in deed."""

    name: str
    apply: Callable[[nn.Module], nn.Module]


def _cast(module: nn.Module) -> nn.Module:
    doubles = all(one.dtype == torch.float64 for one in module.parameters())
    return module.to(torch.float32 if doubles else torch.float64)


def _assign(module: nn.Module) -> nn.Module:
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    return module


def _through_meta(module: nn.Module) -> nn.Module:
    state = module.state_dict()
    module = module.to("meta").to_empty(device="cpu")
    for buffer in module.buffers():
        buffer.zero_()  # those that no state dict holds would keep what the memory held
    module.load_state_dict(state)
    return module


def _quantize(module: nn.Module) -> nn.Module:
    from torch.ao.quantization import quantize_dynamic

    done: nn.Module = quantize_dynamic(  # type: ignore[no-untyped-call]
        module, dtype=torch.qint8, inplace=True
    )
    return done


_DEEPCOPY = Call("copy.deepcopy", copy.deepcopy)
_QUANTIZE = Call("quantize_dynamic", _quantize)
_CALLS = (
    Call(".to(dtype)", _cast),
    Call("load_state_dict(assign=True)", _assign),
    Call('.to("meta").to_empty()', _through_meta),
)


@dataclass(frozen=True, eq=False)
class Loss:
    """The ties that a call loses, and how the forward pass fails after it, if it does."""

    call: Call
    ties: list[Weight]
    error: str


def losses(module: nn.Module, arguments: tuple[Any, ...] | None) -> list[Loss]:
    """Each call that would lose a tie which the module has now."""
    ties = _ties(module, arguments)
    if not ties:
        return []
    # A function that remembers the module itself stays behind in any copy. Only deepcopy is to
    # blame for that; the other calls are tried on what a copy can keep.
    kept = _ties(faithful_copy(module), arguments)
    held = {key: tie for key, tie in ties.items() if key in kept}
    found = [_tried(_DEEPCOPY, module, arguments, ties)]
    found += [_tried(call, faithful_copy(module), arguments, held) for call in _CALLS if held]
    uses = run(module, arguments).uses if arguments is not None else []
    if apart := {key: tie for key, tie in held.items() if _leaves_its_layer(tie, uses)}:
        found.append(_tried(_QUANTIZE, faithful_copy(module), arguments, apart))
    return [loss for loss in found if loss.ties]


def _leaves_its_layer(tie: Weight, uses: list[Use]) -> bool:
    """Whether a weight is read outside the layers that hold it: a layer used twice stays one."""
    homes = {name.rpartition(".")[0] for name in tie.names}
    return tie.is_shared or any(use.line.module not in homes for use in uses_of(tie, uses))


def _ties(module: nn.Module, arguments: tuple[Any, ...] | None) -> dict[Key, Weight]:
    """Each tie by what must stay of it."""
    weights = weights_in_memory(module)
    uses = run(module, arguments).uses if arguments is not None else []
    return {
        (
            frozenset(name for one in tie.parameters for name in one.names),
            len(tie.members),
            len(uses_of(tie, uses)),
        ): tie
        for tie in tied(weights, uses)
    }


def _tried(
    call: Call, module: nn.Module, arguments: tuple[Any, ...] | None, ties: dict[Key, Weight]
) -> Loss:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            changed = call.apply(module)
    except Exception:
        return Loss(call, [], "")  # it refuses aloud: nothing is lost without a word
    if quantized.layers(changed):
        names = {name for name, _ in changed.named_parameters(remove_duplicate=False)}
        return Loss(call, [tie for key, tie in ties.items() if not key[0] <= names], "")
    try:
        after = _ties(changed, arguments)
    except BadInputError as error:
        return Loss(call, list(ties.values()), str(error.got))
    return Loss(call, [tie for key, tie in ties.items() if key not in after], "")


def warning(loss: Loss, module: nn.Module) -> Finding | None:
    """What to know of a call that loses ties which are sound now; None where there are none."""
    sound = [tie for tie in loss.ties if len(tie.members) == 1]
    if not sound:
        return None
    name = loss.call.name
    if loss.error:
        consequence = f"{name} breaks the forward pass: {loss.error}"
    elif loss.call is _QUANTIZE:
        consequence = (
            f"{name} packs a weight of its own into each layer: two copies, and a forward pass "
            "that reads the layer's weight fails"
        )
    elif sound[0].is_shared:
        consequence = (
            f"{name} leaves two weights where there was one, without a word: training moves them "
            "apart, and every file stores both"
        )
    else:
        consequence = (
            f"{name} leaves a use of the old module's weight behind, without a word: "
            "the copy's training does not move it"
        )
    names = "; ".join(" and ".join(tie.names) for tie in sound)
    if loss.call is _QUANTIZE:
        instead = _quantize_the_others(sound, module)
    elif sound[0].is_shared:
        again = (lines.share_again(tie.first) for tie in sound)
        instead = "; ".join(again) + f"  # after {name}"
    else:
        read = " and ".join(lines.access(tie.first.name) for tie in sound)
        instead = f"{read}  # in forward, read from self at every call"
    return Finding(f"lost by {name}", names, consequence, instead, breaks_now=False)


def _quantize_the_others(lost: list[Weight], module: nn.Module) -> str:
    """A call that leaves the tied layers alone, where there are others."""
    owners = {id(owner) for tie in lost for one in tie.members for owner in one.owners}
    linear = {name: one for name, one in module.named_modules() if type(one) is nn.Linear}
    tied_names = sorted(name for name, one in linear.items() if id(one) in owners)
    if len(tied_names) == len(linear):
        return quantized.INSTEAD
    others = "{name for name, one in self.named_modules() if type(one) is torch.nn.Linear}"
    without = "{" + ", ".join(map(repr, tied_names)) + "}"
    return f"torch.ao.quantization.quantize_dynamic(self, {others} - {without}, torch.qint8)"
