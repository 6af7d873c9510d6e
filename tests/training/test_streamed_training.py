"""A training on shards: interrupted, and with what is wrong with them."""

from __future__ import annotations

import io
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
from tiedexport.training.samples import Part
from tiedexport.training.stream import StreamedSamples


@pytest.fixture
def small(tmp_path) -> SmallTraining:
    """Its images in two shards."""
    small = SmallTraining(tmp_path)
    small.images = small.shards()
    return small


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
