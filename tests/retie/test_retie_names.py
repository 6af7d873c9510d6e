"""What is given: graphs of one name in several folders, and a lone path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from retied import digests, graphs, model, saved, second_copies, weight

from tiedexport.retie import retie
from tiedexport.retie.given import written_names

if TYPE_CHECKING:
    import onnx

W = weight(24, 40)
FLIPPED = np.ascontiguousarray(W.T)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.onnx", "x/b.onnx"], ["a.onnx", "b.onnx"]),
        (["e/model.onnx", "d/model.onnx"], ["e-model.onnx", "d-model.onnx"]),
        (["e/x/m.onnx", "d/x/m.onnx", "o.onnx"], ["e-x-m.onnx", "d-x-m.onnx", "o.onnx"]),
        (["/m.onnx", "/d/m.onnx"], ["m.onnx", "d-m.onnx"]),
        (["/a/../e/m.onnx", "/e/../d/m.onnx"], ["e-m.onnx", "d-m.onnx"]),
    ],
)
def test_a_name_has_as_many_folders_as_tell_it_apart(paths: list[str], names: list[str]) -> None:
    assert written_names([Path(path) for path in paths]) == names


def _half(array: np.ndarray) -> onnx.ModelProto:
    n, k = array.shape
    return model(f"g (float[N, {n}] x) => (float[N, {k}] y) {{ y = MatMul(x, w) }}", w=array)


@pytest.mark.parametrize("external", ["", "model.onnx.data"])
def test_graphs_of_one_name_share_one_copy(external: str, tmp_path: Path) -> None:
    """Their external data may have one name as well, and holds something else."""
    halves = {"encoder": W, "decoder": FLIPPED}
    inputs = [
        saved(_half(array), tmp_path / "in" / name / "model.onnx", external=external)
        for name, array in halves.items()
    ]
    result = retie(inputs, tmp_path / "out")
    assert result.proof == "bit for bit", result.proof_detail
    names = ["decoder-model.onnx", "encoder-model.onnx", "weights.data"]
    assert sorted(digests(tmp_path / "out")) == names
    assert [path.name for path in graphs(result)] == names[1::-1]
    assert second_copies(graphs(result)) == []
    again = retie(inputs, tmp_path / "out")
    assert again.outputs == result.outputs


def test_what_is_left_in_one_of_them_is_told_apart(tmp_path: Path) -> None:
    """The decoder's copy is an input too and has to stay; the encoder's has the same name."""
    text = "g (float[N, 40] x, float[40, 24] w, float[N, 24] z) => (float[N, 24] y, float[N, 40] k)"
    made = model(f"{text} {{ y = MatMul(x, w) k = MatMul(z, v) }}", w=FLIPPED, v=W)
    inputs = [saved(_half(W), tmp_path / "encoder" / "model.onnx")]
    inputs.append(saved(made, tmp_path / "decoder" / "model.onnx"))
    result = retie(inputs, tmp_path / "out")
    assert result.proof == "bit for bit", result.proof_detail
    assert [left.copy for left in result.left] == [f"{inputs[1]}: w"]
    assert len(result.mends) == 1


def test_graphs_of_one_name_without_copies_are_copied(tmp_path: Path) -> None:
    arrays = {"a": W, "b": weight(24, 40, seed=1)}
    inputs = [saved(_half(array), tmp_path / n / "m.onnx") for n, array in arrays.items()]
    result = retie(inputs, tmp_path / "out")
    assert result.mends == ()
    assert digests(tmp_path / "out") == {
        f"{name}-m.onnx": digests(tmp_path / name)["m.onnx"] for name in arrays
    }


@pytest.mark.parametrize("kind", [str, Path])
def test_a_lone_path_needs_no_list(kind: type[str | Path], tmp_path: Path) -> None:
    path = kind(saved(_half(W), tmp_path / "m.onnx"))
    assert retie(path, str(tmp_path / "out")).inputs == (str(path),)
