"""A job goes on where it stopped, only as it was begun, and never twice at once."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import contents
from jobs import ROWS, X, run

from tiedexport.encode import pipeline
from tiedexport.encode.job import Done, Shard, read_job
from tiedexport.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


@pytest.mark.parametrize("target", ["out", "z.npy"])
def test_shards_share_one_output_that_is_as_from_one_process(
    target: str, source: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    run(dense_bundle, source, tmp_path / f"whole-{target}")
    left = [
        run(dense_bundle, source, tmp_path / target, shard=(k, 3)).parts_left for k in (2, 0, 1)
    ]
    assert left == [4, 2, 0]
    whole, shared = tmp_path / f"whole-{target}", tmp_path / target
    if target == "z.npy":
        assert shared.read_bytes() == whole.read_bytes()
        return
    one, other = contents(whole), contents(shared)
    assert one["_complete.json"] == other["_complete.json"]
    parts = {name for name in one if name.endswith(".parquet")}
    assert len(parts) == 6
    assert all(one[name] == other[name] for name in parts)


def test_a_done_job_is_not_done_again(source: Path, dense_bundle: Bundle, tmp_path: Path) -> None:
    run(dense_bundle, source, tmp_path / "out")
    before = contents(tmp_path / "out")
    result = run(dense_bundle, source, tmp_path / "out", batch=None)
    assert (result.rows_before, result.rows_per_s) == (ROWS, None)
    assert contents(tmp_path / "out") == before


def test_a_part_that_was_removed_is_done_again(
    source: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    run(dense_bundle, source, tmp_path / "out")
    part = tmp_path / "out/part-00002.parquet"
    content = part.read_bytes()
    part.unlink()
    assert run(dense_bundle, source, tmp_path / "out").rows_before == ROWS - 96
    assert part.read_bytes() == content


@pytest.mark.parametrize("target", ["out", "z.npy"])
def test_without_the_record_of_what_is_done_all_is_done_again(
    target: str, source: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    run(dense_bundle, source, tmp_path / target)
    before = contents(tmp_path)
    (record,) = tmp_path.glob("*/_done/0-of-1.jsonl")
    record.unlink()
    assert run(dense_bundle, source, tmp_path / target).rows_before == 0
    assert contents(tmp_path) == before


def test_what_a_full_disk_refuses_to_record_is_said_once(
    source: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    run(dense_bundle, source, tmp_path / "out")
    job = read_job(tmp_path / "out")
    assert job is not None
    with Shard(tmp_path / "out", job, 0) as shard, Path("/dev/full").open("ab") as full:
        shard._file.close()
        shard._file = full
        with pytest.raises(OSError, match="No space left"):
            shard.record(Done(0, 96, 0, 1))
        shard.__exit__()


def test_an_array_that_was_removed_is_not_taken_for_done(
    source: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    run(dense_bundle, source, tmp_path / "z.npy")
    (tmp_path / "z.npy").unlink()
    with pytest.raises(UsageError, match="begins anew"):
        run(dense_bundle, source, tmp_path / "z.npy")


def test_a_record_whose_last_line_is_torn_loses_that_part_only(
    source: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    run(dense_bundle, source, tmp_path / "out")
    before = contents(tmp_path / "out")
    record = tmp_path / "out/_done/0-of-1.jsonl"
    record.write_bytes(record.read_bytes()[:-7])
    assert run(dense_bundle, source, tmp_path / "out").rows_before == 480
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch": 8}, "batch: 16, now 8"),
        ({"stage": "reconstruct"}, "stage: encode, now reconstruct"),
        ({"precision": "fp16"}, "precision: fp32, now fp16"),
        ({"on_error": "skip"}, "on_error: stop, now skip"),
        ({"shard": (0, 2)}, "shards: 1, now 2"),
        ({"runtime": "reference"}, "runtime: torch, now reference"),
    ],
)
def test_other_options_are_another_job(
    options: dict[str, Any], named: str, source: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    run(dense_bundle, source, tmp_path / "out")
    with pytest.raises(UsageError) as refused:
        run(dense_bundle, source, tmp_path / "out", **options)
    assert named in str(refused.value)


def test_another_bundle_or_other_inputs_are_another_job(
    source: Path, bundles: dict[str, Bundle], dense_bundle: Bundle, tmp_path: Path
) -> None:
    run(dense_bundle, source, tmp_path / "out")
    with source.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")
    with pytest.raises(UsageError, match=r"x\.npy sha256"):
        run(dense_bundle, source, tmp_path / "out")
    np.save(tmp_path / "y.npy", X)
    with pytest.raises(UsageError, match=r"y\.npy: newly named"):
        run(dense_bundle, [source, tmp_path / "y.npy"], tmp_path / "out")
    np.save(tmp_path / "u.npy", X[:, :9])
    with pytest.raises(UsageError, match=r"weights: .*, now .*; graph: .*, now "):
        run(bundles["untied"], tmp_path / "u.npy", tmp_path / "out")


def test_an_address_that_no_engine_would_use_is_refused(
    source: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--engine ray"):
        run(dense_bundle, source, tmp_path / "out", ray_address="127.0.0.1:1")


def test_what_no_call_of_encode_made_is_left_alone(
    source: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("all of it")
    (tmp_path / "z.npy").write_text("other")
    for target in ("out", "z.npy"):
        with pytest.raises(UsageError, match="no call of encode began"):
            run(dense_bundle, source, tmp_path / target)


def test_a_second_process_is_refused_while_the_first_works(
    source: Path, dense_bundle: Bundle, tmp_path: Path
) -> None:
    run(dense_bundle, source, tmp_path / "out")
    with (tmp_path / "out/_done/0-of-1.jsonl").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process"):
            run(dense_bundle, source, tmp_path / "out")


@pytest.mark.parametrize("target", ["out", "z.npy"])
def test_a_full_disk_stops_with_its_name_and_the_work_goes_on_later(
    target: str, source: Path, dense_bundle: Bundle, tmp_path: Path, monkeypatch: Any
) -> None:
    run(dense_bundle, source, tmp_path / f"whole-{target}")
    with monkeypatch.context() as patch:
        writes = 0
        write = pipeline._Parts.write

        def full(self: Any, *arguments: Any) -> None:
            nonlocal writes
            writes += 1
            if writes == 3:
                before = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
                try:
                    write(self, *arguments)
                    self.end(2)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, before)
            else:
                write(self, *arguments)

        patch.setattr(pipeline._Parts, "write", full)
        with pytest.raises(BadInputError, match="File too large") as stopped:
            run(dense_bundle, source, tmp_path / target)
    assert "make room" in str(stopped.value)
    assert target in str(stopped.value)
    assert run(dense_bundle, source, tmp_path / target).rows_before == 2 * 96
    whole = tmp_path / f"whole-{target}"
    if target == "out":
        assert contents(tmp_path / target) == contents(whole)
    else:
        assert (tmp_path / target).read_bytes() == whole.read_bytes()


def test_a_small_disk_stops_and_more_room_lets_it_go_on(
    dense_bundle: Bundle, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        np.save(tmp_path / "x.npy", np.resize(X, (20_000, 20)))
        with pytest.raises(BadInputError, match="No space left on device"):
            run(dense_bundle, tmp_path / "x.npy", disk / "out", part_rows=1000)
        done = len(list((disk / "out").glob("part-*.parquet")))
        assert done
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        result = run(dense_bundle, tmp_path / "x.npy", disk / "out", part_rows=1000)
        assert result.rows_before == done * 1000
        assert pq.read_table(disk / "out")["row"].to_pylist() == list(range(20_000))
        assert not list((disk / "out").glob(".*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_encoding_loads_neither_torch_nor_onnx_nor_pandas(
    dense_bundle: Bundle, source: Path
) -> None:
    code = (
        "import sys, tiedexport.encode as e; "
        f"e.encode({str(dense_bundle.path)!r}, [{str(source)!r}], {str(source.parent / 'o')!r}); "
        "print({'torch', 'onnx', 'pandas', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
