"""Samples of any shape become images, and images become PNGs."""

from __future__ import annotations

import builtins
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tiedexport.errors import ArrayError, MissingRuntimeError
from tiedexport.report import images
from tiedexport.report.images import as_images
from tiedexport.results import Reconstruction
from tiedexport.spec import Precision


@pytest.mark.parametrize(
    ("sample_shape", "expected"),
    [
        ((4, 6), (3, 4, 6)),
        ((1, 4, 6), (3, 4, 6)),
        ((3, 4, 6), (3, 4, 6, 3)),
        ((2, 4, 6), (3, 4, 6)),
        ((49,), (3, 7, 7)),
        ((50,), (3, 7, 8)),
        ((1,), (3, 1, 1)),
        ((2, 3, 4, 5), (3, 11, 11)),
    ],
)
def test_each_sample_shape_has_its_layout(sample_shape, expected):
    array = np.random.default_rng(0).random((3, *sample_shape))
    shown = as_images(array, sample_shape)
    assert shown.shape == expected
    assert shown.dtype == np.float32


@given(n=st.integers(1, 4), features=st.integers(1, 90))
@settings(deadline=None, max_examples=40)
def test_a_vector_is_laid_out_row_by_row_near_square_and_padded_with_black(n, features):
    array = np.random.default_rng(features).random((n, features)).astype(np.float32)
    shown = as_images(array, (features,))
    _, height, width = shown.shape
    flat = shown.reshape(n, -1)
    np.testing.assert_array_equal(flat[:, :features], array)
    assert not flat[:, features:].any()
    assert 0 <= width - height <= 1
    assert flat.shape[1] - features < width


def test_colour_channels_move_last_and_flat_arrays_are_reshaped():
    array = np.random.default_rng(0).random((2, 3 * 4 * 5)).astype(np.float32)
    shown = as_images(array, (3, 4, 5))
    assert shown[1, 2, 3, 1] == array.reshape(2, 3, 4, 5)[1, 1, 2, 3]


def test_values_outside_the_range_are_clipped_and_nan_is_black():
    shown = as_images(np.array([[[-1.0, 2.0], [np.nan, np.inf]]]), (2, 2))
    np.testing.assert_array_equal(shown[0], [[0, 1], [0, 1]])


def test_samples_of_another_size_are_refused():
    with pytest.raises(ArrayError, match="samples"):
        as_images(np.zeros((2, 5)), (2, 3))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((2, 4, 5), (2, 4, 5)), ((2, 4, 5, 3), (2, 4, 5, 3)), ((2, 3, 4, 5), (2, 4, 5, 3))],
)
def test_a_recorded_reconstruction_is_read_back_exactly(shape, expected):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    record = Reconstruction("torch", Precision.FP32, shape, pixels.tobytes())
    shown = images.from_record(record)
    assert shown.shape == expected
    again = np.moveaxis(shown, -1, 1) if shape != expected else shown
    np.testing.assert_array_equal(np.round(again * 255).astype(np.uint8), pixels)


def test_a_mosaic_puts_images_side_by_side_with_transparent_gaps():
    shown = np.stack([np.full((2, 3), 0.25), np.full((2, 3), 0.75)]).astype(np.float32)
    decoded = np.asarray(Image.open(io.BytesIO(images.strip(shown)))) / 255
    assert decoded.shape == (2, 7, 4)
    assert decoded[0, 3, 3] == 0.0
    np.testing.assert_allclose(decoded[0, [0, 6], 0], [0.25, 0.75], atol=1 / 255)


def test_differences_are_blue_where_too_dark_and_orange_where_too_bright():
    difference = np.array([[[-0.1, 0.0, 0.1, 0.05]]], np.float32)
    png = images.difference_strip(difference, amplified=10)
    dark, none, bright, half = (np.asarray(Image.open(io.BytesIO(png)))[0, :, :3]).astype(int)
    assert dark.argmax() == 2
    assert bright.argmax() == 0
    assert none.tolist() == [255, 255, 255]
    assert np.abs(half - (bright + 255) / 2).max() <= 1


def test_differences_of_colours_are_averaged_and_clipped():
    difference = np.full((1, 1, 1, 3), 5.0, np.float32)
    png = images.difference_strip(difference, amplified=1)
    assert np.asarray(Image.open(io.BytesIO(png))).shape == (1, 1, 4)


def test_a_png_is_the_same_bytes_every_time():
    pixels = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32)
    assert images.png(pixels) == images.png(pixels)


def test_without_what_draws_the_error_says_what_to_install(monkeypatch):
    importing = builtins.__import__

    def without(name, *rest, **keywords):
        if name.startswith("altair"):
            raise ImportError(name)
        return importing(name, *rest, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingRuntimeError, match=r"pip install 'tiedexport\[report\]'"):
        images.png(np.zeros((2, 2)))
