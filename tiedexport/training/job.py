"""What to train, on what, where, and where to: everything that can be wrong, found at the start."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from tiedexport import data as datasets
from tiedexport.errors import MissingRuntimeError, RecipeError, UsageError
from tiedexport.recipe import Recipe, load_recipe
from tiedexport.training.pictures import CURVES, RECONSTRUCTIONS
from tiedexport.training.trainer import initial_module

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Job:
    """A checked recipe with its data.

    Attributes:
        input_shape: of one sample as the model takes it; the data's own shape may differ.
        output: the checkpoint to write.
        resume_command: what to type to go on with this training once it was stopped.
    """

    recipe: Recipe
    data: datasets.DataSet
    input_shape: tuple[int, ...]
    device: torch.device
    output: Path
    resume_command: str

    @property
    def resume_file(self) -> Path:
        """Where the state of the unfinished training is kept."""
        return Path(f"{self.output}.resume")

    @property
    def folder(self) -> Path:
        """Where pictures and TensorBoard events go."""
        return self.output.with_suffix(".training")

    @property
    def pictures(self) -> tuple[Path, Path]:
        """The PNGs in that folder."""
        return self.folder / CURVES, self.folder / RECONSTRUCTIONS

    def samples(self, part: Literal["train", "validation", "test"]) -> Tensor:
        """One part of the data as the module wants it: [n, *input_shape]."""
        array: NDArray[np.float32] = getattr(self.data, part)
        return torch.from_numpy(array).reshape(-1, *self.input_shape)


def job_from(
    recipe: str | Path,
    output: str | Path,
    data: str | Path | None,
    epochs: int | None,
    device: str,
    seed: int | None,
) -> Job:
    """Check the arguments of `tiedexport.train.train`, which describes them, and load the data.

    Raises:
        RecipeError, DataError, UsageError, MissingRuntimeError: as there.
    """
    path = Path(output)
    if path.is_dir() or not path.name:
        raise UsageError(
            "the checkpoint is to be a file",
            got=f"the folder {output}",
            hint=f"-o {path / 'model.pt'}",
        )
    checked = load_recipe(recipe).with_changes(data=data, epochs=epochs, seed=seed)
    where = _device_named(device)
    section = checked.data
    loaded = datasets.load(
        section.source, train=section.train, held_back=section.held_back, seed=section.seed
    )
    with torch.device("meta"):
        input_shape = initial_module(checked).input_shape
    _refuse_misfit(checked, loaded.record.sample_shape, input_shape)
    _refuse_shift(checked, loaded.record.sample_shape)
    command = ["tiedexport", "train", str(recipe), "-o", str(output), "--resume"]
    changes = {"data": data, "epochs": epochs, "seed": seed, "device": device}
    for name, value in changes.items():
        if value not in (None, "auto"):
            command += [f"--{name}", str(value)]
    return Job(checked, loaded, input_shape, where, path, shlex.join(command))


def _device_named(name: str) -> torch.device:
    present = torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError("unknown device", got=repr(name), expected="auto, cpu, cuda")
    if name == "cuda" and not present:
        raise MissingRuntimeError(
            "this PyTorch sees no GPU",
            got=f"torch {torch.__version__}",
            expected="a CUDA device and a CUDA build of torch",
            hint="train on the processor: --device cpu",
        )
    return torch.device("cuda" if present and name != "cpu" else "cpu")


def _refuse_misfit(
    recipe: Recipe, sample_shape: tuple[int, ...], input_shape: tuple[int, ...]
) -> None:
    """A flat side takes any shape of its size; otherwise only leading axes of 1 may differ."""
    sizes_agree = math.prod(sample_shape) == math.prod(input_shape)
    flat_input, flat_sample = len(input_shape) == 1, len(sample_shape) == 1
    wanted = (math.prod(sample_shape),) if flat_input else sample_shape
    padded = (1,) * (len(input_shape) - len(wanted)) + wanted
    if (sizes_agree and (flat_input or flat_sample)) or padded == input_shape:
        return
    changes = [
        f"{now} → {then}" for now, then in zip(input_shape, padded, strict=False) if now != then
    ]
    raise RecipeError(
        "the model does not take samples of this shape",
        where=f"{recipe.path}: model",
        got=f"samples of {list(sample_shape)} from {recipe.data.source}",
        expected=f"{list(input_shape)}, as [model] says",
        hint='take family = "autoencoder", or give images'
        if len(padded) != len(input_shape) or (flat_sample and not flat_input)
        else f"in [model] write {', '.join(changes)}",
    )


def _refuse_shift(recipe: Recipe, sample_shape: tuple[int, ...]) -> None:
    if recipe.training.shift and len(sample_shape) < 2:
        raise RecipeError(
            "only images can be shifted",
            where=f"{recipe.path}: training.shift",
            got=f"samples of {list(sample_shape)} from {recipe.data.source}",
            expected="[height, width] or [channels, height, width]",
            hint="set shift = 0, or save the data as images: array.reshape(n, height, width)",
        )
