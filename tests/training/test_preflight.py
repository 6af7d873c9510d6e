"""A training that would fail late, or destroy something, does not start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from small_training import SmallTraining

from tiedexport.errors import RecipeError, UsageError
from tiedexport.progress import Progress
from tiedexport.train import plan, train
from tiedexport.training import preflight


@pytest.fixture
def small(tmp_path: Path) -> SmallTraining:
    return SmallTraining(tmp_path)


def refused(small: SmallTraining, output: Path) -> str:
    """The words in which both a training and its plan are refused; nothing changes on disk."""
    small.recipe()
    before = {path: path.lstat().st_mtime_ns for path in small.folder.rglob("*")}
    with pytest.raises(UsageError) as caught:
        plan(small.folder / "recipe.toml", output)
    with pytest.raises(UsageError):
        train(small.folder / "recipe.toml", output, progress=Progress(quiet=True))
    assert {path: path.lstat().st_mtime_ns for path in small.folder.rglob("*")} == before
    return str(caught.value)


@pytest.mark.parametrize("name", ["recipe.toml", "images.npz", "notes.txt", "weights.pt"])
def test_a_file_that_is_no_checkpoint_is_not_overwritten(small: SmallTraining, name: str) -> None:
    (small.folder / "notes.txt").write_text("precious")
    torch.save({"weight": torch.zeros(3)}, small.folder / "weights.pt")

    assert "no checkpoint of tiedexport" in refused(small, small.folder / name)


def test_a_pipe_is_refused_and_not_waited_for(small: SmallTraining) -> None:
    os.mkfifo(small.folder / "pipe")

    assert "no checkpoint of tiedexport" in refused(small, small.folder / "pipe")


def test_a_file_in_the_place_of_the_pictures_is_found_at_the_start(small: SmallTraining) -> None:
    (small.folder / "model.training").write_text("")

    assert "pictures" in refused(small, small.output)
    assert "pictures" in refused(small, small.folder / "other.training")


def test_a_file_in_the_place_of_a_folder_is_found_at_the_start(small: SmallTraining) -> None:
    assert f"{small.images}: Not a directory" in refused(small, small.images / "new" / "model.pt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_found_at_the_start(small: SmallTraining) -> None:
    closed = small.folder / "closed"
    closed.mkdir(mode=0o500)

    assert f"{closed}: Permission denied" in refused(small, closed / "new" / "model.pt")


def test_a_file_system_that_takes_no_files_is_found_at_the_start(small: SmallTraining) -> None:
    assert "cannot be written there" in refused(small, Path("/proc/new/model.pt"))


def test_a_model_beyond_the_memory_is_refused_before_anything_is_allocated(
    small: SmallTraining,
) -> None:
    small.model = {"family": "autoencoder", "widths": [16, 10**12]}
    parameters = 16 * 10**12 + 10**12 + 16

    with pytest.raises(RecipeError, match="too large to be trained") as caught:
        plan(small.recipe(), small.output)

    assert f"{16 * parameters:,} bytes" in str(caught.value.got)
    assert str(caught.value.where).endswith("recipe.toml: model")


def test_the_memory_needed_is_four_float32_a_parameter(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = sum(parameter.numel() for parameter in small.initial_module().parameters())
    monkeypatch.setattr(preflight, "_available_bytes", lambda _device: 16 * parameters)
    plan(small.recipe(), small.output)

    monkeypatch.setattr(preflight, "_available_bytes", lambda _device: 16 * parameters - 1)
    with pytest.raises(RecipeError, match="too large"):
        plan(small.recipe(), small.output)


def test_data_is_found_beside_the_recipe_where_the_current_folder_has_none(
    small: SmallTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    small.training["epochs"] = 1
    monkeypatch.chdir(small.folder)
    absolute, small.images = small.images, Path("images.npz")

    assert small.train(small.folder / "near.pt").record.data.source == "images.npz"
    monkeypatch.chdir(elsewhere)
    record = small.train().record

    assert record.data.source == record.recipe["data"]["source"] == str(absolute)
