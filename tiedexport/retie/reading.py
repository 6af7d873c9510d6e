"""The proof without inputs: each node of a mended graph reads the bits that it read before.

Both files are read back, and their graphs are walked side by side. Every node of the given graph
must be there, the same but for what holds its constants; each constant, evaluated from what the
mended file stores, must have the bits that the given file stores. So a branch that no input takes
is proven as well. Weights that no mend touched were only copied, and may be large: of these the
type, the shape and a sample are compared. A Gemm may read a transpose through its flag: what it
multiplies by is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from tiedexport import onnx_files
from tiedexport.copies.types import bits
from tiedexport.retie.forms import dtype_of, whole
from tiedexport.retie.graph import INPUTS_HOLD_INITIALIZERS, constant_tensor, constant_value
from tiedexport.retie.single import evaluate

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from pathlib import Path

    from tiedexport.retie.mend import Change
    from tiedexport.stored import Place, StoredTensor

_PIECE = 1 << 22  # elements that are compared at a time
_SAMPLE = 64  # elements of a weight that was only copied
_MAKING = {"Transpose", "Cast", "Reshape", "Identity"}


class UnlikeError(Exception):
    """What a mended graph does that the given one does not, in words."""


def turned_gemms(
    original: Path,
    mended: Path,
    changes: Sequence[Change] = (),
    touched: Container[Place] | None = None,
) -> list[str]:
    """Compare two graphs node by node and bit by bit.

    Args:
        original: the given graph.
        mended: the written one.
        changes: weights of the main graph whose values changed because that was accepted.
        touched: where the weights lie that are compared in full; None for all.

    Returns:
        The outputs of each Gemm that reads a transpose through its flag: the same product, for
        which a runtime may add up in another order.

    Raises:
        UnlikeError: a node is gone or differs, or it reads other bits.
    """
    walk = _Walk(original, mended, changes, touched)
    walk.graph(walk.given.model.graph, walk.written.model.graph)
    for name, function in walk.given.model.functions.items():
        walk.graph(function.graph, walk.written.model.functions[name].graph)
    return walk.turned


class _Side:
    """One of the two files: its graphs and what it stores."""

    def __init__(self, path: Path) -> None:
        self.model = onnx_files.load(path)
        self.stored: dict[ir.Value, StoredTensor] = {}
        for tensor in onnx_files.stored_tensors(self.model, path):
            if (value := constant_value(tensor.handle)) is not None:
                self.stored[value] = tensor

    def is_free(self, value: ir.Value) -> bool:
        """Whether a caller decides what it is."""
        old = self.model.ir_version < INPUTS_HOLD_INITIALIZERS
        return value.is_graph_input() and not (old and value.is_initializer())


class _Walk:
    """Both graphs, walked from the given one's nodes."""

    def __init__(
        self,
        original: Path,
        mended: Path,
        changes: Sequence[Change],
        touched: Container[Place] | None,
    ) -> None:
        self.given, self.written = _Side(original), _Side(mended)
        self._touched = touched
        self.turned: list[str] = []
        self._changed = {change.old.name: change.new for change in changes}
        self._kept: set[ir.Node] = set()
        self._agreed: set[tuple[ir.Value, ir.Value, bool]] = set()

    def graph(self, given: ir.Graph, written: ir.Graph) -> None:
        nodes = {_label(node): node for node in written}
        ours = [node for node in given if constant_value(node) is None]
        if missing := [label for label in map(_label, ours) if label not in nodes]:
            raise UnlikeError(f"{missing[0]} is gone")
        self._kept.update(nodes[_label(node)] for node in ours)
        free = [
            [v.name for v in graph.inputs if side.is_free(v)]
            for side, graph in ((self.given, given), (self.written, written))
        ]
        if free[0] != free[1]:
            raise UnlikeError("the inputs differ")
        for node in ours:
            self._node(node, nodes[_label(node)])
        if [v.name for v in given.outputs] != [v.name for v in written.outputs]:
            raise UnlikeError("the outputs differ")
        for one, other in zip(given.outputs, written.outputs, strict=True):
            self._value(one, other, f"the output {one.name}")

    def _node(self, given: ir.Node, written: ir.Node) -> None:
        label = _label(given)
        if given.op_identifier() != written.op_identifier():
            raise UnlikeError(f"{label} became {written.op_type}")
        turned = given.op_type == "Gemm" and _flag(given) != _flag(written)
        names = given.attributes.keys() | written.attributes.keys()
        for name in sorted(names - {"transB"} if turned else names):
            one, other = given.attributes.get(name), written.attributes.get(name)
            if one is None or other is None or not self._attribute(one, other):
                raise UnlikeError(f"{name} of {label} differs")
        if len(given.inputs) != len(written.inputs):
            raise UnlikeError(f"{label} has other inputs")
        for index, (value, now) in enumerate(zip(given.inputs, written.inputs, strict=True)):
            turns = turned and index == 1
            self._value(value, now, f"{label}, input {index},", turned=turns)
        self.turned += [str(output.name) for output in written.outputs] * turned

    def _attribute(self, given: ir.Attr, written: ir.Attr) -> bool:
        if given.type != written.type or given.is_ref() != written.is_ref():
            return False
        kinds = ir.AttributeType
        if not given.is_ref() and given.type in (kinds.GRAPH, kinds.GRAPHS):
            pairs = zip(_listed(given.value), _listed(written.value), strict=True)
            for one, other in pairs:
                self.graph(one, other)
            return True
        if not given.is_ref() and given.type in (kinds.TENSOR, kinds.TENSORS):
            ours, theirs = _listed(given.value), _listed(written.value)
            return len(ours) == len(theirs) and all(map(_same_tensor, ours, theirs))
        one, other = (ir.to_proto(attribute) for attribute in (given, written))
        return bool(one.SerializeToString() == other.SerializeToString())

    def _value(
        self, given: ir.Value | None, written: ir.Value | None, where: str, *, turned: bool = False
    ) -> None:
        if given is None or written is None:
            if given is not written:
                raise UnlikeError(f"{where} is another")
            return
        making = self._made_by(written)
        source = making[0].inputs[0] if making else written
        constants = [v is not None and _is_constant(v) for v in (given, source)]
        if not all(constants):
            if any(constants) or making or turned or given.name != written.name:
                raise UnlikeError(f"{where} reads {written.name}, not {given.name}")
            return
        if (given, written, turned) not in self._agreed:
            if not self._same(given, source, making, turned=turned):
                raise UnlikeError(f"{where} reads other bits than {given.name}")
            self._agreed.add((given, written, turned))

    def _made_by(self, value: ir.Value) -> list[ir.Node]:
        """The new nodes that make a value of a constant, in order."""
        making: list[ir.Node] = []
        current: ir.Value | None = value
        while current is not None and (node := current.producer()) is not None:
            if node in self._kept or node.op_type not in _MAKING or node.domain:
                break
            making.insert(0, node)
            current = node.inputs[0]
        return making

    def _same(
        self, given: ir.Value, source: ir.Value | None, making: list[ir.Node], *, turned: bool
    ) -> bool:
        assert source is not None
        ours, theirs = self.given.stored.get(given), self.written.stored.get(source)
        if ours is None or theirs is None:  # strings, or no element at all
            plain = ours is theirs and not making and not turned
            return plain and _same_tensor(constant_tensor(given), constant_tensor(source))
        changed = self._changed.get(ours.name) if not ours.scope else None
        if not making and not turned and changed is None:
            alike = dtype_of(ours) == dtype_of(theirs) and ours.shape == theirs.shape
            in_full = self._touched is None or ours.place in self._touched
            return alike and (_same_stored if in_full else _same_sample)(ours, theirs)
        array, opsets = whole(theirs), dict(self.written.model.opset_imports)
        for node in making:
            array = self._evaluate(node, array, opsets)
        array = array.T if turned else array
        expected = whole(ours) if changed is None else changed()
        if array.dtype != expected.dtype or array.shape != expected.shape:
            return False
        is_cast = any(node.op_type == "Cast" for node in making) or changed is not None
        one, other = (bits(np.ascontiguousarray(a), any_nan=is_cast) for a in (array, expected))
        return np.array_equal(one, other)

    def _evaluate(self, node: ir.Node, array: np.ndarray, opsets: dict[str, int]) -> np.ndarray:
        feed = {str(node.inputs[0].name): array} if node.inputs[0] is not None else {}
        for value in node.inputs[1:]:
            if value is None or value not in self.written.stored:
                raise UnlikeError(f"{_label(node)} reads what is no constant")
            feed[str(value.name)] = whole(self.written.stored[value])
        return evaluate(ir.to_proto(node), opsets, feed)


def _label(node: ir.Node) -> str:
    """Tells a node of a graph apart, whatever its place: by what it defines."""
    return f"the {node.op_type} that makes {', '.join(str(v.name) for v in node.outputs if v.name)}"


def _flag(gemm: ir.Node) -> int:
    return gemm.attributes.get_int("transB", 0)


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() or constant_value(value.producer()) is not None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _same_tensor(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype == ir.DataType.STRING:
        return np.array_equal(one.numpy(), other.numpy())
    return one.tobytes() == other.tobytes()


def _same_stored(one: StoredTensor, other: StoredTensor) -> bool:
    """Bit for bit, piece by piece."""
    for start in range(0, one.length, _PIECE):
        count = min(_PIECE, one.length - start)
        ours, theirs = (bits(tensor.content.read(start, count)) for tensor in (one, other))
        if not np.array_equal(ours, theirs):
            return False
    return True


def _same_sample(one: StoredTensor, other: StoredTensor) -> bool:
    indices = np.linspace(0, one.length - 1, _SAMPLE).astype(np.int64)
    ours, theirs = (bits(tensor.content.sample(indices)) for tensor in (one, other))
    return np.array_equal(ours, theirs)
