"""What holds for every call of our own functions, found by reading all of them."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import TYPE_CHECKING

from package_uses import Value

if TYPE_CHECKING:
    from collections.abc import Sequence


class Facts:
    """Parameters, returns, and fields: owner and name → every value that was seen there.

    Private functions are known in their own file only.
    """

    def __init__(self, trees: Sequence[ast.Module]) -> None:
        self.functions: dict[str, list[ast.FunctionDef]] = defaultdict(list)
        self.classes: dict[str, list[str]] = {}
        self._values: dict[tuple[str, str], set[Value]] = defaultdict(set)
        for number, tree in enumerate(trees):
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    self.functions[scoped(node.name, number)].append(node)
                elif isinstance(node, ast.ClassDef):
                    self.classes[node.name] = [
                        one.target.id
                        for one in node.body
                        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                    ]

    def learn(self, owner: str, name: str, value: Value | None) -> None:
        """A value that a parameter or field had once."""
        if value is not None:
            self._values[owner, name].add(value)

    def __len__(self) -> int:
        return sum(map(len, self._values.values()))

    def known(self, owner: str, name: str) -> Value | None:
        """Its value, if it is always the same, or an object of one of several classes."""
        values = self._values.get((owner, name), set())
        if len(values) > 1 and all(value.kind == "object" and not value.many for value in values):
            return Value("object", "|".join(sorted(value.name for value in values)))
        return next(iter(values)) if len(values) == 1 else None

    def declared(self, annotation: ast.expr | None) -> Value | None:
        """What an annotation says: an object of a class of ours."""
        text = "" if annotation is None else ast.unparse(annotation).strip("'\"")
        name = text.removesuffix(" | None").rpartition(".")[2]
        return Value("own", name) if name in self.classes else None


def scoped(function: str, file: int) -> str:
    """A function's name, and that of its file where others may have one of that name."""
    return f"{file}:{function}" if function.startswith("_") else function
