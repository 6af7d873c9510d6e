"""Files never grow, and their size is no obstacle."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from retied import digests, graphs, model, saved, weight

from tiedexport.memory import PeakMemory
from tiedexport.retie import retie

W = weight(48, 80)


def test_ties_that_cost_more_than_they_save_are_not_made(tmp_path: Path) -> None:
    """Entries into a data file for sixteen numbers take more bytes than the numbers."""
    text = "g (float[N, 16] x) => (float[N, 16] y) { y = Add(x, b) }"
    inputs = [
        saved(model(text, b=weight(16)), tmp_path / f"{name}.onnx") for name in ("first", "second")
    ]
    result = retie(inputs, tmp_path / "out")
    assert result.mends == ()
    assert len(result.left) == 1
    assert result.bytes_after == result.bytes_before
    assert sorted(digests(tmp_path / "out")) == ["first.onnx", "second.onnx"]


def _large(path: Path) -> Path:
    """A tied pair behind a table of 3 GiB that is a hole in its file."""
    rows, holes = 3 << 20, (3 << 20) * 256 * 4
    data = path.with_name("large.data")
    with data.open("wb") as file:
        file.truncate(holes)
        file.seek(holes)
        file.write(W.tobytes() + np.ascontiguousarray(W.T).tobytes())
    made = model(
        "g (int64[N] i, float[N, 48] x) => (float[N, 48] y, float[N, 256] r) "
        "{ r = Gather(table, i) h = MatMul(x, w) y = MatMul(h, t) }"
    )
    for name, shape, offset in (
        ("table", (rows, 256), 0),
        ("w", W.shape, holes),
        ("t", W.T.shape, holes + W.nbytes),
    ):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        length = 4 * math.prod(shape)
        for key, value in (("location", data.name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        made.graph.initializer.append(tensor)
    path.write_bytes(made.SerializeToString())
    return path


def test_more_than_two_gib_are_mended_without_being_loaded(tmp_path: Path) -> None:
    path = _large(tmp_path / "large.onnx")
    with PeakMemory() as memory:
        result = retie([path], tmp_path / "out")
    assert result.proof == "bit for bit", result.proof_detail
    assert [mend.how for mend in result.mends] == ["Transpose"]
    assert result.bytes_before - result.bytes_after == pytest.approx(W.nbytes, abs=200)
    assert memory.peak_bytes - memory.start_bytes < 300 << 20
    written = tmp_path / "out" / "weights.data"
    assert written.stat().st_blocks * 512 < 1 << 20  # the hole is still one


def test_a_file_never_grows_by_the_names_of_what_ties_it(tmp_path: Path) -> None:
    """A Reshape names its shape; where names are long that outweighs a short weight."""
    name = "long" * 100
    text = "g (float[7, 8] x, float[56] k) => (float[7, 8] y, float[56] z)"
    body = f"{{ y = Mul(x, a) z = Mul(k, {name}) }}"
    made = model(f"{text} {body}", **{"a": weight(7, 8), name: weight(56)})
    path = saved(made, tmp_path / "model.onnx")
    result = retie([path], tmp_path / "out")
    assert result.mends == ()
    assert "more bytes than it saves" in result.left[0].reason
    assert Path(result.outputs[0]).read_bytes() == path.read_bytes()


def test_a_small_tie_is_made_among_many_weights(tmp_path: Path) -> None:
    """What stays inline does not count by the longer entries that stand for it meanwhile."""
    others = {f"w{i}": weight(20, 20, seed=100 + i) for i in range(150)}
    body = " ".join(f"h{i + 1} = MatMul(h{i}, w{i})" for i in range(150))
    text = "g (float[N, 20] x) => (float[N, 20] y) { h0 = MatMul(x, a) "
    made = model(
        f"{text} {body} y = MatMul(h150, b) }}",
        a=weight(20, 20),
        b=np.ascontiguousarray(weight(20, 20).T),
        **others,
    )
    path = saved(made, tmp_path / ("deep" * 20) / "model.onnx")
    result = retie([path], tmp_path / "out")
    assert [mend.how for mend in result.mends] == ["Transpose"]


def _untied(folder: Path, data_name: str, op: str = "MatMul") -> list[Path]:
    """Two graphs, each with its own weight in its own data file."""
    text = "g (float[N, 48] x) => (float[N, 48] y)"
    return [
        saved(
            model(f"{text} {{ y = {op}(x, w) }}", w=weight(48, 48, seed=number)),
            folder / f"{number}.onnx",
            external=f"{number}{data_name}",
        )
        for number in range(2)
    ]


def test_data_of_several_graphs_comes_into_one_file_though_nothing_is_mended(
    tmp_path: Path,
) -> None:
    inputs = _untied(tmp_path, ".onnx.external.data")
    result = retie(inputs, tmp_path / "out")
    assert (result.mends, result.left) == ((), ())
    assert result.proof == "bit for bit", result.proof_detail
    assert sorted(digests(tmp_path / "out")) == ["0.onnx", "1.onnx", "weights.data"]
    assert result.bytes_after <= result.bytes_before
    for given, written in zip(inputs, graphs(result), strict=True):
        ours, theirs = (
            onnx.numpy_helper.to_array(onnx.load(p).graph.initializer[0]) for p in (given, written)
        )
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("data_name", "op"), [(".d", "MatMul"), (".onnx.external.data", "own.Swirl")]
)
def test_data_stays_where_one_file_would_take_more_or_is_not_proven(
    data_name: str, op: str, tmp_path: Path
) -> None:
    inputs = _untied(tmp_path / "in", data_name, op)
    result = retie(inputs, tmp_path / "out")
    assert result.proof == "bit for bit"
    assert digests(tmp_path / "out") == digests(tmp_path / "in")
