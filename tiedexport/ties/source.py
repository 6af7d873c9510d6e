"""The lines of a module's source that tie a weight, read where its state does not tell."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import nn

PARAMETER_OF_TRANSPOSE = "nn.Parameter of a transpose"
DATA_ASSIGNMENT = "assignment through .data"
DETACHED = "detached copy"
_TURNS = frozenset({"t", "T", "mT", "H", "mH", "transpose", "permute", "swapaxes", "adjoint"})


@dataclass(frozen=True)
class Spot:
    """A line that gives a weight to something.

    Attributes:
        target: what it is given to, in parts: ("decoder", "weight").
        ours: whether the line stands in a class of the module's own tree, or in one of `sources`.
    """

    kind: str
    target: tuple[str, ...]
    file: str
    number: int
    ours: bool

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.number}"


def spots(module: nn.Module, sources: Iterable[object] = ()) -> list[Spot]:
    """Every such line in the files that define the module's classes, and those of `sources`."""
    classes = {cls for one in module.modules() for cls in type(one).__mro__}
    own = [cls for cls in classes if cls.__module__.partition(".")[0] not in ("torch", "builtins")]
    places = [place for one in (*own, *sources) if (place := _place(one)) is not None]
    found = []
    for file in sorted({place[0] for place in places}):
        tree = _tree(file)
        for kind, target, number in _assignments(tree):
            ours = any(f == file and first <= number <= last for f, first, last in places)
            if ours or not _in_class(tree, number):
                found.append(Spot(kind, target, file, number, ours))
    return found


def match(found: Sequence[Spot], kinds: Sequence[str], names: Sequence[str]) -> Spot | None:
    """The line whose target ends most like one of these names; None where two kinds do."""

    def score(spot: Spot) -> tuple[int, bool]:
        return max(_ending(spot.target, name) for name in names), spot.ours

    fitting = [spot for spot in found if spot.kind in kinds]
    best = max(map(score, fitting), default=(0, False))
    last = [spot for spot in fitting if score(spot) == best]
    return last[0] if best[0] > 0 and len({spot.kind for spot in last}) == 1 else None


def _ending(target: tuple[str, ...], name: str) -> int:
    """How many of the last parts are the same."""
    pairs = zip(reversed(target), reversed(name.split(".")), strict=False)
    count = 0
    for mine, theirs in pairs:
        if mine != theirs:
            break
        count += 1
    return count


def _place(thing: object) -> tuple[str, int, int] | None:
    """File, first and last line; no line of a whole Python module; None without a source."""
    try:
        if inspect.ismodule(thing) and (path := inspect.getsourcefile(thing)) is not None:
            return path, 0, 0
        file = inspect.getsourcefile(thing)  # type: ignore[arg-type]
        lines, first = inspect.getsourcelines(thing)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return None
    return (file, first, first + len(lines) - 1) if file is not None else None


def _tree(file: str) -> ast.Module:
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _in_class(tree: ast.Module, number: int) -> bool:
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return any(node.lineno <= number <= (node.end_lineno or 0) for node in classes)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, tuple[str, ...], int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _given(_dotted(target), node.value, node.lineno)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from _given(_dotted(node.target), node.value, node.lineno)
        elif isinstance(node, ast.Call) and len(node.args) == 2:
            name, value = node.args
            registers = isinstance(node.func, ast.Attribute) and node.func.attr in (
                "register_parameter",
                "register_buffer",
            )
            if registers and isinstance(name, ast.Constant):
                yield from _given((str(name.value),), value, node.lineno)


def _given(
    target: tuple[str, ...], value: ast.expr, number: int
) -> Iterator[tuple[str, tuple[str, ...], int]]:
    attributes = {node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute)}
    if target[-1:] == ("data",):
        yield DATA_ASSIGNMENT, target[:-1], number
    elif isinstance(value, ast.Call) and _dotted(value.func)[-1:] == ("Parameter",):
        if attributes & _TURNS:
            yield PARAMETER_OF_TRANSPOSE, target, number
    elif attributes & {"detach", "data"}:
        yield DETACHED, target, number


def _dotted(node: ast.expr) -> tuple[str, ...]:
    """The parts of `self.layers[0].weight` behind self: layers, 0, weight."""
    if isinstance(node, ast.Attribute):
        return (*_dotted(node.value), node.attr)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return (*_dotted(node.value), str(node.slice.value))
    if isinstance(node, ast.Name) and node.id != "self":
        return (node.id,)
    return ()
