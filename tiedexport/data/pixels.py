"""The rules that samples must obey, and the one conversion to float32 in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_samples(samples: NDArray[Any], where: object) -> None:
    """Refuse an array that is no data set.

    Args:
        samples: [n, *sample_shape]; uint8, bool, or floats in [0, 1].
        where: the file or name that the array came from, for the error.

    Raises:
        DataError: the array is empty, has fewer than two axes, another dtype, NaN, infinities, or
            values outside [0, 1].
    """
    if samples.ndim < 2:
        raise DataError(
            "these are no samples: an axis of samples and at least one of features are needed",
            where=where,
            got=f"{samples.dtype} of shape {list(samples.shape)}",
            expected="[n, features], [n, height, width] or [n, channels, height, width]",
            hint="reshape it, for example: np.save('data.npy', array.reshape(n, -1))",
        )
    if samples.size == 0:
        raise DataError(
            "the data set is empty",
            where=where,
            got=f"{samples.dtype} of shape {list(samples.shape)}",
            expected="at least three samples of at least one element",
            hint="check what wrote this data",
        )
    if samples.dtype in (np.uint8, np.bool_):
        return
    if samples.dtype.kind != "f":
        raise DataError(
            "samples of this type have no known range",
            where=where,
            got=f"{samples.dtype} of shape {list(samples.shape)}",
            expected="uint8 (0 to 255), bool, or floats in [0, 1]",
            hint="scale it: np.save('data.npy', (array / largest_value).astype('float32'))",
        )
    _check_range(samples, where)


def unit_interval(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Checked samples → a new C-contiguous float32 array in [0, 1]; uint8 is divided by 255."""
    scaled = np.array(samples, np.float32, order="C")
    if samples.dtype == np.uint8:
        scaled /= np.float32(255)
    return scaled


def _check_range(samples: NDArray[np.floating[Any]], where: object) -> None:
    low, high = samples.min(), samples.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        broken = ~np.isfinite(samples)
        first = np.unravel_index(int(broken.argmax()), samples.shape)
        raise DataError(
            "the data holds NaN or infinity",
            where=where,
            got=f"{int(broken.sum())} of {samples.size} values, "
            f"the first, {samples[first]}, at index {[int(i) for i in first]}",
            expected="finite values in [0, 1]",
            hint="drop these samples: array[np.isfinite(array.reshape(len(array), -1)).all(1)]",
        )
    if low < 0 or high > 1:
        raise DataError(
            "values lie outside [0, 1]",
            where=where,
            got=f"{samples.dtype}, minimum {low:.6g}, maximum {high:.6g}",
            expected="floats in [0, 1], or uint8",
            hint="scale it: np.save('data.npy', (array - array.min()) / np.ptp(array))",
        )


def channels_first(samples: NDArray[Any]) -> NDArray[Any]:
    """Images as the models take them, as a view where the channels come last.

    [n, height, width, 3] → [n, 3, height, width] and [n, height, width, 1] → [n, height, width];
    everything else stays as it is.
    """
    if samples.ndim != 4 or samples.shape[1] in (1, 3):
        return samples
    if samples.shape[-1] == 1:
        return samples[..., 0]
    return np.moveaxis(samples, -1, 1) if samples.shape[-1] == 3 else samples
