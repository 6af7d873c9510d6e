"""What is not tied, or cannot be, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
import pytest
from retied import constant, model, saved, weight

from tiedexport.errors import GraphError, TieBrokenError, UsageError
from tiedexport.retie import checks, retie

if TYPE_CHECKING:
    from collections.abc import Callable

W = weight(24, 40)
HALF = W.astype(np.float16)
FLIPPED = np.ascontiguousarray(W.T)
_LINEAR = "g (float[N, 24] x) => (float[N, 24] y)"


def test_unequal_weights_are_never_tied(tmp_path: Path) -> None:
    """One element by one unit in the last place, a flip, a rotation, rows in another order."""
    other = W.copy()
    other[7, 9] = np.nextafter(other[7, 9], np.float32(9))
    square = weight(30, 30, seed=3)
    tensors = {
        "a": W,
        "b": np.ascontiguousarray(other.T),
        "c": W[::-1].copy(),
        "d": square,
        "e": np.rot90(square).copy(),
        "f": square[np.random.default_rng(0).permutation(30)],
        "g": np.zeros((24, 40), np.float32),
        "h": np.zeros((24, 40), np.float32),
        "i": np.eye(30, dtype=np.float32),
        "j": np.eye(30, dtype=np.float32),
    }
    body = " ".join(f"o{name} = Identity({name})" for name in tensors)
    outputs = ", ".join(f"float[{a.shape[0]}, {a.shape[1]}] o{n}" for n, a in tensors.items())
    path = saved(model(f"g () => ({outputs}) {{ {body} }}", **tensors), tmp_path / "model.onnx")
    result = retie([path], tmp_path / "out")
    assert result.mends == ()
    assert Path(result.outputs[0]).read_bytes() == path.read_bytes()


def _function() -> onnx.ModelProto:
    made = model(
        f"{_LINEAR} {{ h = MatMul(x, a) y = own.Back(h) }}",
        functions='<domain: "own", opset_import: ["" : 21]> Back (h) => (y) { y = MatMul(h, b) }',
        a=W,
    )
    made.functions[0].node.insert(0, constant("b", FLIPPED))
    return made


def _overridable() -> onnx.ModelProto:
    text = "g (float[N, 24] x, float[40, 24] b) => (float[N, 24] y)"
    return model(f"{text} {{ h = MatMul(x, a) y = MatMul(h, b) }}", a=W, b=FLIPPED)


def _blocked() -> onnx.ModelProto:
    kernel = weight(16, 8, 3, 3)
    blocks = kernel.reshape(2, 8, 1, 8, 3, 3).transpose(0, 2, 4, 5, 3, 1)
    text = "g (float[16, 8, 3, 3] x) => (float[16, 8, 3, 3] y, float[16, 8, 3, 3] z)"
    body = "{ y = Mul(x, a) z = Mul(x, b) }"
    return model(f"{text} {body}", a=kernel, b=np.ascontiguousarray(blocks).reshape(kernel.shape))


def _annotated() -> onnx.ModelProto:
    made = model(f"{_LINEAR} {{ h = MatMul(x, a) y = MatMul(h, b) }}", a=W, b=FLIPPED)
    entry = onnx.StringStringEntryProto(key="SCALE_TENSOR", value="b")
    made.graph.quantization_annotation.add(tensor_name="h", quant_parameter_tensor_names=[entry])
    return made


def _tensor(name: str, dtype: int, array: np.ndarray, shape: tuple[int, ...]) -> onnx.TensorProto:
    return onnx.TensorProto(name=name, data_type=dtype, dims=shape, raw_data=array.tobytes())


def _two_types_of_four_bits() -> onnx.ModelProto:
    text = "g (float[N, 24] x) => (float[N, 40] y)"
    body = (
        "{ h = DequantizeLinear(a, s) k = DequantizeLinear(b, s) l = Mul(h, k) y = MatMul(x, l) }"
    )
    made = model(f"{text} {body}", s=np.array(0.1, np.float32))
    array = np.random.default_rng(0).integers(0, 256, 24 * 40 // 2).astype(np.uint8)
    for name, dtype in (("a", onnx.TensorProto.INT4), ("b", onnx.TensorProto.UINT4)):
        made.graph.initializer.append(_tensor(name, dtype, array, W.shape))
    return made


def _returned_without_opset() -> onnx.ModelProto:
    made = model("g () => (float[24, 40] a, float[24, 40] b) { }", a=W, b=W)
    del made.opset_import[0]
    return made


def _casts_by_name() -> onnx.ModelProto:
    text = "g (float[N, 24] x, float16[N, 24] k) => (float[N, 40] y, float16[N, 40] z)"
    body = "{ y = MatMul(x, a) z = MatMul(k, b) }"
    return model(f"{text} {body}", opset=5, ir_version=4, a=W, b=HALF)


def _too_old_for_bfloat16() -> onnx.ModelProto:
    text = "g () => (bfloat16[24, 40] a, bfloat16[40, 24] b)"
    made = model(f"{text} {{ }}", opset=12)
    for name, array in (("a", W), ("b", FLIPPED)):
        halves = array.astype(ml_dtypes.bfloat16)
        tensor = _tensor(name, onnx.TensorProto.BFLOAT16, halves, array.shape)
        made.graph.initializer.append(tensor)
    return made


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_function, "inside a local function"),
        (_overridable, "a caller may override it"),
        (_blocked, "blocked layout"),
        (_annotated, "quantisation annotation"),
        (_two_types_of_four_bits, "of another type"),
        (_returned_without_opset, "imports no ONNX opset to take Identity from"),
        (_casts_by_name, "Cast of opset 5 has another form"),
        (_too_old_for_bfloat16, "Transpose of opset 12 takes no BFLOAT16"),
        (
            lambda: model(
                f"{_LINEAR} {{ h = MatMul(x, a) y = MatMul(h, b) }}",
                a=W[:4, :5].copy(),
                b=np.ascontiguousarray(W[:4, :5].T),
            ),
            "smaller than",
        ),
    ],
)
def test_what_has_to_stay_is_listed_with_its_reason(
    make: Callable[[], onnx.ModelProto], reason: str, tmp_path: Path
) -> None:
    path = saved(make(), tmp_path / "model.onnx")
    result = retie([path], tmp_path / "out")
    assert result.mends == ()
    [left] = result.left
    assert reason in left.reason
    assert left.copy.split()[1] == "b"
    assert Path(result.outputs[0]).read_bytes() == path.read_bytes()
    assert "byte for byte" in result.proof_detail


def test_what_equals_only_a_fixed_tensor_is_left_while_others_are_tied(tmp_path: Path) -> None:
    """Of an overridable weight's half precision copies two are equal, the third is another."""
    text = "g (float16[N, 24] x, bfloat16[24, 40] k, float[24, 40] f, float[24, 40] i)"
    outputs = "(float16[N, 40] y, bfloat16[24, 40] z, float[24, 40] w)"
    body = "{ p = MatMul(x, a) q = MatMul(x, b) y = Mul(p, q) z = Identity(c) w = Add(i, f) }"
    made = model(f"{text} => {outputs} {body}", f=W, a=HALF, b=HALF)
    halves = W.astype(ml_dtypes.bfloat16)
    made.graph.initializer.append(_tensor("c", onnx.TensorProto.BFLOAT16, halves, W.shape))
    del made.graph.input[1]
    result = retie([saved(made, tmp_path / "model.onnx")], tmp_path / "out", unproven=True)
    assert [mend.removed.split(": ")[1] for mend in result.mends] == ["b"]
    assert sorted(left.copy.split(": ")[1] for left in result.left) == ["a", "c"]
    assert result.outputs


def test_a_copy_that_must_stay_does_not_keep_others_from_being_tied(tmp_path: Path) -> None:
    text = "g (float[N, 24] x, float[40, 24] b) => (float[N, 24] y)"
    body = "{ h = MatMul(x, a) k = MatMul(h, b) l = MatMul(k, a) y = MatMul(l, c) }"
    made = model(f"{text} {body}", b=FLIPPED, a=W, c=FLIPPED)
    result = retie([saved(made, tmp_path / "model.onnx")], tmp_path / "out")
    assert result.proof == "bit for bit", result.proof_detail
    assert [mend.how for mend in result.mends] == ["Transpose"]
    assert len(result.left) == 1


def _unequal_data(tmp_path: Path) -> list[Path]:
    """Two graphs, each in a folder with a data file of one name."""
    return [
        saved(
            model(
                "g (float[N, 24] x) => (float[N, 40] y) { y = MatMul(x, w) }",
                w=weight(24, 40, seed=i),
            ),
            tmp_path / str(i) / f"{i}.onnx",
            external="w.data",
        )
        for i in range(2)
    ]


def test_copies_that_would_overwrite_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one name"):
        retie(_unequal_data(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copy_that_nobody_listed_is_an_error(tmp_path: Path) -> None:
    made = model(f"{_LINEAR} {{ h = MatMul(x, a) y = MatMul(h, b) }}", a=W, b=FLIPPED)
    path = saved(made, tmp_path / "model.onnx")
    with pytest.raises(TieBrokenError, match="still stored twice"):
        checks.check_ties([path], set())
    checks.check_ties([path], {("model.onnx", "", "b")})
    with pytest.raises(TieBrokenError, match="still stored twice"):
        checks.check_ties([path], {("model.onnx", "function Back", "b")})


def test_constants_of_one_name_in_two_functions_are_both_listed(tmp_path: Path) -> None:
    bodies = (
        f'<domain: "own", opset_import: ["" : 21]> {name} (h) => (y) {{ y = MatMul(h, b) }}'
        for name in ("Back", "Forth")
    )
    text = f"{_LINEAR} {{ h = MatMul(x, a) p = own.Back(h) q = own.Forth(h) y = Add(p, q) }}"
    made = model(text, functions=" ".join(bodies), a=W)
    for function in made.functions:
        function.node.insert(0, constant("b", FLIPPED))
    result = retie([saved(made, tmp_path / "model.onnx")], tmp_path / "out")
    assert [left.copy.split(": ")[1] for left in result.left] == [
        "b in function Back",
        "b in function Forth",
    ]


def test_constants_of_one_name_in_two_branches_are_both_listed(tmp_path: Path) -> None:
    """Also where a Transpose in front of the graph renumbers its nodes, as this If without name."""
    text = (
        "g (float[N, 24] x, bool c) => (float[N, 24] y, float[24, 40] z, float[24, 40] w) "
        "{ h = MatMul(x, a) y = MatMul(h, b) w = Cast <to = 1> (i) z = If(c) "
        "<then_branch = t () => (float[24, 40] p) { p = Cast <to = 1> (k) }, "
        "else_branch = e () => (float[24, 40] q) { r = Cast <to = 1> (k) q = Neg(r) }> }"
    )
    made = model(text, a=W, b=FLIPPED)
    numbers = np.random.default_rng(0).integers(0, 256, 24 * 40 // 2).astype(np.uint8)
    made.graph.initializer.append(_tensor("i", onnx.TensorProto.INT4, numbers, W.shape))
    for attribute in made.graph.node[-1].attribute:
        tensor = _tensor("k", onnx.TensorProto.UINT4, numbers, W.shape)
        attribute.g.initializer.append(tensor)
    result = retie([saved(made, tmp_path / "model.onnx")], tmp_path / "out", atol=1e-9)
    assert result.proof == "bit for bit", result.proof_detail
    assert [mend.how for mend in result.mends] == ["Transpose"]
    assert [left.reason for left in result.left] == ["of another type: UINT4, not INT4"] * 2
    branches = [f"k in If_3.{branch}_branch" for branch in ("then", "else")]
    assert [left.copy.split(": ")[1] for left in result.left] == branches


def test_a_graph_that_the_checker_refuses_is_an_error_unless_it_was_given_so(
    tmp_path: Path,
) -> None:
    sound = model(f"{_LINEAR} {{ h = MatMul(x, a) y = MatMul(h, b) }}", a=W, b=FLIPPED)
    good = saved(sound, tmp_path / "good.onnx")
    sound.graph.node[0].attribute.append(onnx.helper.make_attribute("colour", 3))
    bad = saved(sound, tmp_path / "bad.onnx")
    assert checks.check_graphs([good], [good]) == ""
    with pytest.raises(GraphError, match="nothing was written"):
        checks.check_graphs([good], [bad])
    result = retie([bad], tmp_path / "out", unproven=True)
    assert "onnx.checker refuses bad.onnx as it was given" in result.proof_detail
    assert result.outputs
