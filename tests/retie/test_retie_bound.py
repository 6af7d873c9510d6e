"""Weights that are nearly equal: proposed, tied where that is accepted, and judged by a bound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
import pytest
from retied import digests, graphs, model, saved, second_copies, weight

from tiedexport.retie import retie

if TYPE_CHECKING:
    from collections.abc import Callable

W = weight(40, 40)
_TRANSPOSED = np.ascontiguousarray(W.T)


def _path(made: onnx.ModelProto, tmp_path: Path) -> Path:
    return saved(made, tmp_path / "in" / "model.onnx")


def _near(op: str = "MatMul(h, b)", noise: float = 1e-6, **more: np.ndarray) -> onnx.ModelProto:
    """A decoder whose weight has drifted a little from its encoder's."""
    drifted = (_TRANSPOSED + noise * weight(40, 40, seed=1)).astype(np.float32)
    text = f"g (float[N, 40] x) => (float[N, 40] y) {{ h = MatMul(x, a) y = {op} }}"
    return model(text, a=W, b=drifted, **more)


def _half() -> onnx.ModelProto:
    """One unit in the last place of one element: results of half precision jump by far more."""
    halves, others = W.astype(np.float16), _TRANSPOSED.astype(np.float16)
    others[3, 5] = np.nextafter(others[3, 5], np.float16(9))
    text = "g (float16[200, 40] x) => (float16[200, 40] y, float16[200, 40] z)"
    return model(f"{text} {{ y = MatMul(x, a) z = MatMul(x, b) }}", a=halves, b=others)


def test_weights_that_are_nearly_equal_are_proposed_and_left(tmp_path: Path) -> None:
    path = _path(_near(), tmp_path)
    assert retie([path], tmp_path / "out").proposals == ()
    result = retie([path], tmp_path / "out", atol=1e-4)
    [proposal] = result.proposals
    assert 0 < proposal.difference < 1e-4
    assert result.mends == ()
    assert Path(result.outputs[0]).read_bytes() == path.read_bytes()


def _signed_zeros(first: str, second: str) -> onnx.ModelProto:
    """Two weights that differ by nothing, and yet a reciprocal tells them apart."""
    positive, negative = W.copy(), _TRANSPOSED.copy()
    positive[3, 5], negative[5, 3] = 0.0, -0.0
    text = "g (float[40, 40] x) => (float[40, 40] y, float[40, 40] z)"
    return model(f"{text} {{ y = {first} z = {second} }}", a=positive, b=negative)


def _payloads() -> onnx.ModelProto:
    """Two weights that hold different NaNs at one place."""
    first, second = W.copy(), _TRANSPOSED.copy()
    first.view(np.uint32)[3, 5], second.view(np.uint32)[5, 3] = 0x7FC00001, 0x7FC00002
    text = "g (float[40, 40] x) => (float[40, 40] y, float[40, 40] z)"
    return model(f"{text} {{ y = Mul(x, a) z = Mul(x, b) }}", a=first, b=second)


@pytest.mark.parametrize(
    ("make", "proof"),
    [
        (lambda: _signed_zeros("Mul(x, a)", "Mul(x, b)"), "within bound"),
        (lambda: _signed_zeros("Mul(x, a)", "Reciprocal(b)"), "not proven"),
        (_payloads, "within bound"),
    ],
)
def test_weights_whose_bits_differ_by_nothing_are_only_nearly_equal(
    make: Callable[[], onnx.ModelProto], proof: str, tmp_path: Path
) -> None:
    path = _path(make(), tmp_path)
    proposed = retie([path], tmp_path / "out", atol=1e-9)
    assert (proposed.mends, len(proposed.proposals)) == ((), 1)
    assert Path(proposed.outputs[0]).read_bytes() == path.read_bytes()
    accepted = retie([path], tmp_path / "out", atol=1e-9, accept=True)
    assert (accepted.proof, len(accepted.mends)) == (proof, 1), accepted.proof_detail


@pytest.mark.parametrize(
    "make",
    [
        _near,
        _half,
        lambda: _near("Gemm <alpha = -0.5, beta = 2.0> (h, b, c)", c=weight(40, seed=2)),
        lambda: _near("MatMul(b, b)", noise=3e-4),
        lambda: _near("Sub(h, b)"),
        lambda: _near("Tanh(h)"),
        lambda: model(
            "g (float[N, 40] x, int64[K] i) => (float[N, 40] y, float[K, 40] r) "
            "{ r = Gather(b, i) y = MatMul(x, a) }",
            a=W,
            b=_TRANSPOSED + np.float32(1e-6),
        ),
        lambda: model(
            "g (float[N, 5, 8, 8] x) => (float[N, 5, 8, 8] y) "
            "{ h = Conv <pads = [1, 1, 1, 1]> (x, a) y = ConvTranspose(h, b) }",
            a=weight(6, 5, 3, 3),
            b=weight(6, 5, 3, 3) + np.float32(1e-6),
        ),
        lambda: model(
            "g (float[N, 40] x) => (float[N, 40] y) { h = MatMul(x, a) k = MatMul(h, b) "
            "l = MatMul(k, e) m = MatMul(l, c) y = MatMul(m, d) }",
            a=W,
            e=W,
            b=_TRANSPOSED + np.float32(1e-6),
            c=W + np.float32(1e-6),
            d=_TRANSPOSED + np.float32(1e-6),
        ),
    ],
)
def test_accepted_weights_change_each_node_within_its_bound(
    make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    path = _path(make(), tmp_path)
    result = retie([path], tmp_path / "out", atol=2e-3, accept=True)
    assert result.proof == "within bound", result.proof_detail
    assert second_copies(graphs(result)) == []
    assert sorted(digests(tmp_path / "out")) == ["model.onnx"]
    assert any(mend.difference > 0 for mend in result.mends)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(float[40, 40] x) => (float[40, 40] y) { h = PRelu(x, a) y = PRelu(h, b) }", "PRelu"),
        (
            "(float[N, 40] x, bool c) => (float[N, 40] y) { h = MatMul(x, a) y = If(c) "
            "<then_branch = t () => (float[N, 40] p) { p = MatMul(h, b) }, "
            "else_branch = e () => (float[N, 40] q) { q = Relu(h) }> }",
            "in a subgraph",
        ),
    ],
)
def test_a_change_that_no_bound_is_known_for_is_not_proven(
    text: str, why: str, tmp_path: Path
) -> None:
    text = f"g {text}"
    path = _path(model(text, a=W, b=_TRANSPOSED + np.float32(1e-6)), tmp_path)
    result = retie([path], tmp_path / "out", atol=1e-4, accept=True)
    assert (result.proof, result.outputs) == ("not proven", ())
    assert why in result.proof_detail


def test_an_accepted_weight_that_onnx_runtime_lacks_the_type_of_is_not_proven(
    tmp_path: Path,
) -> None:
    text = "g () => (bfloat16[40, 40] a, bfloat16[40, 40] b) { }"
    made = model(text)
    for name, array in (("a", W), ("b", _TRANSPOSED + np.float32(0.01))):
        data = array.astype(ml_dtypes.bfloat16).tobytes()
        made.graph.initializer.append(
            onnx.TensorProto(
                name=name, data_type=onnx.TensorProto.BFLOAT16, dims=(40, 40), raw_data=data
            )
        )
    result = retie([_path(made, tmp_path)], tmp_path / "out", atol=0.1, accept=True)
    assert (result.proof, result.outputs) == ("not proven", ())
    assert result.mends[0].difference > 0


def test_an_accepted_weight_of_an_encoder_changes_a_decoder_within_its_bound(
    tmp_path: Path,
) -> None:
    """The decoder is exact and the encoder is not; each file has a verdict of its own."""
    text = "(float[N, 40] x) => (float[N, 40] y) { y = MatMul(x, w) }"
    inputs = [
        saved(model(f"g {text}", w=array), tmp_path / f"{name}.onnx")
        for name, array in (("one", W), ("two", _TRANSPOSED + np.float32(1e-6)))
    ]
    result = retie(inputs, tmp_path / "out", atol=1e-4, accept=True)
    assert result.proof == "within bound", result.proof_detail
    assert "one.onnx: 4 runs" in result.proof_detail
    assert "two.onnx: each node" in result.proof_detail
    assert second_copies(graphs(result)) == []
