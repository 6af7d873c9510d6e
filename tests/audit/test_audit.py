"""Every kind of thing: a tie that holds has one copy, and a lost one is named byte by byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from audited_things import BROKEN, HEALTHY

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


def digests(folder: Path) -> dict[Path, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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
