"""What our own source calls of TensorRT: its syntax trees are walked, with the classes of values.

A value's class follows from where it comes from: the module handle, constructors, and the return
annotations of TensorRT's own docs; through assignments, loops, and parameters, fields and returns
of our functions. Where that ends, a table says what a name stands for.
"""

from __future__ import annotations

import ast
from functools import cache
from typing import TYPE_CHECKING

from expressions import Expressions, Scope
from facts import Facts, scoped
from package_uses import PackageUses, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from interface import Interface

PACKAGES = ("tensorrt", "tensorrt_rtx")


@cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


class Uses(Expressions):
    """All uses of one package in some sources.

    Args:
        interface: the package.
        sources: file → its source.
        named: name of a parameter, field or attribute → what it stands for, where nothing else
            tells: "module" or a class of TensorRT's. "function.name" is for one function only.
        by_name: beginnings of files whose strings in capitals are members of enumerations.
        lacking: name → the packages that lack it and are not asked for it, as the beginning of
            package and version.
    """

    def __init__(
        self,
        interface: Interface,
        sources: Mapping[str, str],
        named: Mapping[str, str],
        lacking: Mapping[str, str],
        by_name: tuple[str, ...] = ("",),
    ) -> None:
        self.files = list(sources)
        trees = [_parsed(source) for source in sources.values()]
        facts = Facts(trees)
        values = {
            name: Value("module") if kind == "module" else Value("object", kind)
            for name, kind in named.items()
        }
        # Fields, parameters and returns refer to each other: until nothing new is learned.
        before = -1
        while len(facts) > before:
            before = len(facts)
            super().__init__(facts, PackageUses(interface, lacking), values)
            for self.uses.where, tree in enumerate(trees):
                self._class = self.function = ""
                self.members_by_name = self.files[self.uses.where].startswith(by_name)
                self._run(tree.body, {})

    @property
    def found(self) -> set[str]:
        """The uses, each "Class.member" or a name of the module."""
        return self.uses.found

    def first_fault(self) -> str | None:
        """The first thing that the package lacks or takes otherwise, and our line."""
        return self._first(self.uses.faults)

    def first_unclear(self) -> str | None:
        """The first access of what only TensorRT has, on something of unknown class."""
        return self._first(self.unclear)

    def _first(self, notes: Mapping[tuple[int, int], str]) -> str | None:
        if not notes:
            return None
        file, line = min(notes)
        return f"{self.uses.interface}: {notes[file, line]} ({self.files[file]}:{line})"

    def _run(self, statements: Sequence[ast.stmt], scope: Scope) -> None:
        for statement in statements:
            self._step(statement, scope)

    def _step(self, node: ast.AST, scope: Scope) -> None:
        walk = getattr(self, f"_run_{type(node).__name__.lower()}", None)
        if walk is not None:
            walk(node, scope)
        elif isinstance(node, ast.expr):
            self.value(node, scope)
        else:  # any other statement: its expressions and blocks, in order
            for child in ast.iter_child_nodes(node):
                self._step(child, scope)

    def _run_import(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        for one in node.names:
            scope[one.asname or one.name] = Value("import")

    _run_importfrom = _run_import

    def _run_assign(self, node: ast.Assign, scope: Scope) -> None:
        if ast.unparse(node.targets[0]) == "__all__":
            return
        target, value = node.targets[0], node.value
        if isinstance(value, ast.Tuple) and isinstance(target, ast.Tuple):
            starred = any(isinstance(one, ast.Starred) for one in (*value.elts, *target.elts))
            if not starred and len(value.elts) == len(target.elts):
                for one, part in zip(target.elts, value.elts, strict=True):
                    self.bind(one, self.value(part, scope), scope)
                return
        assigned = self.value(value, scope)
        for one in node.targets:
            self.bind(one, assigned, scope)

    def _run_annassign(self, node: ast.AnnAssign, scope: Scope) -> None:
        value = None if node.value is None else self.value(node.value, scope)
        self.bind(node.target, value, scope)
        if self._class and not self.function and isinstance(node.target, ast.Name):
            field = node.target.id
            self.facts.learn(self._class, field, self._stands_for(field, node.annotation))

    def _run_for(self, node: ast.For, scope: Scope) -> None:
        self.loop(node.target, node.iter, scope)
        self._run([*node.body, *node.orelse], scope)

    def _run_withitem(self, node: ast.withitem, scope: Scope) -> None:
        value = self.value(node.context_expr, scope)
        if node.optional_vars is not None:
            self.bind(node.optional_vars, value, scope)

    def _run_return(self, node: ast.Return, scope: Scope) -> None:
        if node.value is not None:
            self.facts.learn("return", self.function, self.value(node.value, scope))

    def _run_if(self, node: ast.If, scope: Scope) -> None:
        self.value(node.test, scope)
        package, same = _package_asked_for(node.test)
        ours = package == self.uses.interface.package
        if package is None or ours == same:
            narrowed = self.narrowed(node.test)
            scope |= narrowed
            with self.uses.allowing(_asked_for(node.test)):
                self._run(node.body, scope)
            for name in narrowed:
                del scope[name]
        if package is None or ours != same:
            self._run(node.orelse, scope)

    def _run_classdef(self, node: ast.ClassDef, scope: Scope) -> None:
        if _package_of(node) not in (None, self.uses.interface.package):
            return
        for base in node.bases:
            value = self.value(base, scope)
            if value is not None and value.kind == "class":
                self.uses.overrides(value.name, node)
        outside = self._class, self.function
        self._class, self.function = node.name, ""
        self._run(node.body, dict(scope))
        self._class, self.function = outside

    def _run_functiondef(self, node: ast.FunctionDef, scope: Scope) -> None:
        inner, key = dict(scope), scoped(node.name, self.uses.where)
        for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            named = self.named.get(f"{node.name}.{one.arg}")
            known = self.facts.known(key, one.arg)
            inner[one.arg] = named or known or self._stands_for(one.arg, one.annotation)
        if self._class and node.args.args and node.args.args[0].arg == "self":
            inner["self"] = Value("own", self._class)
        outside, self.function = self.function, key
        self._run(node.body, inner)
        self.function = outside

    def _stands_for(self, name: str, annotation: ast.expr | None) -> Value | None:
        """What a parameter or field is by its annotation, or by its name if it may be anything."""
        anything = annotation is not None and ast.unparse(annotation) == "Any"
        return self.named.get(name) if anything else self.facts.declared(annotation)


def _package_of(node: ast.ClassDef) -> str | None:
    """The package that a class of ours is for: its `name`."""
    for one in node.body:
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "name":
            name = ast.literal_eval(one.value) if isinstance(one.value, ast.Constant) else None
            return name if name in PACKAGES else None
    return None


def _package_asked_for(test: ast.expr) -> tuple[str | None, bool]:
    """The package that a condition asks for, and whether it asks that it be this one."""
    parts = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
    for part in parts:
        if isinstance(part, ast.Compare) and isinstance(part.comparators[0], ast.Constant):
            name = part.comparators[0].value
            if name in PACKAGES:
                return str(name), isinstance(part.ops[0], ast.Eq)
    return None, True


def _asked_for(test: ast.expr) -> set[str]:
    """The names that a condition asks for with `hasattr`."""
    return {
        str(node.args[1].value)
        for node in ast.walk(test)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "hasattr"
        and isinstance(node.args[1], ast.Constant)
    }
