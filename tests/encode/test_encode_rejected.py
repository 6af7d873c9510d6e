"""A row that cannot be computed stops a job, or is left out and kept with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import tiedexport
from jobs import ROWS, X, answers, codes, run

from tiedexport.errors import DataError

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Rows 200 and 201 cannot be computed."""
    x = X.copy()
    x[200, 4], x[201, 19] = np.nan, np.inf
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "x.npy"


GOOD = np.delete(np.arange(ROWS), [200, 201])


def test_a_bad_row_stops_and_is_named_and_what_was_done_stays(
    broken: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(DataError) as stopped:
            run(dense_bundle, broken, tmp_path / "out")
        assert f"{broken}, row 200" in str(stopped.value)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {name for name in files if name.endswith(".parquet")} == {
        "part-00000.parquet",
        "part-00001.parquet",
    }
    assert "_complete.json" not in files


def test_bad_rows_are_left_out_of_a_table_and_kept_with_their_reason(
    broken: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    result = run(dense_bundle, broken, tmp_path / "out", on_error="skip")
    table = pq.read_table(tmp_path / "out")
    assert table["row"].to_pylist() == GOOD.tolist()
    np.testing.assert_array_equal(codes(table), answers(dense_bundle, X)[GOOD])
    (rejects,) = Path(result.rejects).iterdir()
    rows = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(row["file"], row["row"]) for row in rows] == [(str(broken), 200), (str(broken), 201)]
    assert {row["reason"] for row in rows} == {"NaN or infinity"}
    assert (result.rejected, result.rows) == (2, ROWS)


def test_bad_rows_of_an_array_are_not_numbers(
    broken: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    run(dense_bundle, broken, tmp_path / "z.npy", on_error="skip")
    z = np.load(tmp_path / "z.npy")
    assert np.isnan(z[[200, 201]]).all()
    np.testing.assert_array_equal(z[GOOD], answers(dense_bundle, X)[GOOD])


def test_rows_of_a_table_are_rejected_for_every_reason(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    samples = X[:6].tolist()
    samples[1], samples[2], samples[3][5], samples[4][5] = None, [1.0, 2.0], None, float("inf")
    table = pa.table({"key": list("abcdef"), "image": samples})
    pq.write_table(table, tmp_path / "x.parquet")
    run(dense_bundle, tmp_path / "x.parquet", tmp_path / "out", on_error="skip")
    lines = (tmp_path / "out/_rejected/part-00000.jsonl").read_text().splitlines()
    assert [(row["columns"]["key"], row["reason"]) for row in map(json.loads, lines)] == [
        ("b", "null"),
        ("c", "2 values, not 20"),
        ("d", "a null among its values"),
        ("e", "NaN or infinity"),
    ]
    assert pq.read_table(tmp_path / "out")["key"].to_pylist() == ["a", "f"]


def test_a_picture_that_cannot_be_read_is_rejected_by_its_name(
    bundles: dict[str, Bundle], tmp_path: Path
) -> None:
    import PIL.Image

    (tmp_path / "images").mkdir()
    for name in "abc":
        PIL.Image.fromarray(np.zeros((9, 12), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "images/b.png").write_bytes(b"\x89PNG and no more")
    result = run(bundles["conv"], tmp_path / "images", tmp_path / "out", on_error="skip")
    (line,) = (tmp_path / "out/_rejected/part-00000.jsonl").read_text().splitlines()
    assert json.loads(line)["file"] == str(tmp_path / "images/b.png")
    assert result.rejected == 1
    with pytest.raises(DataError, match=r"b\.png"):
        run(bundles["conv"], tmp_path / "images", tmp_path / "again")


def test_the_command_goes_on_after_what_stopped_it(
    broken: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    words = ["encode", dense_bundle.path, broken, "-o", "out", "--threads", "1", "--part-rows", 96]
    stopped = tiedexport(*words, cwd=tmp_path)
    assert stopped.returncode == 4
    assert "row 200" in stopped.stderr
    other = tiedexport(*words, "--shard", "2/2", cwd=tmp_path)
    assert other.returncode == 2
    done = tiedexport(*words[:-1], "512", "-o", "new", "--on-error", "skip", "--json", "-",
                      cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rejected"] == 2
