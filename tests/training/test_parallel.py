"""Many processes train what one does, and any number goes on from what others have left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import many_processes
import msgspec
import pytest
from many_processes import Far, gone_on, leave
from safetensors import safe_open
from small_training import CONV, DENSE, SmallTraining
from torchrun import torchrun

from tiedexport.errors import CheckpointError
from tiedexport.training.group import ALONE

NOISE = {"kind": "masking", "amount": 0.2}
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # 90 samples: five steps an epoch, of 20, 20, 20, 20 and 10 rows.
    "tied": (DENSE, {"epochs": 4, "batch_size": 20, "noise": NOISE, "shift": 1}),
    "untied": (DENSE | {"tied": False}, {"epochs": 4, "batch_size": 20, "noise": NOISE}),
    "conv": (CONV, {"epochs": 4, "batch_size": 20, "loss": "mse"}),
    # The second batch has one row, so most processes have none.
    "lone row": (DENSE, {"epochs": 10, "batch_size": 89}),
    # 72 samples to train on, 4 × 16 + 8: of the last batch some processes have no row.
    "streamed": (DENSE, {"epochs": 4, "batch_size": 16, "noise": NOISE, "shift": 1}),
}
KINDS = ("DDP", "FSDP2")
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipes, what two and three processes made of them, and what one, two and three left."""
    path = tmp_path_factory.mktemp("parallel")
    small = SmallTraining(path)
    array = small.images
    for name, (small.model, small.training) in RECIPES.items():
        small.images = small.shards() if name == "streamed" else array
        small.recipe().rename(path / f"{name}.toml")
    leave(path / "tied.toml", path / "whole by 1.resume", ALONE)
    for processes in (2, 3):
        torchrun(processes, many_processes.__file__, path)
    return path


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[int, dict[str, Any]]:
    """By the number of processes, then by the name of what was tried."""
    return {n: msgspec.json.decode((folder / f"{n}.json").read_bytes()) for n in (2, 3)}


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_many_processes_train_what_one_does_on_the_whole_batch(
    results: dict[int, dict[str, Any]], recipe: str, kind: str, processes: int
) -> None:
    far = msgspec.convert(results[processes][f"{recipe} {kind}"], Far)

    assert far.weights <= ROUNDING
    assert far.loss <= ROUNDING
    assert far.rmse <= ROUNDING


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_weight_stays_one_parameter(
    results: dict[int, dict[str, Any]], kind: str, processes: int
) -> None:
    # Two layers, each with a bias for either direction.
    for recipe, weights in (("tied", 2), ("untied", 4)):
        assert results[processes][f"{recipe} {kind}"]["parameters"] == weights + 4


@pytest.mark.parametrize(
    ("left", "processes"), [("whole by 1", 2), ("whole by 1", 3), ("sharded by 2", 3)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_other_processes_go_on_from_what_was_left_within_an_epoch(
    results: dict[int, dict[str, Any]], left: str, kind: str, processes: int
) -> None:
    far = results[processes][f"from {left} {kind}"]

    assert far["at once"] == 0
    # A batch too many, or other noise, moves weights by about the learning rate, 1e-3.
    assert far["in the end"] < 1e-5


@pytest.mark.parametrize("left", ["whole by 1", "sharded by 2", "sharded by 3"])
def test_one_process_goes_on_from_what_was_left_within_an_epoch(folder: Path, left: str) -> None:
    far = gone_on(folder / "tied.toml", folder / f"{left}.resume", ALONE)

    assert far["at once"] == 0
    assert far["in the end"] < 1e-5


@pytest.mark.parametrize("processes", [2, 3])
def test_shards_hold_each_row_of_each_weight_once(folder: Path, processes: int) -> None:
    paths = sorted((folder / f"sharded by {processes}.resume.shards").iterdir())
    assert len(paths) == processes
    rows: dict[str, int] = {}
    for path in paths:
        with safe_open(path, "pt") as file:
            names = file.keys()
            for name in names:
                rows[name] = rows.get(name, 0) + file.get_slice(name).get_shape()[0]
    assert rows == {
        f"{kind}.layers.{i}.{name}": count
        for kind in ("weight", "exp_avg", "exp_avg_sq")
        for i, (wide, narrow) in enumerate([(16, 10), (10, 4)])
        for name, count in (("weight", narrow), ("encoder_bias", narrow), ("decoder_bias", wide))
    }


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of what two processes left, and one of its shards, to be damaged."""
    index = tmp_path / "sharded by 2.resume"
    for name in (index.name, index.with_suffix(".whole").name):
        shutil.copy(folder / name, tmp_path)
    shutil.copytree(folder / f"{index.name}.shards", f"{index}.shards")
    return index, sorted(Path(f"{index}.shards").iterdir())[1]


def test_a_damaged_shard_is_refused_by_name(folder: Path, damaged: tuple[Path, Path]) -> None:
    index, shard = damaged
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)

    with pytest.raises(CheckpointError, match="damaged") as caught:
        gone_on(folder / "tied.toml", index, ALONE)

    assert caught.value.where == shard
    assert f"rm {index}" in str(caught.value.hint)


@pytest.mark.parametrize("left", [None, b"", b"cut"])
def test_a_missing_or_cut_shard_is_refused_by_name(
    folder: Path, damaged: tuple[Path, Path], left: bytes | None
) -> None:
    index, shard = damaged
    shard.unlink()
    if left is not None:
        shard.write_bytes(left)

    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        gone_on(folder / "tied.toml", index, ALONE)

    assert caught.value.where == shard
