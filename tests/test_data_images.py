"""Folders of images: their order, colours and labels, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiedexport import data
from tiedexport.data.images import read_folder
from tiedexport.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 5, 4), dtype=np.uint8)


def write_pictures(folder: Path, pictures: dict[str, Image.Image]) -> Path:
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
    return folder


def grey(index: int) -> Image.Image:
    return Image.fromarray(PIXELS[index])


def colour(index: int, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.stack([PIXELS[index], PIXELS[-1], PIXELS[0]], -1)).convert(mode)


def test_grey_pictures_come_in_sorted_order(tmp_path) -> None:
    names = {f"{i:02}.{['png', 'BMP', 'pgm', 'tiff'][i % 4]}": grey(i) for i in reversed(range(12))}
    write_pictures(tmp_path, names)
    (tmp_path / "README.txt").write_text("not a picture")
    (tmp_path / "._00.png").write_text("not a picture either")
    samples, labels = read_folder(tmp_path)
    np.testing.assert_array_equal(samples, PIXELS)
    assert labels is None
    assert data.load(tmp_path).record.sample_shape == (5, 4)


def test_one_picture_in_colour_makes_all_of_them_rgb_planes(tmp_path) -> None:
    write_pictures(tmp_path, {"0.png": grey(3), "1.png": colour(5), "2.png": colour(6, "RGBA")})
    samples, _ = read_folder(tmp_path)
    assert samples.shape == (3, 3, 5, 4)
    np.testing.assert_array_equal(samples[0], np.stack([PIXELS[3]] * 3))
    np.testing.assert_array_equal(samples[1:, 0], PIXELS[5:7])
    np.testing.assert_array_equal(samples[1, 1:], PIXELS[[-1, 0]])
    assert data.load(tmp_path).record.sample_shape == (3, 5, 4)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["cat", "dog", "cat"], [0, 1, 0]),
        (["9", "10", "9"], [9, 10, 9]),
        (["cat/near", "dog", "cat/far"], [0, 1, 0]),
        (["cat", ".", "dog"], None),
    ],
)
def test_names_of_subfolders_are_labels(tmp_path, folders, expected) -> None:
    write_pictures(tmp_path, {f"{f}/{i}.png": grey(i) for i, f in enumerate(folders)})
    samples, labels = read_folder(tmp_path)
    if expected is None:
        assert labels is None
    else:
        found = {picture.tobytes(): label for picture, label in zip(samples, labels, strict=True)}
        assert [found[PIXELS[i].tobytes()] for i in range(3)] == expected


def half_transparent() -> Image.Image:
    picture = colour(1, "RGBA")
    picture.putalpha(128)
    return picture


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (grey(1).resize((4, 6)), ["differ in size", "6 x 4", "5 x 4"]),
        (Image.fromarray(PIXELS[1].astype(np.uint16)), ["mode I;16", "8-bit"]),
        (half_transparent(), ["transparent pixels"]),
    ],
    ids=["size", "16 bits", "alpha"],
)
def test_a_picture_that_does_not_fit_is_named(tmp_path, picture, words) -> None:
    pictures = {"0.png": grey(0), "1.png": picture, "2.png": grey(2), "3.png": picture}
    write_pictures(tmp_path, pictures)
    with pytest.raises(DataError) as caught:
        data.load(tmp_path)
    for word in [str(tmp_path / "1.png"), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("kept_bytes", [0, 10, 40, 60])
def test_a_damaged_picture_is_named(tmp_path, kept_bytes) -> None:
    write_pictures(tmp_path, {f"{i}.png": grey(i) for i in range(5)})
    damaged = tmp_path / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:kept_bytes])
    with pytest.raises(DataError, match=r"3\.png"):
        data.load(tmp_path)


def test_a_folder_without_pictures_says_what_it_looked_for(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(DataError, match="no image") as caught:
        data.load(tmp_path)
    assert ".png" in str(caught.value)
    assert "1 other entries" in str(caught.value)
