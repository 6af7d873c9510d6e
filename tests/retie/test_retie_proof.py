"""What counts as proven, and what happens where nothing is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from retied import digests, graphs, model, saved, second_copies, weight

from tiedexport.cli import cli
from tiedexport.feeds import feeds
from tiedexport.results.ties import RetieResult
from tiedexport.retie import kept, proof, retie

if TYPE_CHECKING:
    from collections.abc import Callable

W = weight(40, 40)
_TRANSPOSED = np.ascontiguousarray(W.T)
_TIED = "{ h = MatMul(x, a) y = MatMul(h, b) }"


def _tied() -> onnx.ModelProto:
    return model(f"g (float[N, 40] x) => (float[N, 40] y) {_TIED}", a=W, b=_TRANSPOSED)


def _path(made: onnx.ModelProto, tmp_path: Path) -> Path:
    return saved(made, tmp_path / "in" / "model.onnx")


def _unknown() -> onnx.ModelProto:
    text = "g (float[N, 40] x) => (float[N, 40] y)"
    return model(f"{text} {{ h = own.Swirl(x, a) y = own.Swirl(h, b) }}", a=W, b=_TRANSPOSED)


def _random() -> onnx.ModelProto:
    text = "g (float[N, 40] x) => (float[N, 40] y)"
    body = "{ r = RandomNormalLike(x) s = Add(x, r) h = MatMul(s, a) y = MatMul(h, b) }"
    return model(f"{text} {body}", a=W, b=_TRANSPOSED)


def _sequence() -> onnx.ModelProto:
    text = "g (seq(float[N, 40]) s, int64 i) => (float[N, 40] y)"
    body = "{ x = SequenceAt(s, i) h = MatMul(x, a) y = MatMul(h, b) }"
    return model(f"{text} {body}", a=W, b=_TRANSPOSED)


def _never_a_number() -> onnx.ModelProto:
    text = "g (float[N, 40] x) => (float[N, 40] y)"
    body = "{ z = Sub(x, x) n = Div(z, z) h = MatMul(n, a) y = MatMul(h, b) }"
    return model(f"{text} {body}", a=W, b=_TRANSPOSED)


def _bfloat() -> onnx.ModelProto:
    made = model("g (bfloat16[N, 40] x) => (bfloat16[N, 40] y) " + _TIED)
    for name, array in (("a", W), ("b", _TRANSPOSED)):
        halves = (array.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        tensor = onnx.helper.make_tensor(
            name, onnx.TensorProto.BFLOAT16, (40, 40), halves, raw=True
        )
        made.graph.initializer.append(tensor)
    return made


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_unknown, "Swirl"),
        (_random, "differ from run to run"),
        (_sequence, "no random inputs for s"),
        (_never_a_number, "hold no number"),
        (_bfloat, "ONNX Runtime cannot load"),
    ],
)
def test_what_nothing_can_run_is_not_written_unless_that_is_waived(
    make: Callable[[], onnx.ModelProto], why: str, tmp_path: Path
) -> None:
    path = _path(make(), tmp_path)
    result = retie([path], tmp_path / "out")
    assert (result.proof, result.outputs) == ("not proven", ())
    assert why in result.proof_detail
    assert not (tmp_path / "out").exists()
    waived = retie([path], tmp_path / "out", unproven=True)
    assert waived.proof == "not proven"
    assert second_copies(graphs(waived)) == []
    assert not waived.passed


def _without_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the verdict to the runs."""
    monkeypatch.setattr(proof.reading, "turned_gemms", lambda *_: [])


def test_a_machine_without_onnx_runtime_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = retie([_path(_tied(), tmp_path)], tmp_path / "out")
    assert (result.proof, result.outputs) == ("not proven", ())
    assert "pip install" in result.proof_detail


def test_a_wrong_mend_is_found_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the Transpose a square weight still fits everywhere: only the numbers tell."""
    monkeypatch.setattr(kept, "ops_between", lambda _kept, _copy: [])
    path = _path(_tied(), tmp_path)
    result = retie([path], tmp_path / "out", unproven=True)
    assert (result.proof, result.outputs, result.failed) == ("failed", (), True)
    assert sorted(digests(tmp_path)) == ["in/model.onnx"]


def test_a_loop_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "LIMIT_S", 0.2)
    text = (
        "g (float[N, 40] x) => (float[N, 40] y) { go = Constant <value = bool {1}> () "
        "y = Loop(, go, x) <body = l (int64 i, bool c, float[N, 40] p) => (bool d, float[N, 40] q) "
        "{ d = Identity(c) h = MatMul(p, a) q = MatMul(h, b) }> }"
    )
    path = _path(model(text, a=W, b=_TRANSPOSED), tmp_path)
    result = retie([path], tmp_path / "out")
    assert (result.proof, result.outputs) == ("not proven", ())
    assert "did not end" in result.proof_detail


def test_a_flag_that_changes_bits_gives_way_to_a_transpose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a single row the other flag adds up in another order."""
    monkeypatch.setattr(kept, "_keeps_order", lambda node: node.op_type == "Gemm")
    text = "g (float[N, 40] x) => (float[N, 40] y) { h = MatMul(x, a) y = Gemm(h, b) }"
    path = _path(model(text, a=weight(40, 40), b=_TRANSPOSED), tmp_path)
    result = retie([path], tmp_path / "out")
    assert result.proof == "bit for bit"
    assert [mend.how for mend in result.mends] == ["Transpose"]


def test_a_mended_graph_that_does_not_run_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_reading(monkeypatch)
    good, bad = (saved(make(), tmp_path / make.__name__) for make in (_tied, _unknown))
    failed = proof.prove([good], [bad])
    assert failed.verdict == "failed"
    assert "only the given graph runs" in failed.detail


@pytest.mark.parametrize(
    "outputs",
    [
        "float[N, 40] y) { y = MatMul(x, a) }",
        "seq(float[N, 40]) y) { h = MatMul(x, a) y = SequenceConstruct(x, h) }",
        "string[N, 40] y) { h = MatMul(x, a) y = Cast <to = 8> (h) }",
        "float[N, 40] y) { h = MatMul(x, a) y = Log(h) }",
    ],
)
def test_every_kind_of_output_is_compared(
    outputs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors, lists, strings, and numbers with NaN among them."""
    _without_reading(monkeypatch)
    paths = [
        saved(model(f"g (float[N, 40] x) => ({outputs}", a=array), tmp_path / name)
        for name, array in (("a.onnx", W), ("b.onnx", _TRANSPOSED))
    ]
    assert proof.prove(paths[:1], paths[:1]).verdict == "bit for bit"
    assert proof.prove(paths[:1], paths[1:]).verdict == "failed"


def test_both_branches_of_an_if_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever branch has the wrong mend, it is found."""
    _without_reading(monkeypatch)
    monkeypatch.setattr(kept, "ops_between", lambda _kept, _copy: [])
    for then, other in (("MatMul(x, b)", "Relu(x)"), ("Relu(x)", "MatMul(x, b)")):
        text = (
            "g (float[N, 40] x, bool c) => (float[N, 40] y, float[N, 40] z) { z = MatMul(x, a) "
            f"y = If(c) <then_branch = t () => (float[N, 40] p) {{ p = {then} }}, "
            f"else_branch = e () => (float[N, 40] q) {{ q = {other} }}> }}"
        )
        path = _path(model(text, a=W, b=_TRANSPOSED), tmp_path)
        assert retie([path], tmp_path / "out").proof == "failed"


class _Spec:
    """As ONNX Runtime describes an input."""

    def __init__(self, name: str, kind: str, shape: list[int | str | None]) -> None:
        self.name, self.type, self.shape = name, f"tensor({kind})", shape


def test_random_inputs_never_fill_the_memory() -> None:
    _, candidates = next(feeds([_Spec("x", "float", ["a", "b", "c", "d", "e"])], None))
    assert 0 < max(feed["x"].size for feed in candidates) <= 1 << 24


def test_random_inputs_keep_open_axes_of_one_name_equal() -> None:
    specs = [
        _Spec("ids", "int64", ["B", "T"]),
        _Spec("mask", "bool", ["B", "T + P"]),
        _Spec("past", "float16", ["B", 2, "P", None]),
        _Spec("words", "string", ["T"]),
        _Spec("flag", "bool", []),
    ]
    flags = set()
    _, candidates = next(feeds(specs, 7))
    for feed in candidates:
        batch, length = feed["ids"].shape
        assert feed["past"].shape[0] == batch
        assert feed["mask"].shape == (batch, length + feed["past"].shape[2])
        assert feed["words"].shape == (length,)
        assert feed["ids"].max() < 7
        assert feed["past"].dtype == np.float16
        flags.add(bool(feed["flag"]))
    assert flags == {True, False}


@pytest.mark.parametrize(
    ("make", "options", "code"),
    [
        (_tied, [], 0),
        (_unknown, [], 3),
        (_unknown, ["--unproven"], 0),
        (_tied, ["--atol", "1e-4", "--accept"], 0),
        (_tied, ["--accept"], 2),
    ],
)
def test_the_exit_code_tells_the_verdict(
    make: Callable[[], onnx.ModelProto], options: list[str], code: int, tmp_path: Path
) -> None:
    path, out = _path(make(), tmp_path), tmp_path / "out"
    done = CliRunner().invoke(
        cli, ["retie", str(path), "-o", str(out), "--json", str(tmp_path / "r.json"), *options]
    )
    if code == 2:
        assert getattr(done.exception, "exit_code", None) == 2
        return
    assert done.exit_code == code, done.output
    result = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=RetieResult)
    assert out.exists() == (code == 0) == bool(result.outputs)


def test_a_failed_proof_exits_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "ops_between", lambda _kept, _copy: [])
    path = _path(_tied(), tmp_path)
    done = CliRunner().invoke(cli, ["retie", str(path), "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
