"""What an unfinished training leaves on disk, so that it goes on as if it had never stopped."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from safetensors import SafetensorError

from tiedexport.checkpoint import load_safely, save_atomically
from tiedexport.errors import CheckpointError, UsageError
from tiedexport.training.parallel import is_sharded
from tiedexport.training.shards import Rows, folder_of, remove_others, write_shards

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from tiedexport.recipe import Recipe
    from tiedexport.spec import DataRecord
    from tiedexport.training.trainer import Trainer

FORMAT = "tiedexport resume 2"


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
    """Write everything that the next step depends on, atomically: the old state or the new one.

    Every process has to call this after the same step. Rows that a process alone has go into a
    file of its own, in a folder beside `path` that all have to see.
    """
    state = trainer.state()
    shards = []
    if trainer.group.shard:
        moment = f"{history.epochs}-{trainer.steps_done}"
        shards = write_shards(folder_of(path), moment, state["tensors"], trainer.group)
    if trainer.group.leads:
        tensors = {
            name: tensor.detach()
            for name, tensor in state["tensors"].items()
            if not is_sharded(tensor, trainer.group)
        }
        save_atomically(
            path,
            {
                "format": FORMAT,
                "identity": _identity(trainer.recipe, data),
                "trainer": state | {"tensors": tensors},
                "shards": shards,
                "history": vars(history),
            },
        )
        remove_others(folder_of(path), shards)
    trainer.group.wait()


def remove_resume(path: Path) -> None:
    """Remove what `save_resume` wrote."""
    path.unlink(missing_ok=True)
    remove_others(folder_of(path), ())


def load_resume(path: Path, trainer: Trainer, data: DataRecord) -> History:
    """Put the trainer where the file left off, whichever number of processes left it.

    Raises:
        UsageError: the file belongs to another recipe, other data, or another seed.
        CheckpointError: the file is unsafe, damaged, or no resume file.
    """
    anew = f"start anew: rm {path}, and train without --resume"
    try:
        payload = load_safely(path)
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
        state = payload["trainer"]
        trainer.restore(state, Rows(state["tensors"], folder_of(path), payload["shards"]))
        # A copy, because the loaded tensors are views of a file that is replaced.
        return History(**copy.deepcopy(payload["history"]))
    except CheckpointError as error:
        raise CheckpointError(
            error.what, where=error.where, got=error.got, expected=error.expected, hint=anew
        ) from error
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
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
