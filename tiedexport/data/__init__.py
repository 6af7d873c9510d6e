"""Data sets → float32 arrays in [0, 1], split for training, validation and test.

Importing this loads numpy and nothing heavier: deploy targets read their test set with it too.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.data.files import read
from tiedexport.data.pixels import channels_first, check_samples, unit_interval
from tiedexport.data.stream import LANES, Stream, open_stream, paths_of
from tiedexport.data.synthetic import sklearn_digits, synthetic_digits
from tiedexport.errors import DataError, UsageError
from tiedexport.spec import DataRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("synthetic-digits", "sklearn-digits")
SYNTHETIC_SAMPLES = 5_000
"""How many synthetic digits there are for training, and as many held back, unless told."""

RELOAD_LIMIT_SAMPLES = 200_000
RELOAD_LIMIT_BYTES = 1 << 30
"""The most synthetic digits (about 20 s), and the largest file, that `reload` takes."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples to train on, to choose the best checkpoint with, and to report.

    Attributes:
        record: where the samples came from and their digest, for `reload`.
        train, validation, test: float32 [n, *sample_shape], C-contiguous, in [0, 1].
            Of streamed data `train` is a sample, at most 10,000 of those that are trained on.
        train_labels, validation_labels, test_labels: int64 [n], or None without labels.
        stream: all samples to train on, where the data is streamed.
    """

    record: DataRecord
    train: NDArray[np.float32]
    validation: NDArray[np.float32]
    test: NDArray[np.float32]
    train_labels: NDArray[np.int64] | None
    validation_labels: NDArray[np.int64] | None
    test_labels: NDArray[np.int64] | None
    stream: Stream | None = None


def load(
    source: str | Path,
    *,
    train: int | None = None,
    held_back: int | None = None,
    seed: int = 0,
    stream: bool = False,
    column: str | None = None,
    lanes: int = LANES,
) -> DataSet:
    """Load a data set by name or path and split it.

    Of the held-back samples the first 60 % validate and the rest test. A folder of .npy or Parquet
    files, a pattern such as `data/*.npy` and a Parquet file are streamed: what is held back is read
    into memory, and of the rest a sample.

    Args:
        source: `synthetic-digits`, `sklearn-digits`, or a path to a .npy, .npz or IDX file (plain
            or .gz), to a folder of images, or to what is streamed.
        train: samples to train on; 5,000 synthetic ones, otherwise 80 % or what `held_back` leaves.
        held_back: samples to validate and test with; 5,000 synthetic ones, of a stream a fifth and
            at most 10,000, otherwise the rest.
        seed: shuffles the samples, or draws the synthetic ones.
        stream: whether a .npy file is streamed too.
        column: of Parquet files, the one that holds the samples.
        lanes: among how many processes the reading of a stream can be shared.

    Raises:
        DataError: the source does not exist or is damaged, has fewer samples than asked, or holds
            something else than uint8, bool, or floats in [0, 1].
        UsageError: `train`, `held_back` or `seed` is too small.
        MissingRuntimeError: Pillow, matplotlib, scikit-learn or pyarrow is needed and not
            installed.
    """
    _check_arguments(train=(train, 1), held_back=(held_back, 2), seed=(seed, 0), lanes=(lanes, 1))
    paths = _shards(source, stream)
    if column is not None and not (paths and paths[0].suffix == ".parquet"):
        raise DataError(
            "only Parquet files have columns", where=source, got=f"column = {column!r}",
            hint="leave column out",
        )  # fmt: skip
    if paths:
        if train is not None:
            raise UsageError(
                "all that is not held back of a stream is trained on",
                got=f"train = {train}",
                hint="leave train out, or stream fewer files",
            )
        return _streamed(open_stream(paths, held_back, seed, column, lanes), str(source), seed)
    samples: NDArray[Any]
    labels: NDArray[np.int64] | None
    if str(source) == "synthetic-digits":
        train = train or SYNTHETIC_SAMPLES
        held_back = held_back or SYNTHETIC_SAMPLES
        samples, labels = synthetic_digits(train, held_back, seed)
        order = np.arange(train + held_back)
    else:
        samples, labels = _read(source)
        check_samples(samples, source)
        samples = channels_first(samples)
        train, held_back = _sizes(len(samples), train, held_back, source)
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(samples))
    options = {"train": train, "held_back": held_back, "seed": seed}
    return _split(samples, labels, order, str(source), options)


def reload(record: DataRecord) -> DataSet:
    """Load the data of a record again, and only that data.

    A record can come from a stranger, in a bundle. So nothing is read on its word but a named data
    set or a regular file, either of a bounded size; whoever wants more calls `load`.

    Raises:
        DataError: as `load`, or the data is no longer what it was, or is not read on a record's
            word, or the record's options are none of `load`.
        MissingRuntimeError: as `load`.
    """
    if reason := _reason_for_mistrust(record):
        raise DataError(
            f"the data is not loaded on the record's word alone: {reason}",
            where=record.source,
            expected="a named data set, or a regular file, of ordinary size",
            hint="pass --data if you trust it",
        )
    try:
        data = load_as(record, record.source)
    except (UsageError, OSError) as error:
        raise DataError(
            "the record of the data cannot be followed", where=record.source, got=str(error)
        ) from error
    if data.record.sha256 != record.sha256:
        raise DataError(
            "the data has changed since the model was trained",
            where=record.source,
            got=f"SHA-256 {data.record.sha256}, {list(data.record.sample_shape)} a sample",
            expected=f"SHA-256 {record.sha256}, {list(record.sample_shape)} a sample",
            hint="use the versions of Pillow and matplotlib that it was trained with"
            if record.source == "synthetic-digits"
            else "bring the original data back to this path, or train again",
        )
    return data


def load_as(record: DataRecord, source: str | Path, column: str | None = None) -> DataSet:
    """Load a source and split it as a record says, whose own source may be elsewhere by now.

    `column` is what the recipe of that training names, if it does.

    Raises:
        DataError, UsageError, MissingRuntimeError: as `load`.
    """
    options = record.options
    return load(
        source,
        train=options.get("train"),
        held_back=options.get("held_back"),
        seed=options.get("seed", 0),
        stream="lanes" in options,
        column=column,
        lanes=options.get("lanes", LANES),
    )


def _reason_for_mistrust(record: DataRecord) -> str | None:
    if "lanes" in record.options:
        return "it is streamed from many files"
    if unknown := record.options.keys() - {"train", "held_back", "seed"}:
        return f"it has the unknown options {', '.join(sorted(unknown))}"
    if record.source in NAMES:
        samples = record.options.get("train", 0) + record.options.get("held_back", 0)
        return f"{samples} samples" if samples > RELOAD_LIMIT_SAMPLES else None
    if os.path.isdir(record.source):
        return "it is a folder"
    size_bytes = os.path.getsize(record.source) if os.path.isfile(record.source) else 0
    return f"a file of {size_bytes} bytes" if size_bytes > RELOAD_LIMIT_BYTES else None


def _shards(source: str | Path, stream: bool) -> tuple[Path, ...]:
    return () if str(source) in NAMES else paths_of(source, stream)


def _streamed(stream: Stream, source: str, seed: int) -> DataSet:
    """What is held back and the sample are digested whole, the rest by names and sizes only."""
    validation, test = np.split(stream.held_back, [len(stream.held_back) * 3 // 5])
    arrays = [stream.read(rows) for rows in (stream.sample, validation, test)]
    record = DataRecord(
        source=source,
        options={
            "held_back": len(stream.held_back),
            "seed": seed,
            "lanes": stream.lanes,
            "sampled": len(stream.sample),
        },
        sample_shape=arrays[0].shape[1:],
        train=stream.count,
        validation=len(validation),
        test=len(test),
        sha256=_digest(arrays, stream.digest()),
    )
    return DataSet(record, arrays[0], arrays[1], arrays[2], None, None, None, stream)


def _read(source: str | Path) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    if str(source) == "sklearn-digits":
        return sklearn_digits()
    path = Path(source)
    near = difflib.get_close_matches(str(source), NAMES, 1)
    looks_like_a_name = near or (len(path.parts) == 1 and not path.suffix)
    if looks_like_a_name and not path.exists():
        raise DataError(
            "no data set has this name, and no file",
            where=source,
            expected=f"{', '.join(NAMES)}, or a path",
            hint=f"did you mean {near[0]}?" if near else f"--data {NAMES[0]}, or --data PATH",
        )
    return read(path)


def _check_arguments(**smallest: tuple[int | None, int]) -> None:
    for name, (value, least) in smallest.items():
        if value is not None and value < least:
            raise UsageError(f"{name} is too small", got=value, expected=f"at least {least}")


def _sizes(
    count: int, train: int | None, held_back: int | None, source: str | Path
) -> tuple[int, int]:
    """Fill in what was not asked for; at least two samples are held back, one for each purpose."""
    if train is None:
        train = min(count * 4 // 5, count - 2) if held_back is None else count - held_back
    if held_back is None:
        held_back = count - train
    if train < 1 or held_back < 2 or train + held_back > count:
        raise DataError(
            "too few samples",
            where=source,
            got=f"{count} samples",
            expected=f"at least {max(train, 1) + max(held_back, 2)}: {max(train, 1)} to train on "
            f"and {max(held_back, 2)} held back",
            hint="ask for fewer, or add samples",
        )
    return train, held_back


def _split(
    samples: NDArray[Any],
    labels: NDArray[np.int64] | None,
    order: NDArray[np.int64],
    source: str,
    options: dict[str, int],
) -> DataSet:
    train, held_back = options["train"], options["held_back"]
    parts = np.split(order[: train + held_back], [train, train + held_back * 3 // 5])
    arrays = [unit_interval(samples[part]) for part in parts]
    record = DataRecord(
        source=source,
        options=options,
        sample_shape=arrays[0].shape[1:],
        train=len(arrays[0]),
        validation=len(arrays[1]),
        test=len(arrays[2]),
        sha256=_digest(arrays),
    )
    train_labels, validation_labels, test_labels = (
        None if labels is None else labels[part] for part in parts
    )
    return DataSet(
        record, arrays[0], arrays[1], arrays[2], train_labels, validation_labels, test_labels
    )


def _digest(arrays: list[NDArray[np.float32]], begun_with: bytes = b"") -> str:
    digest = hashlib.sha256(begun_with)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data.cast("B"))
    return digest.hexdigest()
