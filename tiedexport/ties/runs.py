"""Forward passes of a copy of a module, in float64, with every use of its weights recorded."""

from __future__ import annotations

import contextlib
import functools
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils.checkpoint import CheckpointFunction

from tiedexport.errors import BadInputError, UsageError
from tiedexport.ties.held import copied, held_tensors, paths_by_id, stand_ins
from tiedexport.ties.uses import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tiedexport.ties.uses import Use

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_SAMPLES = 8
_SEED = 0


@dataclass(eq=False)
class Run:
    """One forward pass.

    Attributes:
        shadow: the float64 copy that was run; the module itself never is.
        stand_ins: identity of each of the module's tensors → the copy's own.
        uses: in the order in which they happened.
        objective: a random linear function of all outputs, a scalar.
        magnitude: the sum of the objective's terms without their signs: what rounding is relative
            to.
    """

    shadow: nn.Module
    stand_ins: dict[int, Tensor]
    recorder: Recorder
    objective: Tensor
    magnitude: float

    @property
    def uses(self) -> list[Use]:
        """Every use of every weight."""
        return self.recorder.uses

    def backward(self) -> None:
        """Accumulate gradients into the stand-ins and each use of the tracked ones."""
        self.recorder.recording = False  # checkpointed layers run again
        with _settings(self.recorder):
            self.objective.backward()  # type: ignore[no-untyped-call]


def example(module: nn.Module, inputs: object = None) -> tuple[Any, ...]:
    """Arguments of `forward`: as given, or drawn from a shape (without the batch axis) in [0, 1).

    A module that has an embedding and takes no such numbers gets tokens.

    Raises:
        UsageError: there is neither an input nor a shape.
        BadInputError: there is no module.
    """
    if not isinstance(module, nn.Module):
        raise BadInputError("not a module", got=repr(module), expected="a torch.nn.Module")
    if inputs is None:
        inputs = getattr(module, "input_shape", None)
    if isinstance(inputs, Tensor):
        return (inputs,)
    if isinstance(inputs, Sequence) and inputs and all(type(n) is int for n in inputs):
        shape = (_SAMPLES, *inputs)
        if min(shape) < 1:
            raise UsageError("not an input shape", got=tuple(inputs), expected="positive numbers")
        return (_drawn(module, shape),)
    if isinstance(inputs, Sequence) and inputs and not isinstance(inputs, str):
        return tuple(inputs)
    raise UsageError(
        "no example input for the module",
        where=type(module).__name__,
        got=repr(inputs),
        expected="a tensor, a tuple of arguments, a shape without the batch axis, or input_shape",
        hint="pass inputs=(784,), or the tensors that forward takes",
    )


def _drawn(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    numbers = torch.rand(shape, generator=generator)
    tables = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    if tables:
        try:
            run(module, (numbers,))
        except BadInputError:
            return torch.randint(min(tables), shape, generator=generator)
    return numbers


def run(
    module: nn.Module,
    arguments: tuple[Any, ...],
    *,
    tracked: frozenset[int] = frozenset(),
    thawed: frozenset[int] = frozenset(),
    moved: Mapping[int, Tensor] | None = None,
    deltas: Mapping[int, Tensor] | None = None,
    shifts: Mapping[int, Tensor] | None = None,
) -> Run:
    """A forward pass of a fresh copy.

    Args:
        module: never run itself.
        arguments: of its `forward`.
        tracked: identities of the tensors whose uses get a gradient each.
        thawed: identities of frozen Parameters that are to have a gradient.
        moved: identity of a tensor → what to add to it, and so to all that shares its memory.
        deltas: number of a tracked use → what to add to the weight there alone.
        shifts: identity of a tensor → what to add to it at each use of it.

    Raises:
        BadInputError: the module cannot be copied, or its forward pass failed.
    """
    standing = stand_ins((h.tensor for h in held_tensors(module)), torch.float64, thawed)
    shadow = copied(module, standing)
    for one, step in (moved or {}).items():
        standing[one].data.add_(step)
    roots = {key: (key, tensor) for key, tensor in standing.items()}
    roots |= {id(tensor): (key, tensor) for key, tensor in standing.items()}
    paths = paths_by_id(module) | paths_by_id(shadow)
    recorder = Recorder(roots, paths, tracked, deltas or {}, shifts or {})
    return Run(shadow, standing, recorder, *forward(shadow, arguments, recorder))


def forward(
    shadow: nn.Module, arguments: tuple[Any, ...], recorder: Recorder
) -> tuple[Tensor, float]:
    """The objective and its magnitude, after a pass of a copy that exists already."""
    with _settings(recorder), torch.random.fork_rng(_cuda_devices()):
        _seed()
        try:
            output = shadow(*_changed(arguments, _as_double))
        except Exception as error:
            raise _failed(shadow, arguments, error) from error
        recorder.stage = "what forward returns"
        outputs = [t for t in _tensors(output) if t.is_floating_point()]
        if not outputs:
            raise BadInputError(
                "the forward pass returns no floating tensor",
                where=type(shadow).__name__,
                got=type(output).__name__,
            )
        generator = torch.Generator().manual_seed(_SEED)
        weights = [torch.randn(t.shape, generator=generator).to(t.device) for t in outputs]
        terms = [t * w for t, w in zip(outputs, weights, strict=True)]
        total = torch.stack([term.sum() for term in terms]).sum()
        return total, sum(float(term.detach().abs().sum()) for term in terms)


@contextlib.contextmanager
def _settings(recorder: Recorder) -> Iterator[None]:
    """Gradients on, float64 the default, and custom autograd functions seen by the recorder."""
    before = torch.get_default_dtype()
    apply = torch.autograd.Function.__dict__["apply"]

    def seen(cls: type, *args: Any, **kwargs: Any) -> Any:
        if cls is CheckpointFunction:  # recomputes in its backward what it need not: run it plainly
            run_function, _preserve, *rest = args
            return run_function(*rest)
        function = functools.partial(apply.__get__(None, cls))
        function.__name__ = cls.__name__  # type: ignore[attr-defined]
        if not has_torch_function(args):
            return function(*args, **kwargs)
        return handle_torch_function(function, args, *args, **kwargs)

    try:
        torch.set_default_dtype(torch.float64)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            _eager(),
            patch.object(torch.autograd.Function, "apply", classmethod(seen)),
            recorder,
        ):
            yield
    finally:
        torch.set_default_dtype(before)


def _eager() -> contextlib.AbstractContextManager[object]:
    """Run compiled modules as they are written; without importing the compiler for the others."""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def _seed() -> None:
    """All generators. `torch.manual_seed` keeps a stack trace a call for devices that are none."""
    if torch.accelerator.is_available():
        torch.manual_seed(_SEED)
    else:
        torch.default_generator.manual_seed(_SEED)


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []


def _as_double(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    copy = value.detach().clone()
    return copy.double() if copy.is_floating_point() else copy


def _changed(value: Any, change: Any) -> Any:
    if type(value) in (list, tuple):
        return type(value)(_changed(element, change) for element in value)
    if type(value) is dict:
        return {key: _changed(element, change) for key, element in value.items()}
    return change(value)


def _tensors(value: Any, above: tuple[int, ...] = ()) -> Iterator[Tensor]:
    """Every tensor in what a forward pass returned: containers and records are entered."""
    if isinstance(value, Tensor):
        yield value
        return
    inside: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, list | tuple):
        inside = value
    elif hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        inside = vars(value).values()
    for element in inside if id(value) not in above else ():
        yield from _tensors(element, (*above, id(value)))


def _failed(module: nn.Module, arguments: tuple[Any, ...], error: Exception) -> BadInputError:
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((_TORCH, _HERE))]
    at = f", {theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""
    shapes = ", ".join(str(tuple(t.shape)) for t in _tensors(arguments))
    return BadInputError(
        "the module's forward pass failed",
        where=f"{type(module).__name__}{at}",
        got=f"{type(error).__name__}: {error}",
        expected=f"a result for inputs of shape {shapes}" if shapes else None,
        hint="pass inputs that forward takes: inputs=tensor, or a tuple of arguments",
    )
