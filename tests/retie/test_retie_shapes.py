"""Weights that are stored again in another order and in another shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import numpy_helper
from retied import graphs, model, saved, second_copies, weight

from tiedexport.retie import retie

if TYPE_CHECKING:
    from pathlib import Path

W = weight(24, 40)
FLIPPED = np.ascontiguousarray(W.T)


@pytest.mark.parametrize("names", ["ab", "ba"])
@pytest.mark.parametrize("shape", [(960,), (15, 64), (10, 8, 12)])
def test_what_is_transposed_and_reshaped_gives_way(
    shape: tuple[int, ...], names: str, tmp_path: Path
) -> None:
    """Only from one of the two can a Transpose and a Reshape make the other, be it first or not."""
    dims = ", ".join(map(str, shape))
    text = f"g (float[N, 24] x, float[{dims}] k) => (float[N, 40] y, float[{dims}] z)"
    made = model(f"{text} {{ y = MatMul(x, a) z = Mul(k, b) }}")
    arrays = {"a": W, "b": FLIPPED.reshape(shape)}
    made.graph.initializer.extend(numpy_helper.from_array(arrays[n], n) for n in names)
    result = retie(saved(made, tmp_path / "m.onnx"), tmp_path / "out")
    assert [(mend.how, mend.saved_bytes) for mend in result.mends] == [
        ("Transpose + Reshape", W.nbytes)
    ]
    assert result.proof == "bit for bit", result.proof_detail
    assert second_copies(graphs(result)) == []


def _near_ties() -> np.ndarray:
    """fp64 that lies just above the middle between two fp16: by way of fp32 it is the middle."""
    half = W.astype(np.float16)
    between: np.ndarray = half + np.spacing(half).astype(np.float64) / 2 * (1 + 2.0**-40)
    return between


@pytest.mark.parametrize(
    ("double", "through", "turned", "how"),
    [
        (_near_ties(), True, False, "Cast + Cast + Identity"),
        (_near_ties(), True, True, "Cast + Cast + Transpose"),
        (_near_ties(), False, False, ""),
        (weight(24, 40, dtype="float64") * 0.1, False, False, "Cast + Cast + Identity"),
    ],
)
def test_a_double_that_became_a_half_is_mended_or_left(
    double: np.ndarray, through: bool, turned: bool, how: str, tmp_path: Path
) -> None:
    """By way of fp32 or at once: the last bit differs for a few, and never is it "failed"."""
    double = double.copy()
    double[0, :2] = 1e300, 1e6  # out of the range of fp32, and of fp16
    with np.errstate(over="ignore"):
        half = (double.astype(np.float32) if through else double).astype(np.float16)
    half = np.ascontiguousarray(half.T) if turned else half
    n, k = half.shape
    text = f"g (double[N, 24] x, float16[N, {n}] k) => (double[N, 40] y, float16[N, {k}] z)"
    made = model(f"{text} {{ y = MatMul(x, a) z = MatMul(k, b) }}", a=double, b=half)
    result = retie(saved(made, tmp_path / "m.onnx"), tmp_path / "out")
    assert result.proof == "bit for bit", result.proof_detail
    assert [mend.how for mend in result.mends] == [how] * bool(how)
    assert ["at once" in left.reason for left in result.left] == [True] * (not how)


def test_what_is_left_is_told_once_whichever_way_it_is_found(tmp_path: Path) -> None:
    text = "g (float[N, 24] x, float[40, 24] b) => (float[N, 40] y, float[40, 24] z)"
    made = model(f"{text} {{ y = MatMul(x, a) z = Neg(b) }}", a=W, b=FLIPPED)
    path = saved(made, tmp_path / "m.onnx")
    result = retie(path, tmp_path / "out")
    assert [{left.kept, left.copy} for left in result.left] == [{f"{path}: a", f"{path}: b"}]


def test_weights_of_one_name_are_told_apart_by_their_branch(tmp_path: Path) -> None:
    branches = ", ".join(
        f"{name}_branch = {name} () => (float[N, 40] {name}_y) {{ {name}_y = MatMul(x, w) }}"
        for name in ("then", "else")
    )
    text = "g (float[N, 24] x, bool c) => (float[N, 24] z)"
    made = model(f"{text} {{ y = If(c) <{branches}> z = MatMul(y, v) }}", v=FLIPPED)
    for attribute in made.graph.node[0].attribute:
        attribute.g.initializer.append(numpy_helper.from_array(W, "w"))
    result = retie(saved(made, tmp_path / "m.onnx"), tmp_path / "out")
    places = {place.split(": ")[1] for mend in result.mends for place in (mend.kept, mend.removed)}
    assert places == {"v", "w in If_0.then_branch", "w in If_0.else_branch"}
