"""Errors name a file as it was given, and a link by what it leads to."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from retied import model, weight

from tiedexport.errors import GraphError
from tiedexport.onnx_files import load

ONCE = "g (float[N, 24] x) => (float[N, 40] y) { y = MatMul(x, w) }"


def external(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "m.onnx"
    made = model(ONCE, w=weight(24, 40))
    onnx.save(made, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    return path


def test_a_link_of_a_download_cache_is_named_with_its_target_and_the_way_out(
    tmp_path: Path,
) -> None:
    """Model and data are links into a folder of blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snap shot"
    external(blobs)
    snapshot.mkdir()
    for name in ("m.onnx", "m.onnx.data"):
        (snapshot / name).symlink_to(Path("../blobs", name))
    with pytest.raises(GraphError, match="a link out of the model's folder") as told:
        load(snapshot / "m.onnx")
    assert told.value.got == f"m.onnx.data → {blobs / 'm.onnx.data'}"
    assert told.value.hint is not None
    assert f"cp -L '{snapshot}/m.onnx' '{snapshot}/m.onnx.data' NEW_FOLDER/" in told.value.hint


def test_a_location_outside_is_no_link(tmp_path: Path) -> None:
    path = external(tmp_path / "a")
    data = path.read_bytes().replace(b"m.onnx.data", b"../onx.data")
    path.write_bytes(data)
    with pytest.raises(GraphError, match="external data outside the model's folder") as told:
        load(path)
    assert told.value.got == "../onx.data"


@pytest.mark.parametrize("damage", ["short", "garbage", "twice"])
def test_a_damaged_file_is_named_as_it_was_given(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = model(ONCE, w=weight(24, 40))
    if damage == "short":
        made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-4]
    if damage == "twice":
        made.graph.initializer.append(made.graph.initializer[0])
    content = b"\xff" * 90 if damage == "garbage" else made.SerializeToString()
    Path("bad.onnx").write_bytes(content)
    with pytest.raises(GraphError) as told:
        load(Path("bad.onnx"))
    assert "bad.onnx" in str(told.value.where)
    assert str(tmp_path) not in str(told.value)
