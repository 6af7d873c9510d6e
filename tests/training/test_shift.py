"""Shifted images: the same offset for a batch, nothing wraps around, nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import SmallTraining, same_state

from tiedexport.errors import RecipeError
from tiedexport.training.shift import Shift


@given(
    shape=st.sampled_from([(5, 7), (1, 6, 4), (3, 4, 5)]),
    pixels=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_a_batch_is_moved_as_a_whole_and_what_moves_in_is_zero(
    shape: tuple[int, ...], pixels: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    images = random.random((6, *shape), dtype=np.float32)
    flat = torch.from_numpy(images.reshape(6, -1))
    y, x = random.integers(0, 2 * pixels + 1, 2).tolist()
    moved = Shift(shape, pixels).moved(flat, (y, x))
    margin = [(0, 0)] * (images.ndim - 2) + [(pixels, pixels)] * 2
    padded = np.pad(images, margin)
    expected = padded[..., y : y + shape[-2], x : x + shape[-1]]
    assert moved.shape == flat.shape
    np.testing.assert_array_equal(moved.numpy().reshape(expected.shape), expected)


def test_every_offset_occurs_and_depends_on_the_generator_alone() -> None:
    shift = Shift((4, 4), 1)
    drawn = shift.offsets(200, torch.Generator().manual_seed(3))
    assert drawn == shift.offsets(200, torch.Generator().manual_seed(3))
    assert {tuple(offset) for offset in drawn} == {(y, x) for y in range(3) for x in range(3)}


def test_a_shifted_training_is_repeatable_and_differs_from_a_plain_one(tmp_path: object) -> None:
    small = SmallTraining(tmp_path)
    small.train()
    plain = small.state()
    small.training |= {"shift": 1}
    states = []
    for _ in range(2):
        small.output.unlink()
        small.train()
        states.append(small.state())
    assert same_state(*states)
    assert not same_state(plain, states[0])


def test_flat_data_cannot_be_shifted(tmp_path: object) -> None:
    small = SmallTraining(tmp_path)
    images = np.load(small.images)["images"]
    np.savez(small.images, images=images.reshape(len(images), -1))
    small.training |= {"shift": 1}
    with pytest.raises(RecipeError, match="only images can be shifted"):
        small.train()
