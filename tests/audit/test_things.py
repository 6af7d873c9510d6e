"""One thing under several names is one thing; a folder, a lone path and an instance are things."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from audited_things import W
from command_line import tiedexport
from five_ways import WIDTHS, functional
from retied import model, weight
from torch import nn

from tiedexport.audit import audit
from tiedexport.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.bundle import Bundle
    from tiedexport.results.ties import AuditResult, Stage

ONCE = "g (float[N, 24] x) => (float[N, 40] y) { y = MatMul(x, w) }"
BACK = "g (float[N, 40] x) => (float[N, 24] y) { y = MatMul(x, w) }"
OTHER_NAMES = {
    "dot": lambda path: f"./{path.name}",
    "upwards": lambda path: f"../{path.parent.name}/{path.name}",
    "absolute": str,
    "link": lambda path: linked(path, Path.symlink_to),
    "hard link": lambda path: linked(path, Path.hardlink_to),
}


def linked(path: Path, link: Callable[[Path, Path], None]) -> str:
    link(path.with_stem("other"), path)
    return path.with_stem("other").name


def ran(result: AuditResult) -> list[Stage]:
    return [row for row in result.stages if row.status != "not run"]


@pytest.mark.parametrize("other", OTHER_NAMES)
@pytest.mark.parametrize("name", ["w.onnx", "w.pt"])
def test_a_file_by_two_names_is_given_once(
    name: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "w.onnx":
        onnx.save(model(ONCE, w=weight(24, 40)), name)
    else:
        torch.save({"w": torch.from_numpy(W.copy())}, name)
    alone, twice = audit([name]), audit([name, OTHER_NAMES[other](tmp_path / name)])
    assert [row.status for row in ran(alone)] == ["no tie"]
    assert ran(twice) == ran(alone)


def test_a_tie_that_every_stage_shows_is_given_once(tmp_path: Path) -> None:
    """ONNX Runtime is asked about each graph once."""
    graph = "g (float[N, 24] x) => (float[N, 24] y) { z = Gemm <transB = 1> (x, w) y = Gemm(z, w) }"
    onnx.save(model(graph, w=weight(40, 24)), tmp_path / "w.onnx")
    done = tiedexport("audit", "w.onnx", "./w.onnx", "--fail-on-copies", "-q", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "yes: one copy" in done.stdout


def test_a_bundle_by_two_names_is_one_bundle(dense_bundle: Bundle) -> None:
    path = dense_bundle.path
    twice = audit([path, Path(os.path.relpath(path))])
    assert {row.status for row in ran(twice) if row.counts} == {"one copy"}


def test_a_folder_of_graphs_is_audited_together(tmp_path: Path) -> None:
    folder = tmp_path / "graphs"
    folder.mkdir()
    w = weight(24, 40)
    onnx.save(model(ONCE, w=w), folder / "encoder.onnx")
    onnx.save(model(BACK, w=np.ascontiguousarray(w.T)), folder / "decoder.ONNX")
    (folder / "readme.txt").write_text("no graph")
    row = next(row for row in ran(audit([folder])) if row.name == "ONNX files")
    (tie,) = row.ties
    assert [copy.form for copy in tie.copies] == ["original", "transposed"]
    assert ran(audit([folder, folder / "encoder.onnx"]))[0] == row


def test_a_folder_without_graphs_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not a bundle"):
        audit(tmp_path)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_lone_path_is_a_thing(kind: type[str] | type[Path], tmp_path: Path) -> None:
    onnx.save(model(ONCE, w=weight(24, 40)), tmp_path / "w.onnx")
    result = audit(kind(tmp_path / "w.onnx"))
    assert result.things == (str(tmp_path / "w.onnx"),)
    assert [row.status for row in ran(result)] == ["no tie"]


@pytest.mark.parametrize("several", [False, True])
def test_an_instance_is_a_thing(several: bool) -> None:
    module = functional()
    by_name = audit("five_ways:functional", input_shape=WIDTHS[:1])
    result = audit([module] if several else module, input_shape=WIDTHS[:1])
    assert result.things == (type(module).__name__,)
    (row,), (named,) = ran(result), ran(by_name)
    assert row.status == named.status == "one copy"
    assert [tie.uses for tie in row.ties] == [tie.uses for tie in named.ties]
    assert result.findings == ()


def test_a_module_that_can_be_iterated_is_one_thing() -> None:
    shared = nn.Linear(24, 24)
    result = audit(nn.Sequential(shared, nn.ReLU(), shared))
    assert result.things == ("Sequential",)
    assert [row.status for row in ran(result)] == ["one copy"]


def test_two_instances_are_two_audits() -> None:
    with pytest.raises(UsageError, match="two live modules"):
        audit([nn.Linear(3, 4), nn.Linear(3, 4)])


@pytest.mark.parametrize("thing", [5, None, [5], [b"w.onnx"]])
def test_what_is_neither_name_nor_module_is_refused(thing: object) -> None:
    with pytest.raises(UsageError, match="cannot tell what this is"):
        audit(thing)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("", UsageError, "an empty name"),
        ("/dev/null", BadInputError, "not a file"),
        ("model.pt2", UsageError, "its weights are only told by running it"),
        ("noend", UsageError, "a name without an ending"),
    ],
)
def test_a_name_that_cannot_be_audited_is_told_why(
    name: str, error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words) as told:
        audit([name])
    assert "where:    ." not in str(told.value)


def test_a_program_is_sent_to_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as told:
        audit("my model.pt2")
    expected = "tiedexport build 'my model.pt2', then tiedexport audit 'my model.tied'"
    assert told.value.hint == expected
