"""Mistakes in how a live module ties its weights, by the evidence that each leaves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch.nn.utils import parametrize

from tiedexport.errors import UsageError
from tiedexport.results.ties import Finding
from tiedexport.ties import lines, quantized, source
from tiedexport.ties.held import is_hooked
from tiedexport.ties.later import losses, warning
from tiedexport.ties.proof import tied, uses_of
from tiedexport.ties.runs import example, forward, run
from tiedexport.ties.unseen import unseen
from tiedexport.ties.uses import Recorder
from tiedexport.ties.weights import weights_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import nn

    from tiedexport.ties.later import Loss
    from tiedexport.ties.source import Spot
    from tiedexport.ties.uses import Line, Use
    from tiedexport.ties.weights import Member, Weight

_RIGHT_INVERSE = "def right_inverse(self, weight): return ()  # beside forward(self): no argument"
_LEAST = 16  # elements: a smaller tensor may have a weight's shape by chance


def findings(
    module: nn.Module, inputs: object = None, *, sources: Iterable[object] = ()
) -> tuple[Finding, ...]:
    """Name each mistake in how a module ties its weights, and the line to write instead.

    First what is wrong now; then the calls that would lose a tie, tried on copies. The module is
    never run or changed. Without an example input only the tensors and the source are looked at.

    Args:
        module: with its weights in memory.
        inputs: as for `check`.
        sources: classes, functions or Python modules whose files are searched as well for the line
            that made a mistake, next to those of the module's own classes.

    Raises:
        UsageError: the inputs given are none.
        BadInputError: the module cannot be copied, or its forward pass failed.
    """
    arguments = _arguments(module, inputs)
    weights = weights_of(module)
    packed = quantized.layers(module)
    quantised = quantized.findings(module, packed, weights, arguments) if packed else []
    lost = [] if packed else losses(module, arguments)
    found = source.spots(module, sources)
    broken = [finding for weight in weights for finding in _of_tensors(weight, found, lost)]
    if arguments is not None and not packed:
        broken += _of_passes(module, arguments, weights)
    warnings = [one for loss in lost if (one := warning(loss, module)) is not None]
    return (*broken, *quantised, *warnings)


def _arguments(module: nn.Module, inputs: object) -> tuple[Any, ...] | None:
    try:
        return example(module, inputs)
    except UsageError:
        if inputs is not None:
            raise
        return None


def _of_tensors(weight: Weight, found: Sequence[Spot], lost: Sequence[Loss]) -> Iterator[Finding]:
    """What the tensors show: two where one belongs."""
    trained = [one for one in weight.parameters if one.tensor.requires_grad]
    kept = trained[0] if trained else weight.first
    names = set(weight.names)
    calls = [loss.call.name for loss in lost if any(set(t.names) <= names for t in loss.ties)]
    for other in weight.members:
        if other is not kept:
            yield _second(kept, other, found, calls)


def _second(kept: Member, other: Member, found: Sequence[Spot], calls: Sequence[str]) -> Finding:
    kind, consequence = _second_tensor(kept, other)
    spot = None
    if other.kind == "parameter" and other.aliased:
        kinds = (source.PARAMETER_OF_TRANSPOSE, source.DATA_ASSIGNMENT)
        spot = source.match(found, kinds, (*other.names, *kept.names))
        kind = spot.kind if spot is not None and kind == _TWO_PARAMETERS else kind
    elif other.kind != "parameter":
        spot = source.match(found, (source.DETACHED,), other.names)
    where = f"{kept.name} and {other.name}" + (f", {spot}" if spot is not None else "")
    if calls:
        consequence += f"; tried on copies: {', '.join(calls)} part them without a word"
    return Finding(kind, where, consequence, lines.tie_again(kept, other))


_TWO_PARAMETERS = "two Parameters in one memory"


def _second_tensor(kept: Member, other: Member) -> tuple[str, str]:
    """What a second tensor for one weight is, and what comes of it."""
    frozen = kept.tensor.requires_grad and not other.tensor.requires_grad
    if other.kind == "parameter" and frozen:
        return "requires_grad=False on one side", (
            "training ignores the gradient of the frozen side"
            + ("" if other.aliased else " and leaves its values behind")
            + "; an export stores both"
        )
    if other.kind == "parameter" and other.aliased:
        return _TWO_PARAMETERS, (
            "an optimizer holds two Parameters: Adam takes two steps for the one weight, and "
            "weight decay counts twice; an export stores both"
        )
    if other.kind == "parameter":
        return "two Parameters of equal values", (
            "a tie that was never made, or was lost by copy.deepcopy, .to(), "
            "load_state_dict(assign=True) or to_empty: training moves the two apart, "
            "and every file stores both"
        )
    if other.tensor.grad_fn is not None:
        return "a view taken once", (
            "it is no Parameter: .to() leaves it behind in the old memory and type, and "
            "copy.deepcopy fails"
        )
    if other.aliased:
        return source.DETACHED, ("no gradient flows back through it: training misses that use")
    return "a copy of the weight", (
        "training moves the weight and leaves this copy as it is; every file stores both"
    )


def _of_passes(
    module: nn.Module, arguments: tuple[Any, ...], weights: list[Weight]
) -> list[Finding]:
    """What two forward passes show."""
    first = run(module, arguments)
    again = Recorder(first.recorder.roots, first.recorder.paths)
    forward(first.shadow, arguments, again)
    later = Counter(use.place for use in again.uses)
    ties = tied(weights, first.uses)
    found: list[Finding] = []
    for weight in ties:
        uses = uses_of(weight, first.uses)
        own = {id(one.tensor): one for one in weight.parameters if one.tensor.requires_grad}
        mine = [use for use in uses if use.root in own]
        kept = [use for use in mine if not later[use.place]]
        if not all(use.cut is not None for use in mine):
            found += [_cut(use, own[use.root]) for use in mine if use.cut is not None]
        found += [_cached(use, own[use.root]) for use in kept]
        if weight.first.kind == "attribute":
            found.append(_unseen(weight.first))
        found += [_hooked(one) for one in weight.members if is_hooked(one.tensor)]
    hidden = unseen(module, arguments, first)
    found += [
        _hidden(one, first.recorder.exits)
        for weight in weights
        if id((one := weight.first).tensor) in hidden
    ]
    return [*found, *_dead_weights(module, weights, ties, first.uses)]


def _cut(use: Use, member: Member) -> Finding:
    assert use.cut is not None
    return Finding(
        ".detach() in the forward pass" if use.is_detached else "a use under no_grad",
        _at(use.described(member.name), use.cut),
        "no gradient flows back through this use: training sees only the others, "
        "and what it follows is not the gradient of the loss",
        lines.without_cut(use.cut),
    )


def _at(described: str, line: Line) -> str:
    return described if str(line) in described else f"{described}, {line}"


def _hidden(member: Member, exits: Sequence[Use]) -> Finding:
    """A use that bypasses torch, and where it leaves torch, if that is seen."""
    name = lines.access(member.name)
    exit = next((one for one in exits if one.root == id(member.tensor)), None)
    return Finding(
        "a use that torch does not see",
        member.name if exit is None else _at(exit.described(member.name), exit.line),
        "no gradient flows back through this use: training sees only the others, if there are any, "
        "and an export may store its own copy, as a constant",
        f"{name}  # in forward, "
        + ("read by torch" if exit is None else f"where {exit.function}() stood"),
    )


def _hooked(member: Member) -> Finding:
    return Finding(
        "a hook on the gradient",
        member.name,
        "training follows what the hook makes of the gradient, which may be none of any use's; "
        "a tie is not proven with it",
        f"handle.remove()  # what {lines.access(member.name)}.register_hook(…) returned",
        breaks_now=False,
    )


def _unseen(member: Member) -> Finding:
    holder = lines.access(member.name).partition("[")[0]
    return Finding(
        "a Parameter that torch does not see",
        member.name,
        "no optimizer moves it, no checkpoint has it, and .to() leaves it where it is",
        f"{holder} = torch.nn.ParameterList({holder})",
    )


def _cached(use: Use, member: Member) -> Finding:
    return Finding(
        "kept from the first forward pass",
        use.described(member.name),
        "later passes read what the first one left: training moves the weight, "
        "and this use stays behind",
        f"{lines.access(member.name)}  # in forward, read from self at every call",
    )


def _dead_weights(
    module: nn.Module, weights: list[Weight], ties: list[Weight], uses: list[Use]
) -> Iterator[Finding]:
    """Parameters of a tied weight's shape that the forward pass never reads."""
    used = {use.root for use in uses}
    shapes = {tuple(sorted(tie.first.tensor.shape)) for tie in ties}
    lists = {
        id(one) for one in module.modules() if isinstance(one, parametrize.ParametrizationList)
    }
    for weight in weights:
        one = weight.first
        if id(one.tensor) in used or tuple(sorted(one.tensor.shape)) not in shapes:
            continue
        if one.tensor.numel() < _LEAST or len(weight.members) > 1:
            continue
        owner = one.owners[0]
        size = one.tensor.numel() * one.tensor.element_size()
        cost = f"the forward pass never reads it, and every checkpoint keeps its {size:,} bytes"
        if id(owner) in lists:
            yield Finding("dead original under parametrize", one.name, cost, _RIGHT_INVERSE)
        elif any(id(other) in used for other in owner.parameters(recurse=False)):
            instead = f"{lines.access(one.name)} = None"
            yield Finding("dead weight", one.name, cost, instead)
