"""Every kind of thing: a tie that holds has one copy, and a lost one is named byte by byte."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from audited_things import BROKEN, DECODER, ENCODER, HEALTHY
from command_line import tiedexport
from odd_models import ODD
from retied import digests, model, weight
from safetensors.numpy import save_file

from tiedexport.audit import audit
from tiedexport.results import to_json
from tiedexport.results.ties import STAGE_NAMES, AuditResult, Stage, StoredCopy


def rows_that_ran(result: AuditResult, name: str) -> list[Stage]:
    return [row for row in result.stages if row.name == name and row.status != "not run"]


def stored_in_files(result: AuditResult) -> Stage:
    """The one row of a stage that is read from files."""
    (row,) = [*rows_that_ran(result, "checkpoint"), *rows_that_ran(result, "ONNX files")]
    return row


def bytes_of(copy: StoredCopy) -> np.ndarray:
    """What lies at the place that a copy names."""
    assert copy.offset is not None
    raw = Path(copy.file).read_bytes()[copy.offset : copy.offset + copy.size_bytes]
    return np.frombuffer(raw, copy.dtype).reshape(copy.shape)


def in_form(original: np.ndarray, form: str, dtype: str) -> np.ndarray:
    moved = original.T if form.endswith("transposed") else original
    return moved.astype(dtype)


def assert_whole_table(result: AuditResult) -> None:
    assert tuple(dict.fromkeys(row.name for row in result.stages)) == STAGE_NAMES
    assert all(row.reason for row in result.stages if row.status == "not run")
    written = msgspec.json.decode(to_json(result))
    assert (written["schema"], written["passed"]) == (1, result.passed)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_tie_that_holds_has_one_copy(name: str, tmp_path: Path) -> None:
    things = HEALTHY[name](tmp_path)
    before = digests(tmp_path)
    result = audit(things)
    row = stored_in_files(result)
    assert (row.status, result.passed, result.failed) == ("one copy", True, False)
    (tie,) = row.ties
    (copy,) = tie.copies
    assert tie.needed_bytes == tie.stored_bytes == copy.size_bytes
    assert len(copy.uses) >= 2
    assert bytes_of(copy).shape == copy.shape
    assert row.needed_bytes == row.stored_bytes
    assert digests(tmp_path) == before
    assert_whole_table(result)


@pytest.mark.parametrize("name", BROKEN)
def test_every_copy_of_a_lost_tie_is_where_the_audit_says(name: str, tmp_path: Path) -> None:
    forms, build = BROKEN[name]
    things = build(tmp_path)
    before = digests(tmp_path)
    result = audit(things)
    row = stored_in_files(result)
    assert (row.status, result.passed, result.failed) == ("copies", False, True)
    (tie,) = row.ties
    original, *others = tie.copies
    assert original.form == "original"
    assert tuple(copy.form for copy in others) == forms
    for copy in others:
        expected = in_form(bytes_of(original), copy.form, copy.dtype)
        np.testing.assert_array_equal(bytes_of(copy), expected)
    assert tie.stored_bytes == sum(copy.size_bytes for copy in tie.copies)
    assert tie.needed_bytes == original.size_bytes
    assert row.stored_bytes - row.needed_bytes == tie.stored_bytes - tie.needed_bytes
    assert digests(tmp_path) == before
    assert_whole_table(result)


ROWS = np.random.default_rng(3).standard_normal((24, 24)).astype(np.float32)


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": np.zeros((24, 40)), "b": np.zeros((40, 24))},
        {"a": np.ones(64), "b": np.ones(64)},
        {"a": np.eye(24), "b": np.eye(24)},
        {"a": np.tril(np.ones((24, 24))), "b": np.tril(np.ones((24, 24)))},
        {"a": np.arange(64), "b": np.arange(64)},
        {"a": ROWS[0, :8].copy(), "b": ROWS[0, :8].copy()},
        {"a": ROWS, "b": ROWS[::-1].copy()},
        {"a": ROWS, "b": np.rot90(ROWS).copy()},
        {"a": ROWS, "b": ROWS[np.random.default_rng(0).permutation(24)]},
    ],
    ids=["zeros", "ones", "eye", "mask", "arange", "tiny", "flip", "rotation", "permuted rows"],
)
def test_what_is_equal_by_chance_or_only_looks_equal_is_no_tie(
    tensors: dict[str, np.ndarray], tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "w.safetensors")
    result = audit([tmp_path / "w.safetensors"])
    row = stored_in_files(result)
    assert (row.status, row.needed_bytes) == ("no tie", row.stored_bytes)
    assert result.passed


def test_one_name_for_two_weights_is_no_tie(tmp_path: Path) -> None:
    onnx.save(model(ENCODER, w=weight(24, 40, seed=1)), tmp_path / "encoder.onnx")
    onnx.save(model(DECODER, w=weight(24, 40, seed=2)), tmp_path / "decoder.onnx")
    row = stored_in_files(audit([tmp_path / "encoder.onnx", tmp_path / "decoder.onnx"]))
    assert (row.status, row.needed_bytes) == ("no tie", row.stored_bytes)
    branches = ODD["if_with_same_names"].build(tmp_path)
    assert stored_in_files(audit([branches])).status == "no tie"


def test_stages_of_several_things_stand_in_one_table(tmp_path: Path) -> None:
    checkpoint = HEALTHY["state_dict_of_a_shared_parameter"](tmp_path)
    graph = HEALTHY["graph_with_a_transpose"](tmp_path)
    result = audit(["five_ways:functional", *checkpoint, *graph])
    ran = {row.name for row in result.stages if row.status != "not run"}
    assert ran == set(STAGE_NAMES[:4])
    assert result.passed


def test_the_page_with_pictures_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    things = BROKEN["graph_with_a_stored_transpose"][1](tmp_path)
    done = tiedexport("audit", *things, "--report", "audit.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "transposed" in (tmp_path / "audit.html").read_text("utf-8")
