"""A folder of pictures, read with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.data.extras import needed_for
from tiedexport.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def read_folder(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Read every picture below a folder, in sorted order of its path.

    Returns:
        uint8 [n, height, width] if all are grey, else [n, 3, height, width]; and labels: the names
        of the subfolders as integers, or their places in sorted order, or None without subfolders.

    Raises:
        DataError: no picture, sizes differ, or a picture is damaged, transparent or of 16 bits.
        MissingRuntimeError: Pillow is not installed.
    """
    paths = picture_paths(folder)
    pictures = [read_picture(path) for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape[:2] != pictures[0].shape[:2]:
            raise DataError(
                "the images differ in size",
                where=path,
                got="{} x {} (height x width)".format(*picture.shape),
                expected="{} x {}, as {}".format(*pictures[0].shape[:2], paths[0]),
                hint="bring all to one size, for example: mogrify -resize 28x28! *.png",
            )
    return _stack(pictures), labels_of(folder, paths)


def picture_paths(folder: Path) -> list[Path]:
    """Every picture below a folder, in sorted order of its path.

    Raises:
        DataError: there is none.
        MissingRuntimeError: Pillow is not installed.
    """
    with needed_for("a folder of images", "Pillow"):
        import PIL.Image  # noqa: F401 - fails here, before any file is opened
    paths = sorted(path for path in folder.rglob("*") if _is_picture(path))
    if not paths:
        raise DataError(
            "no image in this folder",
            where=folder,
            got=f"{sum(1 for _ in folder.iterdir())} other entries",
            expected="files ending in " + ", ".join(SUFFIXES),
            hint=f"look at it: ls {folder}",
        )
    return paths


def _is_picture(path: Path) -> bool:
    hidden = path.name.startswith(".")  # such as the ._name.png that macOS leaves in archives
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def read_picture(path: Path) -> NDArray[np.uint8]:
    """One picture as uint8 [height, width], or [height, width, 3] where it has colours.

    Raises:
        DataError: it is damaged, transparent or of 16 bits.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            if image.mode not in GREY_MODES + COLOUR_MODES:
                raise _unfit(path, f"pixels of Pillow's mode {image.mode}")
            if _is_transparent(image):
                raise _unfit(path, "transparent pixels")
            return np.asarray(image.convert("L" if image.mode in GREY_MODES else "RGB"))
    except DataError:
        raise
    # Pillow's decoders raise whatever a damaged file makes them stumble over.
    except Exception as error:
        raise DataError(
            "the image cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="a whole image file",
            hint=f"fetch it again, or leave it out: rm '{path}'",
        ) from error


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    return image.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _unfit(path: Path, got: str) -> DataError:
    return DataError(
        "the image has no plain 8-bit grey or colour values",
        where=path,
        got=got,
        expected="8-bit grey or RGB, opaque",
        hint="convert it, or save floats in [0, 1] as .npy",
    )


def _stack(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    if all(picture.ndim == 2 for picture in pictures):
        return np.stack(pictures)
    return np.stack([colour_planes(picture) for picture in pictures])


def colour_planes(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture, also a grey one, as red, green and blue [3, height, width]."""
    return np.moveaxis(picture, -1, 0) if picture.ndim == 3 else np.stack([picture] * 3)


def labels_of(folder: Path, paths: list[Path]) -> NDArray[np.int64] | None:
    """The names of the subfolders as integers, or their places in sorted order; None without."""
    parents = [path.relative_to(folder).parts[:-1] for path in paths]
    if not all(parents):
        return None
    names = [parts[0] for parts in parents]
    if all(name.isascii() and name.isdigit() for name in names):
        return np.array([int(name) for name in names], np.int64)
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
