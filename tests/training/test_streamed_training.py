"""A training on shards: interrupted, on several processes, and with what is wrong with them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import Interrupted, SmallTraining, same_state

from tiedexport import data
from tiedexport.errors import DataError
from tiedexport.recipe import load_recipe
from tiedexport.train import plan
from tiedexport.training.group import ALONE, MEETING_PLACE, Group
from tiedexport.training.samples import Part
from tiedexport.training.stream import StreamedSamples
from tiedexport.training.trainer import Trainer


@pytest.fixture
def small(tmp_path) -> SmallTraining:
    """Its images in two shards.

    72 of 90 are trained on, 72 = 4 × 16 + 8: of the last batch a second process has no row.
    """
    small = SmallTraining(tmp_path)
    images = np.load(small.images)["images"]
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, part in zip("ab", np.split(images, [50]), strict=True):
        np.save(folder / f"{name}.npy", part)
    small.images = folder
    return small


TRAINING = """
import sys
import torch
from test_streamed_training import trained
from tiedexport.train import plan
from tiedexport.training.group import joined

torch.set_num_threads(1)
with joined("cpu") as group:
    weights = trained(sys.argv[1], sys.argv[2], group)
    if group.leads:
        torch.save(weights, sys.argv[3])
"""


def trained(recipe: str | Path, shards: str | Path, group: Group) -> dict[str, torch.Tensor]:
    """The weights after four epochs in float64, of the recipe on the shards."""
    checked = load_recipe(recipe)
    loaded = data.load(shards)
    samples = StreamedSamples(loaded.stream, checked.training, (16,), group.part)
    trainer = Trainer(checked, samples, group, dtype=torch.float64)
    for epoch in range(4):
        trainer.train_epoch(epoch)
    return trainer.module.state_dict()


def test_two_processes_train_what_one_trains(small, tmp_path) -> None:
    recipe, result = small.recipe(), tmp_path / "weights.pt"
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    environment = {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "WORLD_SIZE": "2",
        MEETING_PLACE: str(meeting),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, recipe, small.images, result],
            env={**os.environ, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in started] == [0, 0]
    alone = trained(recipe, small.images, ALONE)
    for name, weight in torch.load(result, weights_only=True).items():
        difference = (weight - alone[name]).abs().max() / alone[name].abs().max()
        assert difference <= 1e-12, name


def test_a_stopped_training_goes_on_identically(small) -> None:
    small.training["epochs"] = 3
    small.train(small.folder / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        small.train(progress=Interrupted(13, io.StringIO()), save_every=2)
    small.train(resume=True)
    assert same_state(small.state(), small.state(small.folder / "whole.pt"))


def test_a_pattern_is_also_looked_for_beside_the_recipe(small) -> None:
    small.images = Path("shards/*.npy")
    assert "72 to train on, 10 to validate, 8 to test" in plan(small.recipe(), small.output)


def test_batches_go_on_within_an_epoch(small) -> None:
    samples = samples_of(small)
    whole, later = list(samples.batches(1)), list(samples.batches(1, 2))
    assert len(later) == len(whole) - 2
    for one, same in zip(whole[2:], later, strict=True):
        assert torch.equal(one.clean, same.clean)
        assert (one.rows, one.size) == (same.rows, same.size)


def test_who_stops_early_leaves_no_thread(small) -> None:
    batches = samples_of(small).batches(0)
    next(batches)
    assert any(thread.name.startswith("read-ahead") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_damage_that_is_found_while_training_is_an_error(small) -> None:
    samples = samples_of(small)
    path = small.images / "b.npy"
    rows = np.load(path)
    rows[:] = np.nan
    np.save(path, rows)
    with pytest.raises(DataError, match="NaN") as caught:
        list(samples.batches(0))
    assert "b.npy" in str(caught.value)


def samples_of(small: SmallTraining) -> StreamedSamples:
    settings = load_recipe(small.recipe()).training
    stream = data.load(small.images, held_back=18).stream
    return StreamedSamples(stream, settings, (16,), Part())
