"""A training that takes a moment: a recipe on 90 images of 4×4, and ways to stop it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tiedexport.checkpoint import load_checkpoint
from tiedexport.progress import Progress, Task
from tiedexport.recipe import load_recipe
from tiedexport.train import train
from tiedexport.training.samples import Batch, SamplesInMemory
from tiedexport.training.trainer import Trainer, initial_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from tiedexport.families import StagedModule
    from tiedexport.results import TrainResult

DENSE = {"family": "autoencoder", "widths": [16, 10, 4]}
CONV = {"family": "conv", "image": [4, 4], "channels": [1, 3, 6]}


@dataclass
class SmallTraining:
    """A folder with a recipe, and images that lie on a surface of three dimensions."""

    folder: Path
    model: dict[str, Any] = field(default_factory=lambda: dict(DENSE))
    training: dict[str, Any] = field(default_factory=lambda: {"epochs": 4, "batch_size": 16})
    images: Path = Path()

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        waves = rng.normal(size=(90, 3)) @ rng.normal(size=(3, 16))
        self.images = self.folder / "images.npz"
        np.savez(self.images, images=(1 / (1 + np.exp(-waves / 2))).reshape(90, 4, 4))

    @property
    def output(self) -> Path:
        return self.folder / "model.pt"

    @property
    def resume_file(self) -> Path:
        return self.folder / "model.pt.resume"

    def recipe(self) -> Path:
        tables = {
            "model": self.model,
            "data": {"source": str(self.images)},
            "training": self.training,
        }
        lines = [
            line
            for name, fields in tables.items()
            for line in (f"[{name}]", *(f"{key} = {_toml(v)}" for key, v in fields.items()))
        ]
        path = self.folder / "recipe.toml"
        path.write_text("\n".join(lines))
        return path

    def shards(self) -> Path:
        """A folder with the images in two shards."""
        folder = self.folder / "shards"
        folder.mkdir()
        images = np.load(self.folder / "images.npz")["images"]
        for name, part in zip("ab", np.split(images, [50]), strict=True):
            np.save(folder / f"{name}.npy", part)
        return folder

    def train(self, output: Path | None = None, **arguments: Any) -> TrainResult:
        return train(
            self.recipe(),
            output or self.output,
            **({"progress": Progress(quiet=True)} | arguments),
            device="cpu",
        )

    def state(self, output: Path | None = None) -> dict[str, torch.Tensor]:
        """The weights in a checkpoint that was written."""
        return load_checkpoint(output or self.output).state

    def initial_module(self) -> StagedModule:
        return initial_module(load_recipe(self.recipe()))

    def samples(self) -> torch.Tensor:
        """All images as the model takes them."""
        samples = torch.from_numpy(np.load(self.images)["images"].astype(np.float32))
        return samples.reshape(-1, *self.initial_module().input_shape)

    def trainer(self) -> Trainer:
        recipe = load_recipe(self.recipe())
        samples = SamplesInMemory(self.samples(), recipe.training)
        return Trainer(recipe, samples)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def whole(samples: torch.Tensor) -> Batch:
    """A batch that one process has all rows of."""
    return Batch(samples, slice(0, len(samples)), len(samples))


def same_state(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states hold the same names and the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Interrupted(Progress):
    """Shows lines, and presses Ctrl-C after a number of steps."""

    def __init__(self, steps: int, stream: TextIO) -> None:
        super().__init__(stream=stream)
        self._steps = steps

    @contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator[Task]:
        def interrupt(now_done: int, _note: str) -> None:
            if now_done >= self._steps:
                raise KeyboardInterrupt

        yield Task(total, interrupt, 0.0, done)
