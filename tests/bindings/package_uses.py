"""What is used of one package, and what of that the package lacks or takes otherwise."""

from __future__ import annotations

import ast
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from interface import Interface, Signature


@dataclass(frozen=True)
class Value:
    """What an expression stands for.

    Attributes:
        kind: "module" (TensorRT), a "class" of it, an "object" of that class, a "method" or
            "property" of the class itself, "called" for what gives an object when it is called;
            "own": an object of a class of ours; "import": a name of another module of ours.
        name: the class; "A|B" if it may be either.
        member: the method.
        many: a sequence of these; 2 for a sequence of sequences.
        bound: the method already has its object.
    """

    kind: str
    name: str = ""
    member: str = ""
    many: int = 0
    bound: bool = True

    @property
    def one(self) -> Value | None:
        """An element of the sequence, or a value of the mapping."""
        return replace(self, many=self.many - 1) if self.many else None


@dataclass(frozen=True)
class Arguments:
    """The values of a call: by position, and by name; `exact` if none is unpacked."""

    values: Sequence[Value | None]
    keywords: Mapping[str, Value | None]
    exact: bool = True

    def __str__(self) -> str:
        return f"({', '.join([*('…' for _ in self.values), *(f'{n}=…' for n in self.keywords)])})"


class PackageUses:
    """Every member used so far, and every fault, in the order of our sources.

    Attributes:
        found: "Class.member" or name of the module.
        faults: file number, line → what is wrong.
    """

    def __init__(self, interface: Interface, lacking: Mapping[str, str]) -> None:
        self.interface = interface
        self.found: set[str] = set()
        self.faults: dict[tuple[int, int], str] = {}
        self.where = 0
        self._optional = frozenset(
            name for name, who in lacking.items() if str(interface).startswith(who)
        )

    @contextmanager
    def allowing(self, names: set[str]) -> Iterator[None]:
        """What is asked for before it is used may be absent."""
        before, self._optional = self._optional, self._optional | names
        try:
            yield
        finally:
            self._optional = before

    def of_module(self, name: str, node: ast.AST) -> Value | None:
        """A name of the module."""
        if name in self.interface.classes:
            self.found.add(name)
            return Value("class", name)
        if name in self.interface.names:
            self.found.add(name)
            kind = self.interface.names[name]
            return Value("object", kind) if kind in self.interface.classes else None
        if name not in self._optional:
            self._fault(node, f"no {name}")
        return None

    def of_object(
        self, owner: Value, name: str, node: ast.AST, write: bool = False
    ) -> Value | None:
        """A member of an object or of a class; what may be of several classes has it in all."""
        values = [
            self._of_class(replace(owner, name=name_), name, node, write)
            for name_ in owner.name.split("|")
        ]
        return values[0]

    def member(self, enumeration: Value, name: str, node: ast.AST) -> None:
        """A member of an enumeration, which our source has as a string."""
        members = self.interface.classes.get(enumeration.name, {})
        if "__members__" in members:
            self._of_class(enumeration, name, node, write=False)

    def constant(self, name: str, node: ast.AST) -> None:
        """A string of ours that looks like a member: some enumeration has it."""
        if name not in self._optional and not self.interface.has_member(name):
            self._fault(node, f"no enumeration has {name}")

    def layer(self, kind: str, node: ast.AST) -> Value | None:
        """A layer of a kind, which our source has as a string."""
        self.member(Value("class", "LayerType"), kind, node)
        owner = self.interface.layer_class(kind)
        return None if owner is None else Value("object", owner)

    def _of_class(self, owner: Value, name: str, node: ast.AST, write: bool) -> Value | None:
        members = self.interface.classes[owner.name]
        if name not in members:
            if name not in self._optional:
                self._fault(node, f"{owner.name} has no {name}")
            return None
        self.found.add(f"{owner.name}.{name}")
        member = members[name]
        if write and not member.get("settable"):
            self._fault(node, f"{owner.name}.{name} cannot be set")
        if member["kind"] == "member":
            return Value("object", owner.name)
        if member["kind"] == "class":
            return Value("class", member["name"])
        if member["kind"] == "property":
            kind = self.interface.property_class(owner.name, name)
            what = "object" if owner.kind == "object" else "property"
            return None if kind is None else Value(what, kind)
        return Value("method", owner.name, name, bound=owner.kind == "object")

    def call(self, called: Value, node: ast.AST, arguments: Arguments) -> Value | None:
        """What a method or constructor returns; its arguments fit one of its signatures."""
        if called.kind == "called":
            return Value("object", called.name)
        signatures = self.interface.signatures(called.name, called.member or "__init__")
        if not called.bound:
            arguments = replace(arguments, values=arguments.values[1:])
        fitting = [one for one in signatures if _fits(one, arguments)]
        what = f"{called.name}.{called.member}" if called.member else called.name
        if signatures and not fitting:
            takes = " or ".join(map(str, signatures))
            self._fault(node, f"{what} takes {takes}, not {arguments}")
        wrong = [self._wrong_type(one, arguments) for one in fitting]
        if wrong and all(wrong):
            self._fault(node, f"{what}: {wrong[0]}")
        if not called.member:
            return Value("object", called.name)
        returned = [one for one in fitting if one.returns is not None]
        return (
            Value("object", str(returned[0].returns), many=returned[0].many) if returned else None
        )

    def overrides(self, base: str, node: ast.ClassDef) -> None:
        """Methods of ours that TensorRT calls have its names and as many parameters."""
        for method in node.body:
            if not isinstance(method, ast.FunctionDef) or method.name.startswith("_"):
                continue
            if f"self.{method.name}(" in ast.unparse(node):
                continue  # it is we who call this one
            if self.of_object(Value("class", base), method.name, method) is not None:
                takes = self.interface.callback_parameters(base, method.name)
                if len(method.args.args) - 1 != len(takes):
                    self._fault(method, f"{base}.{method.name} is given ({', '.join(takes)})")

    def _wrong_type(self, signature: Signature, arguments: Arguments) -> str:
        if not arguments.exact:
            return ""
        expected = dict(signature.parameters)
        given = {**dict(zip(expected, arguments.values, strict=False)), **arguments.keywords}
        for name, value in given.items():
            wanted = expected[name]
            if value is None or value.kind != "object" or value.many or wanted is None:
                continue
            if all(wanted not in self.interface.bases[one] for one in value.name.split("|")):
                return f"{name} is a {wanted}, not a {value.name}"
        return ""

    def _fault(self, node: Any, text: str) -> None:
        self.faults.setdefault((self.where, node.lineno), text)


def _fits(signature: Signature, arguments: Arguments) -> bool:
    keywords = tuple(arguments.keywords)
    return not arguments.exact or signature.fits(len(arguments.values), keywords)
