"""The proof that a weight is tied: gradients of every use, finite differences, one step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from msgspec.structs import replace

from tiedexport.errors import BadInputError, TieBrokenError, UsageError
from tiedexport.results.ties import PathGradient, TieProof
from tiedexport.ties import quantized
from tiedexport.ties.held import is_hooked
from tiedexport.ties.runs import example, forward, run
from tiedexport.ties.slopes import GRADCHECK_TOLERANCE, gradcheck_error, slopes
from tiedexport.ties.unseen import unseen
from tiedexport.ties.uses import Recorder
from tiedexport.ties.weights import weights_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tiedexport.ties.runs import Run
    from tiedexport.ties.uses import Use
    from tiedexport.ties.weights import Member, Weight

SUM_TOLERANCE = 1e-12
_LEARNING_RATE = 1e-3


@dataclass(frozen=True, eq=False)
class Path:
    """A use of a weight.

    Attributes:
        described: in words.
        norm: of the gradient through it alone.
        cut: where the output depends on it and no gradient says so: the line, or "".
    """

    described: str
    norm: float
    cut: str | None


@dataclass(frozen=True, eq=False)
class Passed:
    """What a forward pass, a backward pass and a step show of a weight.

    Attributes:
        gradient: of the weight's first member.
        sum_error: of the sum of its paths' gradients, over the sum's norm.
        moves: whether a step moved what every use sees.
    """

    paths: list[Path]
    gradient: Tensor
    sum_error: float
    moves: bool


def check(module: nn.Module, inputs: object = None) -> tuple[TieProof, ...]:
    """Prove each tie of a module, in float64 on a copy; the module itself is never run or changed.

    A weight is looked at if a forward pass uses it twice or more, once through torch at least,
    or if another tensor of the module shares its memory or repeats its content.

    Args:
        module: with its weights in memory, of any floating type, in the mode that is to be proven.
        inputs: a tensor, a tuple of `forward`'s arguments, or a shape without the batch axis;
            `module.input_shape` where None.

    Returns:
        One proof a weight, in the order of the parameters; none where nothing is tied.

    Raises:
        UsageError: there is no example input.
        BadInputError: the module cannot be copied, its forward pass failed, or it is quantised.
    """
    arguments = example(module, inputs)
    if packed := quantized.layers(module):
        raise BadInputError(
            "quantised layers have no gradient to prove a tie by",
            where=next(iter(packed)),
            hint="check the module before it is quantised; tiedexport.ties.findings(module) says "
            "what quantisation made of its ties",
        )
    first = run(module, arguments)
    hidden = unseen(module, arguments, first)
    weights = weights_of(module)
    ties = [w for w in weights if len(w.members) > 1 or is_used_twice(w, first.uses, hidden)]
    if not ties:
        return ()
    passed, held = _passed(module, arguments, ties), {id(one) for one in module.parameters()}
    return tuple(
        _proof(module, arguments, weight, one, held)
        for weight, one in zip(ties, passed, strict=True)
    )


def assert_tied(module: nn.Module, *names: str, inputs: object = None) -> None:
    """Raise unless a module's ties are proven; made for the tests of a project that ties weights.

    Args:
        module: as for `check`.
        names: parameter names that must lead to one tied weight. Without any, every tie that the
            module has must hold, and there must be one.
        inputs: as for `check`.

    Raises:
        TieBrokenError: a tie does not hold, or there is none; says why.
        UsageError: a name is no parameter's, or there is no example input.
        BadInputError: the module cannot be copied, or its forward pass failed.
    """
    proofs = check(module, inputs)
    known = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for name in names:
        if name not in known:
            raise UsageError("no such parameter", got=name, expected=", ".join(known))
    concerned = [proof for proof in proofs if set(names) <= set(proof.names)]
    if not concerned:
        raise TieBrokenError(
            "not tied" if names else "nothing is tied",
            where=" and ".join(names) or type(module).__name__,
            expected="one weight that the forward pass uses twice or more",
            hint="tiedexport.ties.findings(module) names what separates two equal weights",
        )
    for proof in concerned:
        if not proof.holds:
            raise TieBrokenError(
                "a tie is broken",
                where=" and ".join(proof.names),
                got=proof.reason,
                expected="one Parameter, and the gradient of every use",
                hint="tiedexport.ties.findings(module) says what to write instead",
            )


def tied(weights: list[Weight], uses: list[Use]) -> list[Weight]:
    """The weights that are, or should be, used in two places."""
    return [one for one in weights if one.is_shared or is_used_twice(one, uses)]


def is_used_twice(weight: Weight, uses: list[Use], hidden: frozenset[int] = frozenset()) -> bool:
    """Whether two uses read the same elements: the slices of a fused weight are no tie.

    One that is `unseen` elsewhere has one use more.
    """
    spans = sorted(use.span for use in uses_of(weight, uses))
    if id(weight.first.tensor) in hidden:
        return bool(spans)
    return any(following[0] < span[1] for span, following in pairwise(spans))


def uses_of(weight: Weight, uses: list[Use]) -> list[Use]:
    """The uses of all tensors of a weight."""
    return [use for use in uses if any(use.root == id(one.tensor) for one in weight.members)]


def _thawed(ties: list[Weight]) -> frozenset[int]:
    """Wholly frozen weights, which are tied no less: their copies get a gradient."""
    frozen = [tie for tie in ties if not any(one.tensor.requires_grad for one in tie.members)]
    return frozenset(id(one.tensor) for tie in frozen for one in tie.parameters)


def _passed(module: nn.Module, arguments: tuple[Any, ...], ties: list[Weight]) -> list[Passed]:
    """One pass for all weights; its copy of the module is gone when this returns."""
    tracked = frozenset(id(one.tensor) for weight in ties for one in weight.members)
    first = run(module, arguments, tracked=tracked, thawed=_thawed(ties))
    first.backward()
    moves_after = _moves(ties, first, arguments)
    passed = []
    for weight, moves in zip(ties, moves_after, strict=True):
        leaf = first.stand_ins[id(weight.first.tensor)]
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        total = torch.zeros_like(leaf)
        for use in uses_of(weight, first.uses):
            total += _as_first(_member(weight, use), use.share)
        norm, error = float(total.norm()), float(total.sub_(gradient).norm())
        paths = _paths(module, arguments, weight, first, tracked)
        passed.append(Passed(paths, gradient, error / (norm or error) if error else 0.0, moves))
    return passed


def _paths(
    module: nn.Module,
    arguments: tuple[Any, ...],
    weight: Weight,
    first: Run,
    tracked: frozenset[int],
) -> list[Path]:
    """Each use of a weight after `first.backward()`."""
    numbers = {id(use): n for n, use in enumerate(u for u in first.uses if u.seen is not None)}
    paths = []
    for use in uses_of(weight, first.uses):
        member, share = _member(weight, use), use.share
        cut = None if use.cut is None else str(use.cut)
        if cut is None and not bool(share.any()):

            def moved(step: Tensor, number: int = numbers[id(use)]) -> Run:
                return run(module, arguments, tracked=tracked, deltas={number: step})

            if any(slope != 0 for slope, _ in slopes(moved, member.tensor, share)):
                cut = ""
        paths.append(Path(use.described(member.name), float(share.norm()), cut))
    return paths


def _member(weight: Weight, use: Use) -> Member:
    return next(one for one in weight.members if use.root == id(one.tensor))


def _as_first(member: Member, tensor: Tensor) -> Tensor:
    """What lies as a member does, laid as the weight's first member."""
    inverse = sorted(range(len(member.axes)), key=lambda axis: member.axes[axis])
    return tensor.permute(inverse)


def _proof(
    module: nn.Module, arguments: tuple[Any, ...], weight: Weight, passed: Passed, held: set[int]
) -> TieProof:
    proof = TieProof(
        names=weight.names,
        paths=tuple(PathGradient(path.described, path.norm) for path in passed.paths),
        sum_error=passed.sum_error,
        gradcheck_error=gradcheck_error(module, arguments, weight, passed.gradient),
        optimizer_entries=sum(id(one.tensor) in held for one in weight.members),
        moves_together=passed.moves,
    )
    return replace(proof, reason=_reason(proof, weight, passed))


def _reason(proof: TieProof, weight: Weight, passed: Passed) -> str:
    """Why it is no tie; "" where it is."""
    cut = next((path for path in passed.paths if path.cut is not None), None)
    if len(weight.members) > 1:
        return _two_tensors(weight)
    if proof.optimizer_entries == 0:
        return f"no optimizer sees {weight.first.name}: it is not a registered Parameter"
    if cut is not None and cut.cut is not None:
        where = "" if cut.cut in cut.described else f", cut off in {cut.cut}"
        return f"no gradient flows back through {cut.described}{where}"
    if hooked := next((one.name for one in weight.members if is_hooked(one.tensor)), ""):
        return f"a hook changes the gradient of {hooked}, or could: it is not run on a copy"
    if not proof.sum_error <= SUM_TOLERANCE:
        return f"its gradient is not the sum of its paths' ({proof.sum_error:.1e} relative)"
    if not proof.gradcheck_error <= GRADCHECK_TOLERANCE:
        return (
            f"its gradient is not the slope of the output ({proof.gradcheck_error:.1e} relative): "
            "a path that autograd does not see, or a function whose gradient is not its own"
        )
    if not proof.moves_together:
        return "a second forward pass does not use it in the same places: something is cached"
    return ""


def _two_tensors(weight: Weight) -> str:
    first = weight.first
    other = next(one for one in weight.members if one is not first)
    kind = {"parameter": "Parameters", "buffer": "a Parameter and a buffer"}.get(
        other.kind, "a Parameter and a plain attribute"
    )
    turned = " transposed" if other.axes != tuple(range(len(other.axes))) else ""
    how = "in one memory" if other.aliased else "of equal values in memory of their own"
    count = "two " if other.kind == "parameter" else ""
    return f"{first.name} and{turned} {other.name} are {count}{kind} {how}"


def _moves(ties: list[Weight], first: Run, arguments: tuple[Any, ...]) -> list[bool]:
    """Whether a step of SGD over all Parameters moves all members of each weight alike.

    And whether a forward pass after the step uses it where the first one did: a transpose that was
    kept from the first pass is no longer the weight.
    """
    stand_ins = {id(one.tensor): first.stand_ins[id(one.tensor)] for t in ties for one in t.members}
    before = {key: tensor.detach().clone() for key, tensor in stand_ins.items()}
    if parameters := list(first.shadow.parameters()):
        torch.optim.SGD(parameters, lr=_LEARNING_RATE).step()
    again = Recorder(first.recorder.roots, first.recorder.paths)
    forward(first.shadow, arguments, again)
    moves = []
    for weight in ties:
        steps = [
            _as_first(one, stand_ins[id(one.tensor)].detach() - before[id(one.tensor)])
            for one in weight.members
        ]
        alike = all(torch.equal(step, steps[0]) for step in steps)
        places = [
            Counter(use.place for use in uses_of(weight, r.uses)) for r in (first.recorder, again)
        ]
        leaf = stand_ins[id(weight.first.tensor)]
        # Where softmax cancels a gradient, the rounding that is left of it moves nothing.
        start = before[id(weight.first.tensor)]
        still = leaf.grad is None or torch.equal(start, start - _LEARNING_RATE * leaf.grad)
        moves.append(alike and (still or bool(steps[0].any())) and places[0] == places[1])
    return moves
