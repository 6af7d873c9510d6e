"""Names in a graph: each that is used is defined, and once."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from tiedexport.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import onnx


def check_names(model: onnx.ModelProto, path: Path) -> None:
    """Check every graph and function body.

    Raises:
        GraphError: a value, function or attribute that is defined twice, a value that nothing
            defines, or a function that calls itself.
    """
    _check_graph(model.graph, frozenset(), str(path))
    _check_calls(model.functions, str(path))
    for function in model.functions:
        where = f"{path}, function {function.name}"
        defined = _defined(function.input, function.node, where)
        _check_nodes(function.node, defined, where)
        _require(function.output, defined, "an output", where)


def _check_calls(functions: Sequence[onnx.FunctionProto], where: str) -> None:
    called = {f"{f.domain}::{f.name} {f.overload}".rstrip(): _calls(f.node) for f in functions}
    if len(called) < len(functions):
        raise GraphError("functions of one name", where=where, got=", ".join(called))
    try:
        TopologicalSorter(called).prepare()
    except CycleError as error:
        cycle = " → ".join(error.args[1])
        raise GraphError("a function that calls itself", where=where, got=cycle) from error


def _calls(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """What nodes would call if there are functions of these names, also in their subgraphs."""
    found = set()
    for node in nodes:
        found.add(f"{node.domain}::{node.op_type} {node.overload}".rstrip())
        for graph in _subgraphs(node):
            found |= _calls(graph.node)
    return found


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_graph(graph: onnx.GraphProto, outer: frozenset[str], where: str) -> None:
    inputs = {value.name for value in graph.input}
    # Up to ONNX 1.3 each initializer was an input as well: its default.
    initializers = [tensor.name for tensor in graph.initializer]
    if len(set(initializers)) < len(initializers) or "" in initializers:
        twice = next(name for name in initializers if not name or initializers.count(name) > 1)
        raise _twice(twice, where)
    names = [value.name for value in graph.input]
    names += [name for name in initializers if name not in inputs]
    defined = _defined(names, graph.node, where)
    _check_nodes(graph.node, defined | outer, where)
    _require([value.name for value in graph.output], defined, "an output", where)


def _defined(names: Iterable[str], nodes: Iterable[onnx.NodeProto], where: str) -> frozenset[str]:
    found: set[str] = set()
    for name in (*names, *(name for node in nodes for name in node.output if name)):
        if name in found:
            raise _twice(name, where)
        found.add(name)
    return frozenset(found)


def _check_nodes(nodes: Iterable[onnx.NodeProto], known: frozenset[str], where: str) -> None:
    for index, node in enumerate(nodes):
        label = node.name or f"{node.op_type}_{index}"
        _require(filter(None, node.input), known, f"{label} ({node.op_type})", where)
        attributes = [attribute.name for attribute in node.attribute]
        if len(set(attributes)) < len(attributes):
            raise GraphError(
                "attributes of one name", where=f"{where}, {label}", got=", ".join(attributes)
            )
        for graph in _subgraphs(node):
            _check_graph(graph, known, f"{where}, {label}")


def _require(names: Iterable[str], known: frozenset[str], user: str, where: str) -> None:
    for name in names:
        if name not in known:
            raise GraphError(
                "a value that nothing defines",
                where=where,
                got=f"{user} reads {name!r}",
                expected="an input, an initializer or another node's output",
            )


def _twice(name: str, where: str) -> GraphError:
    got = f"{name!r} more than once" if name else "an initializer without a name"
    return GraphError("names that are not unique", where=where, got=got)
