"""Shards of .npy files: each sample once an epoch, in one order however many processes read."""

from __future__ import annotations

import os
import tempfile
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_memory import memory_growth_of_reading

from tiedexport import data
from tiedexport.data.stream import WINDOW_BYTES, Stream, npy, open_stream, paths_of
from tiedexport.errors import DataError, UsageError


def write_shards(folder: Path, counts: list[int], width: int = 2) -> tuple[Path, ...]:
    """Shards of float64 whose rows tell where they are: row n of all holds n / total twice."""
    total = sum(counts)
    for number, (first, stop) in enumerate(pairwise(np.cumsum([0, *counts]))):
        rows = np.arange(first, stop)[:, None] / total
        np.save(folder / f"shard-{number:02d}.npy", np.repeat(rows, width, axis=1))
    return paths_of(folder, stream=False)


def rows_of(values: np.ndarray, total: int) -> list[int]:
    return np.rint(values[:, 0] * total).astype(int).tolist()


def opened(paths: tuple[Path, ...], held_back: int | None = None, lanes: int = 16) -> Stream:
    return open_stream(paths, held_back, 0, None, lanes)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 90), min_size=1, max_size=5).filter(lambda c: sum(c) > 3),
    held_back=st.integers(2, 40),
    batch_size=st.integers(1, 50),
    lanes=st.integers(1, 20),
    processes=st.integers(1, 5),
    window_bytes=st.sampled_from([16, 500, 10_000]),
    first_batch=st.integers(0, 6),
    blocks=st.sampled_from([1, 3, 10, 1000]),
)
def test_many_processes_read_what_one_reads_and_each_sample_once(
    counts, held_back, batch_size, lanes, processes, window_bytes, first_batch, blocks
) -> None:
    total = sum(counts)
    held_back = min(held_back, total - 1)
    processes = min(processes, lanes, batch_size)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(npy, "SMALL_SET_BLOCKS", blocks),
    ):
        stream = opened(write_shards(Path(folder), counts), held_back, lanes)

        def epoch(**part: int) -> list:
            options = {"seed": 3, "window_bytes": window_bytes, **part}
            return list(stream.epoch(1, batch_size, **options))

        whole = epoch()
        parts = [epoch(rank=rank, processes=processes) for rank in range(processes)]
        later = epoch(first_batch=first_batch)
    trained = [row for rows in whole for row in rows_of(rows.values, total)]
    assert sorted([*trained, *stream.held_back]) == list(range(total))
    for one, *many in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate([part.values for part in many]), one.values)
        assert [part.first for part in many] == [
            sum(len(part.values) for part in many[:rank]) for rank in range(processes)
        ]
        assert {part.total for part in many} == {len(one.values)}
    assert len(later) == max(0, len(whole) - first_batch)
    for one, same in zip(whole[first_batch:], later, strict=True):
        np.testing.assert_array_equal(one.values, same.values)


def test_the_order_is_of_the_seed_and_the_epoch(tmp_path) -> None:
    stream = opened(write_shards(tmp_path, [300, 200]))

    def order(epoch: int, seed: int) -> list[int]:
        return [n for rows in stream.epoch(epoch, 32, seed=seed) for n in rows_of(rows.values, 500)]

    first = order(0, 1)
    assert first == order(0, 1)
    assert first != order(1, 1)
    assert first != order(0, 2)
    neighbours = sum(abs(a - b) == 1 for a, b in pairwise(first))
    assert neighbours < len(first) / 20


def test_each_process_reads_its_own_part_of_the_bytes(tmp_path, monkeypatch) -> None:
    paths = write_shards(tmp_path, [5000, 3000], width=16)
    stream = opened(paths, held_back=800)
    read, preadv = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda *a: read.append(preadv(*a)) or read[-1])
    trained_bytes = stream.count * 16 * 8
    for rank in range(2):
        read.clear()
        taken = sum(len(r.values) for r in stream.epoch(0, 64, seed=0, rank=rank, processes=2))
        assert taken == stream.count // 2
        # Held back rows between others are read too, as their neighbours are.
        assert trained_bytes / 2 <= sum(read) <= 8000 * 16 * 8 / 2 * 1.1


def test_what_is_held_back_is_in_memory_and_never_trained_on(tmp_path) -> None:
    write_shards(tmp_path, [700, 300])
    loaded = data.load(tmp_path, held_back=100)
    assert (loaded.record.train, loaded.record.validation, loaded.record.test) == (900, 60, 40)
    assert loaded.record.options == {"held_back": 100, "seed": 0, "lanes": 16, "sampled": 900}
    held = {*rows_of(loaded.validation, 1000), *rows_of(loaded.test, 1000)}
    assert held == set(loaded.stream.held_back.tolist())
    assert not held & set(rows_of(loaded.train, 1000))
    again = data.load_as(loaded.record, f"{tmp_path}/*.npy")
    np.testing.assert_array_equal(again.test, loaded.test)
    assert again.record.sha256 == loaded.record.sha256
    with pytest.raises(DataError, match="on the record's word") as caught:
        data.reload(loaded.record)
    assert "streamed" in str(caught.value)


def test_a_shard_more_or_other_values_change_the_digest(tmp_path) -> None:
    paths = write_shards(tmp_path, [700, 300])
    before = data.load(tmp_path).record.sha256
    np.save(paths[1], np.load(paths[1])[::-1])
    other_values = data.load(tmp_path).record.sha256
    paths[1].rename(tmp_path / "other.npy")
    assert len({before, other_values, data.load(tmp_path).record.sha256}) == 3


def test_images_are_scaled_and_turned_as_those_in_memory(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    streamed = data.load(tmp_path / "images.npy", stream=True, held_back=10)
    assert streamed.record.sample_shape == (3, 4, 5)
    (rows,) = streamed.stream.epoch(0, 64, seed=0)
    found = np.concatenate([rows.values, streamed.validation, streamed.test])
    expected = np.moveaxis(images, -1, 1) / np.float32(255)
    key = np.lexsort(found.reshape(50, -1).T), np.lexsort(expected.reshape(50, -1).T)
    np.testing.assert_array_equal(found[key[0]], expected[key[1]])


def test_what_is_streamed(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 2)))
    (tmp_path / "readme.txt").touch()
    one = (tmp_path / "a.npy",)
    assert paths_of(tmp_path, stream=False) == one
    assert paths_of(f"{tmp_path}/*.npy", stream=False) == one
    assert paths_of(one[0], stream=True) == one
    assert paths_of(one[0], stream=False) == ()
    (tmp_path / "picture.png").touch()
    assert paths_of(tmp_path, stream=False) == ()


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def _with_nan(path: Path) -> None:
    rows = np.load(path)
    rows[3, 1] = np.nan
    np.save(path, rows)


def _archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.zeros((5, 2)))


DAMAGE = {
    "another shape": (lambda path: np.save(path, np.zeros((5, 3))), "the shards differ"),
    "another type": (lambda path: np.save(path, np.zeros((5, 2), "f4")), "the shards differ"),
    "cut short": (_shorter, "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "an archive": (_archive, "cannot be read"),
    "no rows": (lambda path: np.save(path, np.zeros((0, 2))), "data set is empty"),
    "objects": (lambda path: np.save(path, np.array([[{}]])), "cannot be read"),
    "Fortran's order": (lambda path: np.save(path, np.zeros((5, 2)).T.copy().T), "one after the"),
    "integers": (lambda path: np.save(path, np.zeros((5, 2), int)), "no known range"),
    "NaN": (_with_nan, "NaN or infinity"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_shard_is_named(tmp_path, kind) -> None:
    _, second = write_shards(tmp_path, [30, 20])
    damage, words = DAMAGE[kind]
    damage(second)
    with pytest.raises(DataError, match=words) as caught:
        list(data.load(tmp_path, held_back=2).stream.epoch(0, 10, seed=0))
    assert "shard-01.npy" in str(caught.value)


def test_a_shard_that_becomes_shorter_is_named(tmp_path) -> None:
    _, second = write_shards(tmp_path, [30, 20])
    stream = data.load(tmp_path, held_back=2).stream
    _shorter(second)
    with pytest.raises(DataError, match="became shorter") as caught:
        list(stream.epoch(0, 10, seed=0))
    assert "shard-01.npy" in str(caught.value)


def test_what_cannot_be_streamed_is_refused(tmp_path) -> None:
    write_shards(tmp_path, [30])
    with pytest.raises(DataError, match="too few samples"):
        data.load(tmp_path, held_back=30)
    with pytest.raises(UsageError, match="trained on"):
        data.load(tmp_path, train=10)
    with pytest.raises(DataError, match="no file matches"):
        data.load(tmp_path / "*.parquet")
    (tmp_path / "b.parquet").touch()
    with pytest.raises(DataError, match="cannot be streamed"):
        data.load(tmp_path)
    with pytest.raises(DataError, match="cannot be streamed"):
        data.load(Path(__file__), stream=True)
    stream = opened((tmp_path / "shard-00.npy",), lanes=4)
    with pytest.raises(UsageError, match="more processes than lanes") as caught:
        list(stream.epoch(0, 32, seed=0, rank=1, processes=8))
    assert "lanes = 8" in str(caught.value)


def test_memory_is_bounded_by_the_windows(tmp_path) -> None:
    """192 MiB of shards through 32 MiB of windows."""
    for number in range(4):
        np.lib.format.open_memmap(
            tmp_path / f"{number}.npy", mode="w+", dtype=np.uint8, shape=(12_000, 4096)
        )
    # The windows, one piece a lane, some batches in float32, and what an allocator keeps.
    assert memory_growth_of_reading(tmp_path) < WINDOW_BYTES + (24 << 20)
