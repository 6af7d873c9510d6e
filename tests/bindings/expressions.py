"""The values of expressions of our source, as far as they are TensorRT's or lead to them."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from facts import Facts, scoped
from package_uses import Arguments, PackageUses, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Scope = dict[str, Value | None]

_SAME_ELEMENTS = ("list", "tuple", "reversed", "sorted", "set", "iter")
_MEMBER = re.compile(r"[A-Z][A-Z0-9]{2,}(_[A-Z0-9]+)*")
_AN_ELEMENT = ("next", "min", "max")


class Expressions:
    """Walks expressions and tells `uses` of every attribute and call of TensorRT's."""

    def __init__(self, facts: Facts, uses: PackageUses, named: Mapping[str, Value]) -> None:
        self.facts, self.uses, self.named = facts, uses, named
        self.unclear: dict[tuple[int, int], str] = {}
        self.function = ""
        self.members_by_name = True

    def value(self, node: ast.expr, scope: Scope) -> Value | None:
        """What an expression stands for; None if that is nothing of TensorRT's."""
        walk = getattr(self, f"_{type(node).__name__.lower()}", None)
        if walk is not None:
            return walk(node, scope)
        self.inside(node, scope)
        return None

    def inside(self, node: ast.AST, scope: Scope) -> None:
        """The expressions in a node."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.value(child, scope)
            else:
                self.inside(child, scope)

    def bind(self, target: ast.expr, value: Value | None, scope: Scope) -> None:
        """Give a value to a name, a field, or a property of TensorRT's."""
        if isinstance(target, ast.Name):
            scope[target.id] = value
        elif isinstance(target, ast.Attribute) and target.attr == "__class__":
            # A plain ILayer becomes a layer of its own kind.
            if isinstance(target.value, ast.Name) and value is not None:
                scope[target.value.id] = Value("object", value.name)
        elif isinstance(target, ast.Attribute):
            owner = self.value(target.value, scope)
            if owner is not None and owner.kind == "own":
                self.facts.learn(owner.name, target.attr, value)
            elif owner is not None and owner.kind == "object":
                self.uses.of_object(owner, target.attr, target, write=True)
            else:
                self._attribute_of(owner, target.attr, target)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for one in target.elts:
                self.bind(one, value.one if value else None, scope)
        elif isinstance(target, ast.Subscript) and value is not None:
            self.bind(target.value, replace(value, many=value.many + 1), scope)
        else:
            self.value(target, scope)

    def loop(self, target: ast.expr, over: ast.expr, scope: Scope) -> None:
        """`for target in over`."""
        called = over.func.id if isinstance(over, ast.Call) and _is_name(over.func) else ""
        if called in ("enumerate", "zip") and isinstance(target, ast.Tuple):
            arguments = over.args
            targets = target.elts[1:] if called == "enumerate" else target.elts
            for one, many in zip(targets, arguments, strict=False):
                self.loop(one, many, scope)
            return
        many = self.value(over, scope)
        self.bind(target, many.one if many else None, scope)

    def _name(self, node: ast.Name, scope: Scope) -> Value | None:
        return scope.get(node.id)

    def _constant(self, node: ast.Constant, scope: Scope) -> None:
        is_text = self.members_by_name and isinstance(node.value, str)
        if is_text and _MEMBER.fullmatch(node.value):
            self.uses.constant(node.value, node)

    def _joinedstr(self, node: ast.JoinedStr, scope: Scope) -> None:
        for one in node.values:
            if isinstance(one, ast.FormattedValue):
                self.value(one.value, scope)

    def _starred(self, node: ast.Starred, scope: Scope) -> Value | None:
        value = self.value(node.value, scope)
        return value.one if value else None

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Value | None:
        value = self._attribute_of(self.value(node.value, scope), node.attr, node)
        return scope.get(ast.unparse(node), value) if node.attr == "layer" else value

    def _ifexp(self, node: ast.IfExp, scope: Scope) -> Value | None:
        self.value(node.test, scope)
        values = [self.value(branch, scope) for branch in (node.body, node.orelse)]
        return next((value for value in values if value is not None), None)

    def _boolop(self, node: ast.BoolOp, scope: Scope) -> Value | None:
        inner, values = dict(scope), []
        for branch in node.values:
            values.append(self.value(branch, inner))
            inner |= self.narrowed(branch) if isinstance(node.op, ast.And) else {}
        scope |= {name: value for name, value in inner.items() if name.isidentifier()}
        return next((value for value in values if value is not None), None)

    def _namedexpr(self, node: ast.NamedExpr, scope: Scope) -> Value | None:
        value = self.value(node.value, scope)
        self.bind(node.target, value, scope)
        return value

    def _subscript(self, node: ast.Subscript, scope: Scope) -> Value | None:
        value, _ = self.value(node.value, scope), self.value(node.slice, scope)
        return value if value is None or isinstance(node.slice, ast.Slice) else value.one

    def _listcomp(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, scope: Scope
    ) -> Value | None:
        return _many([self.value(node.elt, self._generated(node.generators, scope))])

    _generatorexp = _setcomp = _listcomp

    def _dictcomp(self, node: ast.DictComp, scope: Scope) -> None:
        inner = self._generated(node.generators, scope)
        self.value(node.key, inner)
        self.value(node.value, inner)

    def _generated(self, generators: Sequence[ast.comprehension], scope: Scope) -> Scope:
        inner = dict(scope)
        for one in generators:
            self.loop(one.target, one.iter, inner)
            for test in one.ifs:
                self.value(test, inner)
                inner |= self.narrowed(test)
        return inner

    def narrowed(self, test: ast.expr) -> Scope:
        """What `node.kind == "MATRIX_MULTIPLY"`, and more, says of `node.layer`."""
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            parts = [self.narrowed(one) for one in test.values]
            return {name: value for part in parts for name, value in part.items()}
        if isinstance(test, ast.Compare) and isinstance(test.comparators[0], ast.Constant):
            subject, _, asked = ast.unparse(test.left).rpartition(".")
            kind = str(test.comparators[0].value)
            if asked == "kind" and isinstance(test.ops[0], ast.Eq) and _MEMBER.fullmatch(kind):
                return {f"{subject}.layer": self.uses.layer(kind, test)}
        return {}

    def _tuple(self, node: ast.Tuple | ast.List | ast.Set, scope: Scope) -> Value | None:
        return _many([self.value(one, scope) for one in node.elts])

    _list = _set = _tuple

    def _dict(self, node: ast.Dict, scope: Scope) -> None:
        """A table from kinds of layers to our functions says what those functions are given."""
        self.inside(node, scope)
        for key, function in zip(node.keys, node.values, strict=True):
            kind = key.value if isinstance(key, ast.Constant) else None
            name = ast.unparse(function).rpartition(".")[2]
            owner = self.uses.interface.layer_class(str(kind))
            definitions = self.facts.functions.get(scoped(name, self.uses.where), ())
            if owner is not None and definitions:
                first = definitions[0].args.args[0].arg
                self.facts.learn(
                    scoped(name, self.uses.where), first, self.uses.layer(str(kind), node)
                )

    def _compare(self, node: ast.Compare, scope: Scope) -> None:
        """`member.name == "TRANSPOSE"` is about a member that the enumeration must have."""
        self.inside(node, scope)
        if isinstance(node.left, ast.Attribute) and node.left.attr == "name":
            member = self.value(node.left.value, scope)
            for constant in node.comparators:
                if member is not None and isinstance(constant, ast.Constant):
                    self.uses.member(member, str(constant.value), node)

    def _call(self, node: ast.Call, scope: Scope) -> Value | None:
        values = [self.value(one, scope) for one in node.args]
        keywords = {one.arg or "": self.value(one.value, scope) for one in node.keywords}
        unpacked = "" in keywords or any(isinstance(one, ast.Starred) for one in node.args)
        arguments = Arguments(values, keywords, not unpacked)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "values":
            return self.value(node.func.value, scope)
        called = self.value(node.func, scope)
        if called is not None and called.kind in ("method", "class", "called"):
            return self.uses.call(called, node, arguments)
        if isinstance(node.func, ast.Name) and node.func.id not in scope:
            if node.func.id in ("getattr", "hasattr"):
                return self._asked(node, values)
            if values and node.func.id in _SAME_ELEMENTS:
                return values[0]
            if values and values[0] and node.func.id in _AN_ELEMENT:
                return values[0].one
        return self._call_of_ours(node.func, arguments)

    def _asked(self, node: ast.Call, values: Sequence[Value | None]) -> Value | None:
        """`getattr` and `hasattr`: with a default, the attribute may be absent."""
        if not isinstance(node.args[1], ast.Constant):
            return None
        name = str(node.args[1].value)
        optional = len(node.args) > 2 or node.func.id == "hasattr"
        with self.uses.allowing({name} if optional else set()):
            return self._attribute_of(values[0], name, node)

    def _call_of_ours(self, function: ast.expr, arguments: Arguments) -> Value | None:
        """The arguments are what our function's parameters stand for; → what it returns."""
        name = function.attr if isinstance(function, ast.Attribute) else ""
        name = function.id if isinstance(function, ast.Name) else name
        if name in self.facts.classes:
            by_position = zip(self.facts.classes[name], arguments.values, strict=False)
            for field, value in (*by_position, *arguments.keywords.items()):
                self.facts.learn(name, field, value)
        key = scoped("__init__" if name in self.facts.classes else name, self.uses.where)
        for definition in self.facts.functions.get(key, ()):
            names = [one.arg for one in definition.args.args]
            names = names[1:] if names[:1] in (["self"], ["cls"]) else names
            by_position = zip(names, arguments.values, strict=False)
            for parameter, value in (*by_position, *arguments.keywords.items()):
                self.facts.learn(key, parameter, value)
        if name in self.facts.classes:
            return Value("own", name)
        return self.returned(key)

    def returned(self, key: str) -> Value | None:
        """What our functions of a name return."""
        said = [self.facts.declared(one.returns) for one in self.facts.functions.get(key, ())]
        if said and said[0] is not None and set(said) == {said[0]}:
            return said[0]
        return self.facts.known("return", key)

    def _attribute_of(self, owner: Value | None, name: str, node: ast.AST) -> Value | None:
        if owner is not None and not owner.many:
            if owner.kind == "module":
                return self.uses.of_module(name, node)
            if owner.kind in ("object", "class"):
                return self.uses.of_object(owner, name, node)
            if owner.kind == "property":
                return Value("called", owner.name)
            if owner.kind == "import":
                return None
            if owner.kind == "own":
                known = self.facts.known(owner.name, name)
                return known or self.returned(scoped(name, self.uses.where)) or self.named.get(name)
        if (named := self.named.get(name)) is not None:
            return named
        interface = self.uses.interface
        telling = "_" in name.strip("_") and name in interface.every_member
        if owner is None and (telling or name in interface.classes):
            place = self.uses.where, node.lineno
            self.unclear.setdefault(place, f"of what class is the object that has {name}?")
        return None


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def _many(values: Sequence[Value | None]) -> Value | None:
    """A sequence of values of one kind."""
    kinds = set(values)
    only = kinds.pop() if len(kinds) == 1 else None
    return None if only is None else replace(only, many=only.many + 1)
