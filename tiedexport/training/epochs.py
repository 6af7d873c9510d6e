"""From one epoch to the next: what is kept, what is saved, and when it is enough."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tiedexport.checkpoint import Checkpoint, save_checkpoint
from tiedexport.training.resume import save_resume

if TYPE_CHECKING:
    from tiedexport.progress import Progress
    from tiedexport.recipe import Recipe
    from tiedexport.spec import TrainingRecord
    from tiedexport.training.job import Job
    from tiedexport.training.resume import History
    from tiedexport.training.trainer import Trainer

CHECKPOINT_SAMPLES = 32
"""How many test inputs travel with a checkpoint."""


def train_epochs(job: Job, trainer: Trainer, history: History, progress: Progress) -> None:
    """Train until the recipe's epochs are over or nothing gets better; every process calls this.

    Raises:
        RecipeError: the training diverges.
    """
    settings = job.recipe.training
    validation = job.samples("validation").to(job.device)
    steps = trainer.steps_per_epoch
    done = history.epochs * steps + trainer.steps_done
    with progress.task("training", settings.epochs * steps, done=done) as task:
        clock = _Clock(history)

        def on_step() -> None:
            task.advance()
            if job.save_every and trainer.steps_done % job.save_every == 0:
                clock.count()
                save_resume(job.resume_file, trainer, job.data.record, history)

        while not _is_over(job.recipe, history):
            loss = trainer.train_epoch(history.epochs, on_step)
            validation_rmse = trainer.rmse(validation)
            trainer.refuse_divergence(history.epochs, loss, validation_rmse)
            history.train_loss.append(loss)
            history.validation_rmse.append(validation_rmse)
            if history.best_epoch == history.epochs:
                _keep_best(job, trainer, history)
            clock.count()
            save_resume(job.resume_file, trainer, job.data.record, history)
            task.advance(
                0,
                note=f"epoch {history.epochs}, loss {loss:.4f}, validation RMSE "
                f"{validation_rmse:.4f} (best {min(history.validation_rmse):.4f})",
            )
    if history.epochs < settings.epochs:
        progress.say(
            f"stopped early: no better validation RMSE in {settings.patience} epochs "
            f"after epoch {history.best_epoch}"
        )


class _Clock:
    """Adds the time since it was last asked to a history."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._since_s = time.monotonic()

    def count(self) -> None:
        now_s = time.monotonic()
        self._history.seconds += now_s - self._since_s
        self._since_s = now_s


def _keep_best(job: Job, trainer: Trainer, history: History) -> None:
    """Before the resume file: killed in between, the epoch is done again, identically."""
    weights = trainer.weights()
    if job.group.leads:
        history.best_weights = weights
        save_checkpoint(job.output, checkpoint_of(job, history, None))


def _is_over(recipe: Recipe, history: History) -> bool:
    if not history.epochs:
        return False
    patience = recipe.training.patience
    stale = patience > 0 and history.epochs - history.best_epoch >= patience
    return stale or history.epochs >= recipe.training.epochs


def checkpoint_of(job: Job, history: History, record: TrainingRecord | None) -> Checkpoint:
    """The best weights; without a record as long as the training is not finished."""
    return Checkpoint(
        family=job.recipe.family,
        config=job.recipe.config,
        state=history.best_weights,
        sample_shape=job.data.record.sample_shape,
        # A copy: torch.save writes the whole storage of a view.
        samples=job.samples("test")[:CHECKPOINT_SAMPLES].clone(),
        training=record,
    )
