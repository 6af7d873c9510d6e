"""The verb `train`: a recipe and data → a checkpoint, its figures and its pictures."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal

import torch

from tiedexport.checkpoint import Checkpoint, load_checkpoint, load_safely, save_checkpoint
from tiedexport.progress import Progress
from tiedexport.results import TrainResult
from tiedexport.spec import TrainingRecord
from tiedexport.training.baselines import parameter_counts, pca_rmse
from tiedexport.training.job import Job, job_from, refuse_to_lose
from tiedexport.training.pictures import draw
from tiedexport.training.resume import History, load_resume, save_resume
from tiedexport.training.samples import SamplesInMemory
from tiedexport.training.trainer import Trainer, rmse

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.recipe import Recipe

CHECKPOINT_SAMPLES = 32
"""How many test inputs travel with a checkpoint."""

ALARMING_RATIO = 2
"""Above this multiple of PCA's test RMSE the summary advises to train differently."""


def train(
    recipe: str | Path,
    output: str | Path = "model.pt",
    *,
    data: str | Path | None = None,
    epochs: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    resume: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a recipe's model; the checkpoint holds the weights of the best validation RMSE.

    Until the training is finished `OUTPUT.resume` holds its state after each whole epoch. A
    checkpoint that is there when a training starts anew is kept as `OUTPUT.previous`.

    Args:
        recipe: a TOML file.
        output: the checkpoint to write; pictures go beside it, into `STEM.training/`.
        data: a name or path in place of the recipe's data; its sizes are the loader's defaults.
        epochs: in place of the recipe's.
        device: "auto" takes the GPU where there is one.
        resume: go on with an unfinished training; on a CPU the final weights are bit-identical
            to those of a training that was never stopped.
        seed: in place of the recipe's training seed; the data stays the same.
        progress: where to show progress; standard error by default.

    Raises:
        RecipeError: the recipe is invalid, does not fit the data, or makes the training diverge.
        DataError: the data is missing or invalid.
        UsageError: the arguments contradict each other or the unfinished training, or the output
            would overwrite something else than a checkpoint or cannot be written.
        MissingRuntimeError: `device` is "cuda" and there is none.
    """
    started_s = time.monotonic()
    progress = progress or Progress()
    job = job_from(recipe, output, data, epochs, device, seed)
    if not resume:
        refuse_to_lose(job)
    if resume and (record := _finished(job)):
        progress.say(f"{job.output}: this training is finished already")
    else:
        samples = SamplesInMemory(job.samples("train").to(job.device), job.recipe.training)
        trainer = Trainer(job.recipe, samples, job.device, job.data.record.sample_shape)
        history = _starting_point(job, trainer, resume, progress)
        try:
            record = _run(job, trainer, history, progress)
        except KeyboardInterrupt:
            progress.say(_farewell(job))
            raise
    pictures = tuple(str(picture) for picture in job.pictures if picture.exists())
    return TrainResult(str(job.output), record, pictures, time.monotonic() - started_s)


def plan(
    recipe: str | Path,
    output: str | Path = "model.pt",
    *,
    data: str | Path | None = None,
    epochs: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    resume: bool = False,
    seed: int | None = None,
) -> str:
    """What `train` would do with these arguments, as text; nothing is written.

    Raises:
        RecipeError, DataError, UsageError, MissingRuntimeError: as `train`.
    """
    job = job_from(recipe, output, data, epochs, device, seed)
    if not resume:
        refuse_to_lose(job)
    settings, record = job.recipe.training, job.data.record
    tables = job.recipe.to_tables()
    steps = math.ceil(record.train / settings.batch_size)
    parameters, untied_parameters = parameter_counts(job.recipe)
    kept = f"; the checkpoint that is there becomes {job.previous}" if job.output.exists() else ""
    start = (
        f"from the last whole epoch of {job.resume_file}"
        if job.resume_file.exists()
        else f"from the beginning{kept}"
    )
    lines = {
        "model": ", ".join(f"{name} {value}" for name, value in tables["model"].items()),
        "parameters": f"{parameters:,} (untied twin {untied_parameters:,})",
        "data": f"{record.source}, {list(record.sample_shape)} a sample: {record.train:,} to train "
        f"on, {record.validation:,} to validate, {record.test:,} to test",
        "training": ", ".join(f"{name} {value}" for name, value in tables["training"].items()),
        "steps": f"{settings.epochs} epochs of {steps:,} on {job.device.type}",
        "starts": start,
        "writes": ", ".join(map(str, (job.output, *job.pictures, job.folder / "events.*")))
        + f"; while it trains {job.resume_file}",
    }
    return "\n".join(f"{name + ':':<12}{line}" for name, line in lines.items())


def summary(result: TrainResult) -> str:
    """What a training reached, in a few lines."""
    record = result.record
    tied = record.parameters < record.untied_parameters
    twin = f"tied; the untied twin has {record.untied_parameters:,}" if tied else "untied"
    files = ", ".join((result.checkpoint, *result.pictures))
    steps = math.ceil(record.data.train / record.recipe["training"]["batch_size"])
    advice = (
        "worse than PCA: train longer, or take a smaller batch_size "
        f"(now {steps:,} steps an epoch)\n"
    )
    poor = record.test_rmse > ALARMING_RATIO * record.pca_test_rmse
    return (
        f"test RMSE {record.test_rmse:.4f} on {record.data.test:,} samples; "
        f"PCA of the same code size {record.pca_test_rmse:.4f}\n"
        f"{advice if poor else ''}"
        f"validation RMSE {record.validation_rmse:.4f} at epoch {record.best_epoch} "
        f"of {record.epochs}, seed {record.seed}, {record.seconds:.1f} s\n"
        f"{record.parameters:,} parameters, {twin}\n"
        f"{files}"
    )


def _finished(job: Job) -> TrainingRecord | None:
    """The record of the checkpoint, if it is of exactly this training and that ran to its end."""
    if job.resume_file.exists() or not job.output.exists():
        return None
    record = load_checkpoint(job.output).training
    same = record and (record.recipe, record.data) == (job.recipe.to_tables(), job.data.record)
    return record if same else None


def _starting_point(job: Job, trainer: Trainer, resume: bool, progress: Progress) -> History:
    if job.resume_file.exists():
        history = load_resume(job.resume_file, trainer, job.data.record)
        progress.say(f"going on after epoch {history.epochs} of {job.recipe.training.epochs}")
        return history
    if resume:
        progress.say(f"nothing to go on from ({job.resume_file} is not there): starting anew")
    _keep_previous(job, progress)
    return History()


def _keep_previous(job: Job, progress: Progress) -> None:
    """Move the checkpoint out of the way, but no unfinished one over one that may be finished."""
    if not job.output.exists():
        return
    unfinished = load_safely(job.output).get("training") is None
    if not (unfinished and job.previous.exists()):
        job.output.resolve().replace(job.previous)
        progress.say(f"{job.output} was there: it is {job.previous} from now on")


def _farewell(job: Job) -> str:
    if job.resume_file.exists():
        return f"stopped; to go on: {job.resume_command}"
    return "stopped before the first epoch was done: there is nothing to go on from"


def _run(job: Job, trainer: Trainer, history: History, progress: Progress) -> TrainingRecord:
    """From the starting point to the end; the resume file goes when everything else is there."""
    _train_epochs(job, trainer, history, progress)
    record = _record(job, history)
    checkpoint = _checkpoint(job, history, record)
    save_checkpoint(job.output, checkpoint)
    draw(
        job.folder,
        checkpoint,
        record,
        lambda epoch: trainer.learning_rate(epoch * trainer.steps_per_epoch),
    )
    job.resume_file.unlink()
    return record


def _train_epochs(job: Job, trainer: Trainer, history: History, progress: Progress) -> None:
    settings = job.recipe.training
    validation = job.samples("validation").to(job.device)
    steps = trainer.steps_per_epoch
    with progress.task("training", settings.epochs * steps, done=history.epochs * steps) as task:
        while not _is_over(job.recipe, history):
            started_s = time.monotonic()
            loss = trainer.train_epoch(history.epochs, task.advance)
            validation_rmse = rmse(trainer.module, validation)
            trainer.refuse_divergence(history.epochs, loss, validation_rmse)
            history.train_loss.append(loss)
            history.validation_rmse.append(validation_rmse)
            if history.best_epoch == history.epochs:
                weights = trainer.module.state_dict()
                history.best_weights = {k: w.cpu().clone() for k, w in weights.items()}
                # Before the resume file: killed in between, the epoch is done again, identically.
                save_checkpoint(job.output, _checkpoint(job, history, None))
            history.seconds += time.monotonic() - started_s
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


def _is_over(recipe: Recipe, history: History) -> bool:
    if not history.epochs:
        return False
    patience = recipe.training.patience
    stale = patience > 0 and history.epochs - history.best_epoch >= patience
    return stale or history.epochs >= recipe.training.epochs


def _checkpoint(job: Job, history: History, record: TrainingRecord | None) -> Checkpoint:
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


def _record(job: Job, history: History) -> TrainingRecord:
    """The figures of a finished training; the one place that looks at the test set."""
    module = _checkpoint(job, history, None).module()
    test = job.samples("test")
    with torch.no_grad():
        code_size = module.encode(test[:1]).numel()
    parameters, untied_parameters = parameter_counts(job.recipe)
    return TrainingRecord(
        recipe=job.recipe.to_tables(),
        data=job.data.record,
        epochs=history.epochs,
        seed=job.recipe.training.seed,
        best_epoch=history.best_epoch,
        validation_rmse=min(history.validation_rmse),
        test_rmse=rmse(module.to(job.device), test),
        pca_test_rmse=pca_rmse(job.data.train, job.data.test, code_size),
        parameters=parameters,
        untied_parameters=untied_parameters,
        train_loss_history=tuple(history.train_loss),
        validation_rmse_history=tuple(history.validation_rmse),
        seconds=history.seconds,
    )
