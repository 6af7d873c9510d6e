"""What an unfinished training leaves on disk, so that it goes on as if it had never stopped."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from tiedexport.checkpoint import load_safely, save_atomically
from tiedexport.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from tiedexport.recipe import Recipe
    from tiedexport.spec import DataRecord
    from tiedexport.training.trainer import Trainer

FORMAT = "tiedexport resume 1"


@dataclass
class History:
    """The epochs so far, and the weights of the best of them.

    Attributes:
        train_loss, validation_rmse: one entry an epoch.
        best_weights: parameter name → a copy of its value after `best_epoch`.
        seconds: time spent on these epochs, over all runs.
    """

    train_loss: list[float] = field(default_factory=list)
    validation_rmse: list[float] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.validation_rmse)

    @property
    def best_epoch(self) -> int:
        """The first epoch, counted from 1, with the lowest validation RMSE."""
        return 1 + self.validation_rmse.index(min(self.validation_rmse))


def save_resume(path: Path, trainer: Trainer, data: DataRecord, history: History) -> None:
    """Write everything that the next epoch depends on, atomically."""
    save_atomically(
        path,
        {
            "format": FORMAT,
            "identity": _identity(trainer.recipe, data),
            "trainer": trainer.state(),
            "history": vars(history),
        },
    )


def load_resume(path: Path, trainer: Trainer, data: DataRecord) -> History:
    """Put the trainer where the file left off.

    Raises:
        UsageError: the file belongs to another recipe, other data, or another seed.
        CheckpointError: the file is unsafe, damaged, or no resume file.
    """
    anew = f"start anew: rm {path}, and train without --resume"
    try:
        # A copy, because the loaded tensors are views of a file that the next epoch replaces.
        payload = copy.deepcopy(load_safely(path))
    except CheckpointError as error:
        raise CheckpointError(
            "the resume file cannot be read", where=path, got=error.got or error.what, hint=anew
        ) from error
    if payload.get("format") != FORMAT:
        raise CheckpointError(
            "not a resume file of this version",
            where=path,
            got=repr(payload.get("format")),
            expected=repr(FORMAT),
            hint=anew,
        )
    try:
        _refuse_another(path, payload["identity"], _identity(trainer.recipe, data))
        trainer.restore(payload["trainer"])
        return History(**payload["history"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            "a damaged resume file",
            where=path,
            got=repr(error),
            hint=anew,
        ) from error


def _identity(recipe: Recipe, data: DataRecord) -> dict[str, Any]:
    """Everything that decides the final weights, flat: name → value."""
    tables = recipe.to_tables()
    fields = {
        f"{table}.{name}": value
        for table in ("model", "training")
        for name, value in tables[table].items()
    }
    record = msgspec.to_builtins(data)
    return fields | {f"data.{name}": record[name] for name in ("source", "options", "sha256")}


def _refuse_another(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = [name for name in wanted if saved.get(name) != wanted[name]]
    if differing:
        raise UsageError(
            "the unfinished training is another one",
            where=path,
            got=", ".join(f"{name} = {saved.get(name)}" for name in differing),
            expected=", ".join(f"{name} = {wanted[name]}" for name in differing),
            hint="go on with the recipe, data, epochs and seed that it began with, "
            f"or start anew: rm {path}, and train without --resume",
        )
