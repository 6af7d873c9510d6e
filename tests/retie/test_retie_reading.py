"""Graphs are proven by reading them: also what no input reaches, and no output tells of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from retied import model, saved, weight

from tiedexport.retie import kept, proof, retie

W = weight(40, 40)
_TRANSPOSED = np.ascontiguousarray(W.T)
_N = "float[N, 40]"
_UNTOLD = {
    "a branch that is never taken": f"({_N} y) {{ z = MatMul(x, a) "
    "s = ReduceSum <keepdims = 0> (x) k = Constant <value = float {1e9}> () c = Greater(s, k) "
    f"y = If(c) <then_branch = t () => ({_N} p) {{ p = MatMul(z, b) }}, "
    f"else_branch = e () => ({_N} q) {{ q = Identity(z) }}> }}",
    "no trip of a loop": f"({_N} y) {{ z = MatMul(x, a) n = Constant <value = int64 {{0}}> () "
    f"y = Loop(n, , z) <body = l (int64 i, bool c, {_N} p) => (bool d, {_N} q) "
    "{ d = Identity(c) q = MatMul(p, b) }> }",
    "times zero": f"({_N} y) {{ z = MatMul(x, a) h = MatMul(x, b) "
    "k = Constant <value = float {0}> () m = Mul(h, k) y = Add(z, m) }",
    "cut off": f"({_N} y) {{ z = MatMul(x, a) h = MatMul(z, b) "
    "k = Constant <value = float {1e9}> () m = Sub(h, k) y = Relu(m) }",
    "the largest of one": "(int64[N, 1] y) { z = MatMul(x, a) h = MatMul(z, b) "
    "s = ReduceSum <keepdims = 1> (h) y = ArgMax <axis = 1> (s) }",
    "softmax over one": "(float[N, 1] y) { z = MatMul(x, a) h = MatMul(z, b) "
    "k = Constant <value_ints = [1]> () s = ReduceSum(h, k) y = Softmax <axis = 1> (s) }",
    "its shape": "(int64[2] y) { z = MatMul(x, a) h = MatMul(z, b) y = Shape(h) }",
    "nothing of it": f"({_N} y, float[N, M] w) {{ y = MatMul(x, a) h = MatMul(x, b) "
    "i = Constant <value_ints = [0]> () k = Constant <value_ints = [1]> () w = Slice(h, i, i, k) }",
    "never a number": f"({_N} y, {_N} w) {{ y = MatMul(x, a) z = Sub(x, x) n = Div(z, z) "
    "w = MatMul(n, b) }",
    "only returned": f"({_N} y, float[40, 40] b) {{ y = MatMul(x, a) }}",
}
"""Why no output tells of a weight → a graph that reads it so."""


@pytest.mark.parametrize("why", _UNTOLD)
def test_a_wrong_mend_is_found_where_no_output_tells_of_it(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(model(f"g ({_N} x) => {_UNTOLD[why]}", a=W, b=_TRANSPOSED), tmp_path / "in.onnx")
    assert retie([path], tmp_path / "right").proof == "bit for bit"
    monkeypatch.setattr(kept, "ops_between", lambda _kept, _copy: [])
    result = retie([path], tmp_path / "out", unproven=True)
    assert (result.proof, result.outputs) == ("failed", ())
    assert "reads other bits than b" in result.proof_detail


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("h = MatMul(x, a) k = MatMul(h, b) y = Tanh(k)", ""),
        ("h = MatMul(x, a) k = MatMul(h, b) y = Sin(k)", "Tanh that makes y is gone"),
        ("h = MatMul(x, a) k = MatMul(x, b) y = Tanh(k)", "reads x, not h"),
        ("h = MatMul(x, a) k = MatMul(h, a) y = Tanh(k)", "reads other bits than b"),
        ("h = MatMul(x, a) k = MatMul(h, h) y = Tanh(k)", "reads h, not b"),
        ("h = MatMul(x, a) k = Gemm(h, b) y = Tanh(k)", "MatMul that makes k is gone"),
        ("h = MatMul(x, a) k = MatMul(h, c) y = Tanh(k) c = Transpose <perm = [1, 0]> (d)", ""),
        ("h = MatMul(x, a) k = MatMul(h, c) y = Tanh(k) c = Relu(b)", "reads c, not b"),
    ],
)
def test_a_graph_that_computes_something_else_is_told_by_reading_it(
    body: str, words: str, tmp_path: Path
) -> None:
    text = f"g (float[40, 40] x) => (float[40, 40] y) {{ {body} }}"
    tied = "h = MatMul(x, a) k = MatMul(h, b) y = Tanh(k)"
    given = saved(model(text.replace(body, tied), a=W, b=_TRANSPOSED), tmp_path / "given.onnx")
    d = np.ascontiguousarray(_TRANSPOSED.T)
    other = saved(model(text, a=W, b=_TRANSPOSED, d=d), tmp_path / "other.onnx")
    verdict = proof.prove([given], [other])
    assert (verdict.verdict == "failed") == bool(words), verdict.detail
    assert words in verdict.detail


@pytest.mark.parametrize(
    ("end", "how"), [("y = Tanh(k)", "Gemm transB"), ("s = Sub(k, c) y = Relu(s)", "Transpose")]
)
def test_a_flag_is_turned_only_where_an_output_tells_of_the_order_of_sums(
    end: str, how: str, tmp_path: Path
) -> None:
    text = "g (float[3, 40] x, float[3, 40] z) => (float[3, 40] h, float[3, 40] y)"
    text = f"{text} {{ h = MatMul(x, a) k = Gemm(z, b) {end} }}"
    far = np.array([1e9], np.float32)
    path = saved(model(text, a=W, b=_TRANSPOSED, c=far), tmp_path / "in.onnx")
    result = retie([path], tmp_path / "out")
    assert (result.proof, [mend.how for mend in result.mends]) == ("bit for bit", [how])
