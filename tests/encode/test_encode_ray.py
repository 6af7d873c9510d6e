"""On Ray a job's parts are the same to the byte, and its errors are told as anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import contents, needs_native
from jobs import X
from ray_runs import HOW

from tiedexport.encode import encode
from tiedexport.errors import MissingRuntimeError

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle


@pytest.fixture(scope="module")
def folder(dense_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both jobs were done, with what the process printed in `said.json`."""
    pytest.importorskip("ray", reason="Ray is not installed")
    folder = tmp_path_factory.mktemp("ray")
    np.save(folder / "good.npy", X)
    bad = X.copy()
    bad[300, 2] = np.nan
    np.save(folder / "bad.npy", bad)
    words = [Path(__file__).with_name("ray_runs.py"), dense_bundle.path, folder]
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True, text=True, check=False, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "said.json").write_text(done.stdout.splitlines()[-1])
    return folder


@needs_native
def test_parts_on_ray_are_those_of_one_machine(
    folder: Path, dense_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    encode(dense_bundle.path, ["good.npy"], "local", **HOW)
    here, there = contents(folder / "local"), contents(folder / "on-ray")
    record = "_done/0-of-1.jsonl"
    assert sorted(here.pop(record).splitlines()) == sorted(there.pop(record).splitlines())
    assert here == there
    assert sum(name.endswith(".parquet") for name in there) == 6


@needs_native
def test_a_bad_row_on_ray_is_named(folder: Path) -> None:
    said = json.loads((folder / "said.json").read_text())["said"]
    assert "bad.npy, row 300" in said
    assert "--on-error skip" in said


@needs_native
def test_a_job_that_ray_left_is_finished_without_it(
    folder: Path, dense_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for name in ("part-00001.parquet", "part-00004.parquet"):
        (folder / "on-ray" / name).unlink()
    result = encode(dense_bundle.path, ["good.npy"], "on-ray", **HOW)
    assert result.rows_before == len(X) - 192
    assert result.complete


@needs_native
def test_an_embedded_ray_listens_to_this_machine_alone(folder: Path) -> None:
    addresses = json.loads((folder / "said.json").read_text())["listening"]
    assert addresses
    assert not [address for address in addresses if set(address) == {"0"}]


@needs_native
def test_without_ray_it_is_said_what_to_install(
    dense_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(MissingRuntimeError, match=r"tiedexport\[ray\]"):
        encode(dense_bundle.path, [tmp_path / "x.npy"], tmp_path / "out", engine="ray", **HOW)
