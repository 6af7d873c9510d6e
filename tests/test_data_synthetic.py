"""The synthetic digits: the same bits from the same seed, and digits that look like digits."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiedexport
from tiedexport import data
from tiedexport.data import synthetic
from tiedexport.errors import MissingRuntimeError

ROOT = Path(tiedexport.__file__).parents[1]


def digest(train: int, held_back: int, seed: int) -> str:
    images, labels = synthetic.synthetic_digits(train, held_back, seed)
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def test_five_thousand_train_and_five_thousand_are_held_back() -> None:
    loaded = data.load("synthetic-digits")
    record = loaded.record
    assert (record.train, record.validation, record.test) == (5000, 3000, 2000)
    assert record.sample_shape == (28, 28)
    assert loaded.train.max() == 1
    assert loaded.train.min() == 0
    for part in (loaded.train, loaded.validation, loaded.test):
        # The means of 2,000 images have a standard error of 0.0013; three of them are 0.004.
        assert part.mean() == pytest.approx(0.136, abs=0.004)
    for labels in (loaded.train_labels, loaded.validation_labels, loaded.test_labels):
        assert labels is not None
        np.testing.assert_allclose(np.bincount(labels) / len(labels), 0.1, atol=0.03)


def test_two_calls_and_two_processes_draw_the_same_bits() -> None:
    code = (
        "import hashlib; from tiedexport.data.synthetic import synthetic_digits as draw;"
        "images, labels = draw(60, 40, 7);"
        "print(hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert digest(60, 40, 7) == digest(60, 40, 7) == other


def test_another_seed_draws_other_digits() -> None:
    assert len({digest(20, 20, seed) for seed in range(5)}) == 5


def test_training_and_held_back_digits_come_from_different_streams() -> None:
    images, _ = synthetic.synthetic_digits(100, 100, 0)
    assert len(np.unique(images.reshape(200, -1), axis=0)) == 200


@settings(deadline=None, max_examples=15)
@given(train=st.integers(1, 40), held_back=st.integers(2, 40), seed=st.integers(0, 2**64))
def test_asking_for_fewer_gives_the_first_of_more(train: int, held_back: int, seed: int) -> None:
    few, few_labels = synthetic.synthetic_digits(train, held_back, seed)
    many, many_labels = synthetic.synthetic_digits(40, 40, seed)
    chosen = [*range(train), *range(40, 40 + held_back)]
    np.testing.assert_array_equal(few, many[chosen])
    np.testing.assert_array_equal(few_labels, many_labels[chosen])


def test_the_glyphs_of_every_font_are_ten_different_centred_pictures() -> None:
    for glyphs in synthetic._draw_glyphs():
        assert len({glyph.tobytes() for glyph in glyphs}) == 10
        for glyph in glyphs:
            left, top, right, bottom = glyph.getbbox()
            assert abs(left + right - synthetic.SIDE) <= 1
            assert abs(top + bottom - synthetic.SIDE) <= 1
            assert 0 < left < right < synthetic.SIDE
            assert 0 < top < bottom < synthetic.SIDE


def test_a_draw_in_the_middle_of_every_range_leaves_a_glyph_where_it_is() -> None:
    unscaled = (1 - synthetic.SCALE_RANGE[0]) / np.ptp(synthetic.SCALE_RANGE)
    coefficients = synthetic._inverse_affine(np.array([[0.5, unscaled, 0.5, 0.5, 0.5]]))
    np.testing.assert_array_equal(coefficients, [[1, 0, 0, 0, 1, 0]])


@settings(deadline=None, max_examples=50)
@given(draw=st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_the_affine_map_is_the_inverse_of_shear_rotation_scale_and_shift(draw: list[float]) -> None:
    a, b, c, d, e, f = synthetic._inverse_affine(np.array([draw]))[0]
    angle = synthetic.ROTATION_RAD * (2 * draw[0] - 1)
    scale = synthetic.SCALE_RANGE[0] + np.ptp(synthetic.SCALE_RANGE) * draw[1]
    shear = synthetic.SHEAR * (2 * draw[2] - 1)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = scale * rotation @ np.array([[1, shear], [0, 1]])
    # A coefficient is rounded to 2^-16, and the rows of `forward` sum to less than 2.
    np.testing.assert_allclose(forward @ [[a, b], [d, e]], np.eye(2), rtol=0, atol=2.0**-16)
    centre = synthetic.SIDE / 2
    shifted = centre + synthetic.SHIFT_PIXELS * (2 * np.array(draw[3:]) - 1)
    # Three roundings of 2^-17, two of them multiplied by at most 17 pixels.
    back = np.array([[a, b], [d, e]]) @ shifted + [c, f]
    np.testing.assert_allclose(back, centre, rtol=0, atol=35 * 2.0**-17)


def test_fonts_that_matplotlib_should_have_brought_are_missed_by_name(monkeypatch) -> None:
    monkeypatch.setattr(synthetic, "FONTS", ("NoSuchFont.ttf",))
    with pytest.raises(MissingRuntimeError, match=r"NoSuchFont\.ttf"):
        data.load("synthetic-digits")
