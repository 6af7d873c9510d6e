"""Weights that are nearly equal: proposed, tied where that is accepted, and judged by a bound."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
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


def _figure(words: str, detail: str) -> float:
    found = re.search(rf"{words} ([\w.+-]+)", detail)
    assert found, detail
    return float(found[1])


def test_not_a_number_that_becomes_infinite_is_no_change_within_a_bound(tmp_path: Path) -> None:
    first, second = np.abs(W) + np.float32(0.1), np.abs(_TRANSPOSED) + np.float32(0.1)
    first[2, 3], second[3, 2] = 1e-6, 0.0  # times infinity: infinite, and no number
    text = "g (float[N, 40] x) => (float[N, 40] y, float[N, 40] z)"
    body = "{ q = Mul(x, e) k = Exp(q) y = MatMul(x, a) z = MatMul(k, b) }"
    made = model(f"{text} {body}", a=first, b=second, e=np.array([1000.0], np.float32))
    result = retie([_path(made, tmp_path)], tmp_path / "out", atol=1e-5, accept=True)
    assert (result.proof, result.outputs) == ("failed", ())
    assert _figure("strays by", result.proof_detail) == np.inf


@pytest.mark.parametrize("scale", [1e-4, 2e-3, 2e-2])
def test_half_precision_results_near_zero_are_bounded_by_its_smallest_number(
    scale: float, tmp_path: Path
) -> None:
    first = (scale * W).astype(np.float16)
    second = np.nextafter(np.ascontiguousarray(first.T), np.float16(9))
    text = "g (float16[200, 40] x) => (float16[200, 40] y, float16[200, 40] z)"
    body = "{ s = Mul(x, k) y = MatMul(s, a) z = MatMul(s, b) }"
    made = model(f"{text} {body}", a=first, b=second, k=np.array([2e-3], np.float16))
    result = retie([_path(made, tmp_path)], tmp_path / "out", atol=1e-3, accept=True)
    assert result.proof == "within bound", result.proof_detail


def test_a_bound_counts_the_terms_of_a_sum_whatever_scales_it(tmp_path: Path) -> None:
    """Powers of two scale errors and bounds alike."""
    ratios = set()
    for alpha in (2.0**-10, 0.5, 2.0**10):
        made = _near(f"Gemm <alpha = {alpha}> (h, b)", noise=1e-7)
        folder = tmp_path / str(alpha)
        result = retie([_path(made, folder)], folder / "out", atol=1e-4, accept=True)
        ratios.add(_figure("at most", result.proof_detail))
    assert len(ratios) == 1


def test_how_far_the_outputs_change_is_told(tmp_path: Path) -> None:
    """A bound holds whatever is accepted; whether the model is still of use is another question."""
    text = "g (float[N, 40] x) => (float[N, 40] y) { h = MatMul(x, a) y = MatMul(h, b) }"
    path = _path(model(text, a=W, b=weight(40, 40, seed=5)), tmp_path)
    result = retie([path], tmp_path / "out", atol=1e9, accept=True)
    assert result.proof == "within bound"
    changes = []
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 40)).astype(np.float32)
    for file in (path, *graphs(result)):
        session = onnxruntime.InferenceSession(file)
        changes.append(session.run(None, {"x": x})[0])
    told, measured = _figure("change by up to", result.proof_detail), np.ptp(changes, axis=0).max()
    assert 0.1 < told / measured < 10


def test_a_changed_weight_that_is_moved_on_is_told(tmp_path: Path) -> None:
    text = "g (float[N, 40] x) => (float[N, 40] y)"
    body = "{ p = Transpose(a) h = MatMul(x, p) q = Transpose(b) y = MatMul(h, q) }"
    made = model(f"{text} {body}", a=W, b=W + np.float32(1e-6))
    result = retie([_path(made, tmp_path)], tmp_path / "out", atol=1e-4, accept=True)
    assert result.proof == "within bound"
    assert "what Transpose moves on has no bound" in result.proof_detail


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
