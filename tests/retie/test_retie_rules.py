"""Each way in which one tensor can follow from another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from retied import constant, graphs, model, nodes, saved, second_copies, weight

from tiedexport.retie import retie

if TYPE_CHECKING:
    from collections.abc import Callable

W = weight(24, 40)
HALF = W.astype(np.float16)
KERNEL = weight(6, 5, 3, 3)
TABLE = weight(50, 16)
_LINEAR = "g (float[N, 24] x) => (float[N, 24] y)"
_BRANCHES = (
    "g (float[N, 24] x, bool c) => (float[N, 40] y) {{ y = If(c) <then_branch = a () => "
    "(float[N, 40] p) {{ p = MatMul(x, {0}) }}, else_branch = b () => (float[N, 40] q) "
    "{{ h = Mul(x, x) q = MatMul(h, {1}) }}> }}"
)


def _flipped(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.T)


def _with_constant() -> onnx.ModelProto:
    made = model(f"{_LINEAR} {{ h = MatMul(x, a) y = MatMul(h, b) }}", a=W)
    made.graph.node.insert(0, constant("b", _flipped(W)))
    return made


def _branches(then: np.ndarray, other: np.ndarray, names: tuple[str, str]) -> onnx.ModelProto:
    """An If whose branches hold their own weights."""
    made = model(_BRANCHES.format(*names))
    for attribute, name, array in zip(
        made.graph.node[0].attribute, names, (then, other), strict=True
    ):
        attribute.g.initializer.append(onnx.numpy_helper.from_array(array, name))
    return made


def _shadowed() -> onnx.ModelProto:
    """The tied pair is called w in both branches, and so is another weight outside."""
    made = _branches(W, W, ("w", "w"))
    made.graph.node.append(onnx.helper.make_node("MatMul", ["y", "w"], ["z"]))
    made.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, ["N", 8]))
    made.graph.initializer.append(onnx.numpy_helper.from_array(weight(40, 8, seed=5), "w"))
    return made


def _hidden() -> onnx.ModelProto:
    """A branch repeats a weight of the main graph, the other has another one of its name."""
    made = _branches(W, weight(24, 40, seed=5), ("v", "w"))
    made.graph.initializer.append(onnx.numpy_helper.from_array(W, "w"))
    made.graph.node.append(onnx.helper.make_node("MatMul", ["x", "w"], ["z"]))
    made.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, ["N", 40]))
    return made


def _hidden_and_returned() -> onnx.ModelProto:
    made = _hidden()
    made.graph.output.append(onnx.helper.make_tensor_value_info("w", 1, W.shape))
    return made


def _inputs_hold_initializers() -> onnx.ModelProto:
    text = "g (float[N, 24] x, float[24, 40] a, float[40, 24] b) => (float[N, 24] y)"
    body = "{ h = MatMul(x, a) y = MatMul(h, b) }"
    return model(f"{text} {body}", ir_version=3, opset=8, a=W, b=_flipped(W))


def _packed() -> onnx.ModelProto:
    """Two numbers of four bits a byte."""
    text = "g (float[N, 24] x) => (float[N, 40] y)"
    body = (
        "{ h = DequantizeLinear(a, s) k = DequantizeLinear(b, s) l = Mul(h, k) y = MatMul(x, l) }"
    )
    made = model(f"{text} {body}", s=np.array(0.1, np.float32))
    raw = np.random.default_rng(0).integers(0, 256, 24 * 40 // 2).astype(np.uint8).tobytes()
    for name in "ab":
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.INT4, dims=W.shape)
        tensor.raw_data = raw
        made.graph.initializer.append(tensor)
    return made


RULES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "same": (
        lambda: model(
            "g (float[N, 24] x) => (float[N, 40] y) { h = MatMul(x, a) k = MatMul(x, b) "
            "y = Mul(h, k) }",
            a=W,
            b=W,
        ),
        "shared",
    ),
    "transposed": (
        lambda: model(f"{_LINEAR} {{ h = MatMul(x, a) y = MatMul(h, b) }}", a=W, b=_flipped(W)),
        "Transpose",
    ),
    "Gemm, rows known": (
        lambda: model(
            "g (float[3, 24] x) => (float[3, 24] y) { h = Gemm(x, a) k = Tanh(h) "
            "y = Gemm <transB = 0> (k, b) }",
            a=W,
            b=_flipped(W),
        ),
        "Transpose",  # nothing says that k has three rows
    ),
    "Gemm transB": (
        lambda: model(
            "g (float[3, 24] x, float[3, 40] k) => (float[3, 40] h, float[3, 24] y) "
            "{ h = Gemm(x, a) y = Gemm(k, b) }",
            a=W,
            b=_flipped(W),
        ),
        "Gemm transB",
    ),
    "Gemm, weight in front": (
        lambda: model(
            "g (float[40, N] x, float[24, N] k) => (float[24, N] h, float[40, N] y) "
            "{ h = Gemm(a, x) y = Gemm <transA = 0> (b, k) }",
            a=W,
            b=_flipped(W),
        ),
        "Transpose",  # long sums would be cut elsewhere
    ),
    "Gemm, rows unknown": (
        lambda: model(f"{_LINEAR} {{ h = Gemm(x, a) y = Gemm(h, b) }}", a=W, b=_flipped(W)),
        "Transpose",
    ),
    "cast": (
        lambda: model(
            "g (float[N, 24] x, float16[N, 24] k) => (float[N, 40] y, float16[N, 40] z) "
            "{ y = MatMul(x, a) z = MatMul(k, b) }",
            b=HALF,
            a=W,
        ),
        "Cast + Identity",
    ),
    "cast and transposed": (
        lambda: model(
            "g (float[N, 24] x, float16[N, 40] k) => (float[N, 40] y, float16[N, 24] z) "
            "{ y = MatMul(x, a) z = MatMul(k, b) }",
            a=W,
            b=_flipped(HALF),
        ),
        "Cast + Transpose",
    ),
    "four axes": (
        lambda: model(
            "g (float[6, 5, 3, 3] x, float[5, 3, 6, 3] k) => (float[6, 5, 3, 3] y, "
            "float[5, 3, 6, 3] z) { y = Mul(x, a) z = Mul(k, b) }",
            a=KERNEL,
            b=np.ascontiguousarray(KERNEL.transpose(1, 3, 0, 2)),
        ),
        "Transpose",
    ),
    "another shape": (
        lambda: model(
            "g (float[24, 40] x, float[960] k) => (float[24, 40] y, float[960] z) "
            "{ y = Mul(x, a) z = Mul(k, b) }",
            a=W,
            b=W.ravel(),
        ),
        "Reshape",
    ),
    "constant": (_with_constant, "Transpose"),
    "one kernel": (
        lambda: model(
            "g (float[N, 5, 8, 8] x) => (float[N, 5, 8, 8] y) "
            "{ h = Conv(x, a) y = ConvTranspose(h, b) }",
            a=KERNEL,
            b=KERNEL,
        ),
        "shared",
    ),
    "language model": (
        lambda: model(
            "g (int64[B, T] x) => (float[B, T, 50] y) { h = Gather(a, x) y = MatMul(h, b) }",
            b=_flipped(TABLE),
            a=TABLE,
        ),
        "Transpose",
    ),
    "int8": (
        lambda: model(
            "g (int8[24, 40] x, int8[40, 24] k) => (int8[24, 40] y, int8[40, 24] z) "
            "{ y = Add(x, a) z = Add(k, b) }",
            a=(W * 50).astype(np.int8),
            b=_flipped((W * 50).astype(np.int8)),
        ),
        "Transpose",
    ),
    "int4": (_packed, "shared"),
    "unused": (
        lambda: model(
            "g (float[N, 24] x) => (float[N, 40] y) { y = MatMul(x, a) }", a=W, b=_flipped(W)
        ),
        "removed, as nothing reads it",
    ),
    "returned": (
        lambda: model(
            "g (float[N, 24] x) => (float[N, 40] y, float[24, 40] b) { y = MatMul(x, a) }",
            a=W,
            b=W,
        ),
        "shared",
    ),
    "returned transposed": (
        lambda: model(
            "g (float[N, 24] x) => (float[N, 40] y, float[40, 24] b) { y = MatMul(x, a) }",
            a=W,
            b=_flipped(W),
        ),
        "Transpose",
    ),
    "both branches": (lambda: _branches(W, W, ("v", "w")), "shared"),
    "both branches, one name": (lambda: _branches(W, W, ("w", "w")), "shared"),
    "a name that hides another": (_shadowed, "shared"),
    "no node at all": (
        lambda: model("g () => (float[24, 40] a, float[40, 24] b) { }", a=W, b=_flipped(W)),
        "Transpose",
    ),
    "a list returned": (
        lambda: model(
            "g (float[N, 24] x, string[N] s) => (seq(float[N, 40]) y, string[N] t) "
            "{ h = MatMul(x, a) k = MatMul(x, b) y = SequenceConstruct(h, k) t = Identity(s) }",
            a=W,
            b=W,
        ),
        "shared",
    ),
    "a name that is hidden": (_hidden, "shared"),
    "a returned name that is hidden": (_hidden_and_returned, "shared"),
    "old ir version": (_inputs_hold_initializers, "Transpose"),
}
"""Rule → a model with one weight stored twice, and what has to stand in the place of one."""


@pytest.mark.parametrize("rule", RULES)
def test_a_copy_gives_way_and_no_bit_changes(rule: str, tmp_path: Path) -> None:
    make, how = RULES[rule]
    path = saved(make(), tmp_path / "in" / "model.onnx")
    before = path.read_bytes()
    assert len(second_copies([path])) == 1
    result = retie([path], tmp_path / "out")
    assert [mend.how for mend in result.mends] == [how]
    assert result.proof == "bit for bit", result.proof_detail
    assert second_copies(graphs(result)) == []
    assert result.bytes_after == sum(Path(file).stat().st_size for file in result.outputs)
    assert result.bytes_before - result.bytes_after > 0.6 * result.mends[0].saved_bytes
    assert path.read_bytes() == before


@pytest.mark.parametrize("rule", ["returned", "returned transposed"])
def test_what_a_graph_returns_keeps_its_name(rule: str, tmp_path: Path) -> None:
    path = saved(RULES[rule][0](), tmp_path / "model.onnx")
    [written] = graphs(retie([path], tmp_path / "out"))
    outputs = [[o.name for o in onnx.load(file).graph.output] for file in (path, written)]
    assert outputs[0] == outputs[1] == ["y", "b"]


def test_the_table_of_a_language_model_is_kept_and_its_head_transposed(tmp_path: Path) -> None:
    """The other way round a runtime would transpose the whole table for a few rows of it."""
    path = saved(RULES["language model"][0](), tmp_path / "model.onnx")
    [written] = graphs(retie([path], tmp_path / "out"))
    graph = onnx.load(written).graph
    assert [tensor.name for tensor in graph.initializer] == ["a"]
    assert nodes(written) == ["Transpose", "Gather", "MatMul"]


def test_several_copies_in_one_form_share_one_node(tmp_path: Path) -> None:
    text = f"{_LINEAR} {{ h = MatMul(x, a) k = MatMul(h, b) l = MatMul(k, a) y = MatMul(l, c) }}"
    path = saved(model(text, a=W, b=_flipped(W), c=_flipped(W)), tmp_path / "model.onnx")
    result = retie([path], tmp_path / "out")
    assert result.proof == "bit for bit"
    assert nodes(graphs(result)[0]).count("Transpose") == 1
