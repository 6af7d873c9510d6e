"""What a package of TensorRT's bindings has: classes, members, and signatures out of their docs."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

_DUMP = Path(__file__).parent / "dump_interface.py"
_RENAMED = {"IParserError": "ParserError"}
"""C++ class, where pybind says that → the Python class."""


@dataclass(frozen=True)
class Signature:
    """One overload: parameters without self, those that need a value, and what it returns."""

    parameters: tuple[tuple[str, str | None], ...]
    required: int
    returns: str | None
    many: bool = False

    def fits(self, positional: int, keywords: tuple[str, ...]) -> bool:
        """Whether a call with so many values by position, and these by name, can be made."""
        names = [name for name, _ in self.parameters]
        free = names[positional:]
        given = {*names[:positional], *keywords}
        return (
            positional <= len(names)
            and set(keywords) <= set(free)
            and set(names[: self.required]) <= given
        )

    def __str__(self) -> str:
        return f"({', '.join(name for name, _ in self.parameters)})"


@dataclass(frozen=True, eq=False)
class Interface:
    """Classes and names of one package.

    Attributes:
        names: of values of the module → their class.
        classes: class → member → kind, doc, and whether it can be set.
        bases: class → itself and what it derives from.
    """

    version: str
    names: dict[str, str]
    classes: dict[str, dict[str, dict[str, Any]]]
    bases: dict[str, list[str]]
    package: str = field(default="tensorrt")

    @classmethod
    def of(cls, package: str, folder: Path | None = None, stubs: Path | None = None) -> Interface:
        """That of an installed package, or of one in a folder, over stub libraries if it needs any.

        It is imported in a process of its own: stub libraries are nothing to keep.
        """
        command = [sys.executable, str(_DUMP), package, *([str(folder)] if folder else [])]
        variables = {**os.environ, **({"LD_LIBRARY_PATH": str(stubs)} if stubs else {})}
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        assert done.returncode == 0, done.stderr
        return cls(**json.loads(done.stdout), package=package.removesuffix("_bindings"))

    def __str__(self) -> str:
        return f"{self.package} {self.version}"

    @cached_property
    def every_member(self) -> frozenset[str]:
        """The names of all members of all classes."""
        return frozenset(name for members in self.classes.values() for name in members)

    def signatures(self, owner: str, method: str) -> list[Signature]:
        """The overloads of a method; of a class's constructor as "__init__"."""
        doc = self.classes[owner][method].get("doc", "")
        pattern = rf"^(?:\d+\. )?{re.escape(method)}(\(self.*)$"
        return [self._signature(text) for text in re.findall(pattern, doc, re.MULTILINE)]

    def callback_parameters(self, owner: str, method: str) -> list[str]:
        """What TensorRT passes to a method of ours that overrides its own.

        Signatures are those of C++ (`write` takes an address and a size); the words below them
        list what Python gets.
        """
        return re.findall(r":arg (\w+):", self.classes[owner][method].get("doc", ""))

    def property_class(self, owner: str, name: str) -> str | None:
        """The class of a property's value, if it is one of the package's."""
        found = re.match(r"\(.*\) -> (.*)", self.classes[owner][name].get("doc", ""))
        return self.class_named(found[1]) if found else None

    def class_named(self, text: str) -> str | None:
        """The class of this package that an annotation names, "tensorrt.ITensor" or C++'s form."""
        dotted = text.replace("::", ".").strip()
        for start in (2, 1):
            name = ".".join(dotted.split(".")[-start:])
            name = _RENAMED.get(name, name)
            if name in self.classes:
                return name
        return None

    def has_member(self, name: str) -> bool:
        """Whether any enumeration has a member of this name."""
        return any(one.get(name, {}).get("kind") == "member" for one in self.classes.values())

    def layer_class(self, kind: str) -> str | None:
        """The class of layers of a LayerType: IMatrixMultiplyLayer for "MATRIX_MULTIPLY"."""
        wanted = f"i{kind.replace('_', '')}layer".lower()
        return next((name for name in self.classes if name.lower() == wanted), None)

    def _signature(self, text: str) -> Signature:
        plain = re.sub(r"<[^<>]*>", "...", text).replace("::", ".")
        definition = ast.parse(f"def _{plain}: ...").body[0]
        assert isinstance(definition, ast.FunctionDef)
        arguments = definition.args.args[1:]
        returns = "" if definition.returns is None else ast.unparse(definition.returns)
        return Signature(
            tuple(
                (one.arg, self.class_named(ast.unparse(one.annotation)) if one.annotation else None)
                for one in arguments
            ),
            len(arguments) - len(definition.args.defaults),
            self.class_named(returns.rstrip("]").rpartition("[")[2] or returns),
            "[" in returns,
        )
