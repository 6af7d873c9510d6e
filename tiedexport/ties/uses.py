"""Where a forward pass uses each weight: seen by standing between the module and torch."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tiedexport.ties.functions import (
    CARRIERS,
    CASTS,
    CUTS,
    EXITS,
    QUESTIONS,
    is_getter,
    name_of,
    spelled,
    writes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

_TORCH = str(Path(torch.__file__).parent)
_PARAMETRIZATIONS = str(Path(_TORCH) / "nn" / "utils")
_HERE = str(Path(__file__).parent)


@dataclass(frozen=True)
class Line:
    """A line of somebody's code, and the submodule whose method it is in.

    Attributes:
        is_torch: one of torch's parametrizations is at work there, at torch's own discretion.
    """

    file: str = ""
    number: int = 0
    module: str = ""
    is_torch: bool = False

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.number}" if self.file else "unknown line"


@dataclass(frozen=True)
class View:
    """A weight on its way to a use: the root's identity, and each step as it can be repeated."""

    root: int
    steps: tuple[Callable[[Tensor], Tensor], ...] = ()
    names: tuple[str, ...] = ()
    cut: Line | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """The same view of another tensor."""
        for step in self.steps:
            tensor = step(tensor)
        return tensor


@dataclass(frozen=True, eq=False)
class Use:
    """One place in a forward pass that consumes a weight.

    Attributes:
        root: identity of the weight, as the recorder's `roots` has it.
        function: the torch function that consumes it.
        forms: what was done to the weight before: "t", "detach", ….
        line: where; its module is the innermost one at work.
        cut: the line that cuts it off the graph, if one does so openly.
        span: first element and end of what it reads, in the weight's memory.
        seen: the weight as this use alone sees it: it holds the use's own gradient. None where
            uses are only counted.
    """

    root: int
    function: str
    forms: tuple[str, ...]
    line: Line
    cut: Line | None
    span: tuple[int, int]
    seen: Tensor | None = None

    @property
    def is_detached(self) -> bool:
        """Whether `.detach()` or `.data` cuts it off; otherwise it is `no_grad`."""
        return any(form in CUTS for form in self.forms)

    @property
    def share(self) -> Tensor:
        """The gradient through this use alone, as the weight lies; after a backward pass."""
        assert self.seen is not None
        gradient = self.seen.grad if self.seen.retains_grad else None
        return torch.zeros_like(self.seen) if gradient is None else gradient

    @property
    def place(self) -> tuple[int, str, str]:
        """What stays the same from one forward pass to the next."""
        return self.root, self.function, self.line.module

    def described(self, name: str) -> str:
        """In words: "linear(…, weight.t()) in decoder"."""
        view = "".join(map(spelled, self.forms))
        return f"{self.function}(…, {name}{view}) in {self.line.module or self.line}"


@dataclass(eq=False)
class Recorder(TorchFunctionMode):
    """Computes in float64 and records each use of the weights.

    Attributes:
        roots: identity of a tensor → (identity of the weight it is, its float64 stand-in).
        paths: identity of a submodule → its path.
        tracked: weights whose every use gets a gradient of its own.
        deltas: what to add to the weight at some of these uses alone, by their number.
        shifts: what to add to a weight at each of its uses.
        exits: where elements of a weight were handed out, for a use that torch does not see.
        stage: what is at work where no submodule is, once the forward pass is over.
    """

    roots: Mapping[int, tuple[int, Tensor]]
    paths: Mapping[int, str]
    tracked: frozenset[int] = frozenset()
    deltas: Mapping[int, Tensor] = field(default_factory=dict)
    shifts: Mapping[int, Tensor] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    exits: list[Use] = field(default_factory=list)
    recording: bool = True
    stage: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._views: dict[int, tuple[Tensor, View]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Torch's hook: called in the place of every function of torch."""
        name = name_of(func)
        return self.call(torch.Tensor.double if name in CASTS else func, name, args, kwargs or {})

    def call(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a function on float64 stand-ins and record which weights it consumes."""
        question = name in QUESTIONS or is_getter(func)
        if writes(name) or (question and name not in CARRIERS):
            return func(*_mapped(args, self._stand_in), **_mapped(kwargs, self._stand_in))
        seen = self._view(args[0]) if args and isinstance(args[0], Tensor) else None
        if name in EXITS:
            return self._hand_out(seen, func, name, args, kwargs)
        if seen is not None and name in CARRIERS:
            return self._carry(seen, func, name, args, kwargs)
        found: list[Use] = []
        consume = functools.partial(self._consumed, name=name, found=found)
        result = func(*_mapped(args, consume), **_mapped(kwargs, consume))
        if found and _any_tensor(result):
            self.uses += found
        return result

    def _stand_in(self, value: Any) -> Any:
        """A weight's stand-in; anything else as it is, in float64 where it has a type."""
        if isinstance(value, Tensor):
            return self.roots[id(value)][1] if id(value) in self.roots else value
        if isinstance(value, torch.dtype) and value.is_floating_point:
            return torch.float64
        return value

    def _view(self, tensor: Tensor) -> View | None:
        if id(tensor) in self.roots:
            return View(self.roots[id(tensor)][0])
        return self._views[id(tensor)][1] if id(tensor) in self._views else None

    def _carry(
        self, seen: View, func: Callable[..., Any], name: str, args: Any, kwargs: Any
    ) -> Any:
        rest, named = _mapped(args[1:], self._stand_in), _mapped(kwargs, self._stand_in)
        grad = torch.is_grad_enabled()

        def step(tensor: Tensor) -> Tensor:
            with torch.set_grad_enabled(grad):
                changed: Tensor = func(tensor, *rest, **named)
                return changed

        result = step(self._stand_in(args[0]))
        if isinstance(result, Tensor):
            line = self._line()
            openly = name in CUTS or (not grad and not line.is_torch)
            cut = seen.cut or (line if openly else None)
            view = View(seen.root, (*seen.steps, step), (*seen.names, name), cut)
            self._views[id(result)] = (result, view)
        return result

    def _hand_out(
        self, seen: View | None, func: Callable[..., Any], name: str, args: Any, kwargs: Any
    ) -> Any:
        tensor = self._stand_in(args[0])
        if seen is not None and self.recording:
            span = _span(tensor, self.roots[seen.root][1])
            self.exits.append(Use(seen.root, name, seen.names, self._line(), seen.cut, span))
        return func(tensor, *args[1:], **kwargs)

    def _consumed(self, value: Any, *, name: str, found: list[Use]) -> Any:
        seen = self._view(value) if isinstance(value, Tensor) else None
        if seen is None or not self.recording:
            value = self._stand_in(value)
            if isinstance(value, Tensor) and value.is_floating_point():
                return value.double()
            return value
        line, tensor, own = self._line(), self._stand_in(value), None
        span = _span(tensor, self.roots[seen.root][1])
        if seen.root in self.tracked:
            base = self.roots[seen.root][1]
            number = sum(use.seen is not None for use in (*self.uses, *found))
            own = base + self.deltas[number] if number in self.deltas else base.view_as(base)
            if own.requires_grad:
                own.retain_grad()
            tensor = seen.of(own)
        elif seen.root in self.shifts:
            base = self.roots[seen.root][1]
            tensor = seen.of(base + self.shifts[seen.root])
        cut = seen.cut or (None if torch.is_grad_enabled() or line.is_torch else line)
        found.append(Use(seen.root, name, seen.names, line, cut, span, own))
        return tensor

    def _line(self) -> Line:
        """The innermost line that is neither torch's nor ours, and the innermost submodule."""
        frame: FrameType | None = sys._getframe(1)
        module: str | None = None
        is_torch = False
        while frame is not None:
            path = frame.f_code.co_filename
            if module is None and isinstance(owner := frame.f_locals.get("self"), nn.Module):
                module = self.paths.get(id(owner))
            is_torch = is_torch or path.startswith(_PARAMETRIZATIONS)
            if not path.startswith((_TORCH, _HERE, "<")):
                break
            frame = frame.f_back
        if self.stage or frame is None:
            return Line(module=module or self.stage)
        return Line(frame.f_code.co_filename, frame.f_lineno, module or "", is_torch)


def _span(view: Tensor, weight: Tensor) -> tuple[int, int]:
    """Where a view lies in the memory of its weight; all of it where it is a copy."""
    inside = view if view.data_ptr() and _storage(view) == _storage(weight) else weight
    steps = zip(inside.shape, inside.stride(), strict=True)
    start = int(inside.storage_offset())
    return start, start + sum((size - 1) * int(stride) for size, stride in steps) + 1


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Arguments with each element of their lists, tuples and dictionaries changed."""
    if type(value) in (list, tuple):
        return type(value)(_mapped(element, change) for element in value)
    if type(value) is dict:
        return {key: _mapped(element, change) for key, element in value.items()}
    return change(value)


def _any_tensor(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_any_tensor(element) for element in value)
    return isinstance(value, Tensor)
