"""What to train, on what, where, and where to: everything that can be wrong, found at the start."""

from __future__ import annotations

import glob
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import torch

from tiedexport import data as datasets
from tiedexport.errors import RecipeError, UsageError
from tiedexport.recipe import Recipe, load_recipe
from tiedexport.training.pictures import CURVES, RECONSTRUCTIONS
from tiedexport.training.preflight import refuse_model_without_memory, refuse_output
from tiedexport.training.samples import SamplesInMemory
from tiedexport.training.stream import StreamedSamples
from tiedexport.training.trainer import initial_module

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from tiedexport.training.group import Group
    from tiedexport.training.samples import Samples


@dataclass(frozen=True)
class Job:
    """A checked recipe with its data.

    Attributes:
        input_shape: of one sample as the model takes it; the data's own shape may differ.
        group: where to train and with whom.
        output: the checkpoint to write.
        save_every: after how many steps of an epoch its state is saved; None: when it is over.
        resume_command: what to type to go on with this training once it was stopped.
    """

    recipe: Recipe
    data: datasets.DataSet
    input_shape: tuple[int, ...]
    group: Group
    output: Path
    save_every: int | None
    resume_command: str

    @property
    def device(self) -> torch.device:
        """Where this process trains."""
        return self.group.device

    @property
    def resume_file(self) -> Path:
        """Where the state of the unfinished training is kept."""
        return Path(f"{self.output}.resume")

    @property
    def previous(self) -> Path:
        """Where a checkpoint that was there before is kept when a training starts anew."""
        # The link of a linked checkpoint stays: its target is what is replaced.
        kept = self.output.resolve() if self.output.is_symlink() else self.output
        return kept.with_name(f"{kept.name}.previous")

    @property
    def folder(self) -> Path:
        """Where pictures and TensorBoard events go."""
        return self.output.with_suffix(".training")

    @property
    def pictures(self) -> tuple[Path, Path]:
        """The PNGs in that folder."""
        return self.folder / CURVES, self.folder / RECONSTRUCTIONS

    def training_samples(self) -> Samples:
        """What an epoch of this process takes."""
        settings, part = self.recipe.training, self.group.part
        if self.data.stream is not None:
            return StreamedSamples(self.data.stream, settings, self.input_shape, part)
        return SamplesInMemory(self.samples("train").to(self.group.device), settings, part)

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
    group: Group,
    save_every: int | None,
) -> Job:
    """Check the arguments of `tiedexport.train.train`, which describes them, and load the data.

    `group` has the device that `device` stands for.

    Raises:
        RecipeError, DataError, UsageError, MissingRuntimeError: as there.
    """
    path = Path(output)
    checked = load_recipe(recipe).with_changes(data=data, epochs=epochs, seed=seed)
    if data is None:
        checked = _with_data_beside(checked)
    if save_every is not None and save_every < 1:
        raise UsageError("save_every is too small", got=save_every, expected="at least 1")
    with torch.device("meta"):
        module = initial_module(checked)
    refuse_model_without_memory(module, group.device, f"{recipe}: model")
    command = ["tiedexport", "train", str(recipe), "-o", str(output), "--resume"]
    changes = {
        "data": data,
        "epochs": epochs,
        "seed": seed,
        "device": None if device == "auto" else device,
        "save-every": save_every,
        "nproc": group.part.processes if group.part.processes > 1 else None,
    }
    for name, value in changes.items():
        if value is not None:
            command += [f"--{name}", str(value)]
    if group.shard:
        command.append("--shard")
    refuse_output(path, path.with_suffix(".training") if path.name else path)
    loaded = datasets.load(**msgspec.structs.asdict(checked.data))
    _refuse_misfit(checked, loaded.record.sample_shape, module.input_shape)
    _refuse_shift(checked, loaded.record.sample_shape)
    return Job(checked, loaded, module.input_shape, group, path, save_every, shlex.join(command))


def refuse_to_lose(job: Job) -> None:
    """Check that starting anew would not overwrite the state of an unfinished training.

    Raises:
        UsageError: it would.
    """
    if job.resume_file.exists():
        raise UsageError(
            "an unfinished training is there, and starting anew would overwrite it",
            where=job.resume_file,
            hint=f"{job.resume_command}, or give it up: rm {shlex.quote(str(job.resume_file))}",
        )


def _with_data_beside(recipe: Recipe) -> Recipe:
    """A relative path that leads nowhere from the current folder may do so from the recipe's."""
    source = recipe.data.source
    beside = Path(recipe.path).parent.resolve() / source
    here, there = (glob.glob(str(path)) or Path(path).exists() for path in (source, beside))
    if source in datasets.NAMES or here or not there:
        return recipe
    section = msgspec.structs.replace(recipe.data, source=str(beside))
    return msgspec.structs.replace(recipe, data=section)


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
    model = recipe.to_tables()["model"]
    starts = {"widths": padded[:1], "image": padded[1:], "channels": padded[:1]}
    changes = [
        f"{name} = {[*start, *model[name][len(start) :]]}"
        for name, start in starts.items()
        if name in model and list(start) != model[name][: len(start)]
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
