"""The verb `train`: a recipe and data → a checkpoint, its figures and its pictures."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal

import torch

from tiedexport.checkpoint import load_checkpoint, load_safely, save_checkpoint
from tiedexport.progress import Progress
from tiedexport.results import TrainResult
from tiedexport.spec import TrainingRecord
from tiedexport.training.baselines import parameter_counts, pca_rmse
from tiedexport.training.epochs import checkpoint_of, train_epochs
from tiedexport.training.group import Group, device_named, joined, naming_process
from tiedexport.training.job import Job, job_from, refuse_to_lose
from tiedexport.training.pictures import draw
from tiedexport.training.resume import History, load_resume, remove_resume
from tiedexport.training.samples import Part
from tiedexport.training.trainer import Trainer, rmse
from tiedexport.training.worker import launched, restarted

if TYPE_CHECKING:
    from pathlib import Path


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
    shard: bool = False,
    save_every: int | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a recipe's model; the checkpoint holds the weights of the best validation RMSE.

    Until the training is finished `OUTPUT.resume` holds its state after each whole epoch. A
    checkpoint that is there when a training starts anew is kept as `OUTPUT.previous`.

    In processes that torchrun started, each calls this with the same arguments: they train one
    model on one batch, of which each takes a part. All have to see the folder of `output`. One that
    was started in the place of a dead one goes on from `OUTPUT.resume` by itself.

    Args:
        recipe: a TOML file.
        output: the checkpoint to write; pictures go beside it, into `STEM.training/`.
        data: a name or path in place of the recipe's data; its sizes are the loader's defaults.
        epochs: in place of the recipe's.
        device: "auto" takes the GPU where there is one.
        resume: go on with an unfinished training; on a CPU the final weights are bit-identical
            to those of a training that was never stopped.
        seed: in place of the recipe's training seed; the data stays the same.
        shard: let each process hold a part of the weights, gradients and moments only (FSDP2).
        save_every: save the state also after every so many steps of an epoch.
        progress: where to show progress; standard error by default. Of many processes the first
            one shows it.

    Raises:
        RecipeError: the recipe is invalid, does not fit the data, or makes the training diverge.
        DataError: the data is missing or invalid.
        UsageError: the arguments contradict each other or the unfinished training, or the output
            would overwrite something else than a checkpoint or cannot be written.
        MissingRuntimeError: `device` is "cuda" and there is none.
        RuntimeFailedError: a step failed in one of many processes, or they cannot be connected.
    """
    started_s = time.monotonic()
    with joined(device, shard=shard) as group:
        progress = progress if progress and group.leads else Progress(quiet=not group.leads)
        with naming_process(group):
            again = group.any(restarted())  # the agent of a host counts only what it saw itself
        resume = resume or again
        if again:
            progress.say("a process died: all have been started again")
        job = job_from(recipe, output, data, epochs, device, seed, group, save_every)
        if not resume:
            refuse_to_lose(job)
        with naming_process(group):
            group.wait()  # until all have looked at the files that the first one will replace
            record = _finished(job) if resume else None
            if record:
                progress.say(f"{job.output}: this training is finished already")
            else:
                record = _trained(job, resume, progress)
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
    shard: bool = False,
    save_every: int | None = None,
    processes: int = 1,
) -> str:
    """What `train` would do with these arguments, in so many processes, as text; writes nothing.

    Raises:
        RecipeError, DataError, UsageError, MissingRuntimeError: as `train`.
    """
    group = Group(Part(0, processes), device_named(device), shard)
    job = job_from(recipe, output, data, epochs, device, seed, group, save_every)
    if not resume:
        refuse_to_lose(job)
    settings, record = job.recipe.training, job.data.record
    tables = job.recipe.to_tables()
    steps = math.ceil(record.train / settings.batch_size)
    parameters, untied_parameters = parameter_counts(job.recipe)
    kept = f"; the checkpoint that is there becomes {job.previous}" if job.output.exists() else ""
    start = (
        f"from the state in {job.resume_file}"
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
        "processes": _sharing(group, min(settings.batch_size, record.train)),
        "starts": start,
        "writes": ", ".join(map(str, (job.output, *job.pictures, job.folder / "events.*")))
        + f"; while it trains {job.resume_file}",
    }
    return "\n".join(f"{name + ':':<12}{line}" for name, line in lines.items())


def _sharing(group: Group, batch_size: int) -> str:
    """Who does what of a batch."""
    processes = group.part.processes
    most = math.ceil(batch_size / processes)
    held = "a part of the model in each (FSDP2)" if group.shard else "the whole model in each (DDP)"
    if processes == 1 and not group.shard:
        return "1"
    return f"{processes} over {group.backend}, at most {most:,} rows of a batch, {held}"


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


def _trained(job: Job, resume: bool, progress: Progress) -> TrainingRecord:
    samples = job.training_samples()
    trainer = Trainer(job.recipe, samples, job.group, job.data.record.sample_shape)
    history = _starting_point(job, trainer, resume, progress)
    try:
        return _run(job, trainer, history, progress)
    except KeyboardInterrupt:
        if not launched():  # or it may be for another's death that this one is to end
            progress.say(_farewell(job))
        raise


def _starting_point(job: Job, trainer: Trainer, resume: bool, progress: Progress) -> History:
    if job.resume_file.exists():
        history = load_resume(job.resume_file, trainer, job.data.record)
        within = f" and {trainer.steps_done} steps" if trainer.steps_done else ""
        progress.say(
            f"going on after epoch {history.epochs}{within} of {job.recipe.training.epochs}"
        )
        return history
    if resume:
        progress.say(f"nothing to go on from ({job.resume_file} is not there): starting anew")
    if job.group.leads:
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
    return "stopped before anything was saved: there is nothing to go on from"


def _run(job: Job, trainer: Trainer, history: History, progress: Progress) -> TrainingRecord:
    """From the starting point to the end; the resume file goes when everything else is there."""
    train_epochs(job, trainer, history, progress)
    if job.group.leads:
        _finish(job, trainer, history)
    job.group.wait()
    record = load_checkpoint(job.output).training
    assert record is not None  # as the first process has just written it
    return record


def _finish(job: Job, trainer: Trainer, history: History) -> None:
    record = _record(job, history)
    checkpoint = checkpoint_of(job, history, record)
    save_checkpoint(job.output, checkpoint)
    draw(
        job.folder,
        checkpoint,
        record,
        lambda epoch: trainer.learning_rate(epoch * trainer.steps_per_epoch),
    )
    remove_resume(job.resume_file)


def _record(job: Job, history: History) -> TrainingRecord:
    """The figures of a finished training; the one place that looks at the test set."""
    module = checkpoint_of(job, history, None).module()
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
        test_rmse=rmse(module.to(job.device), test, Group(Part(), job.device)),
        pca_test_rmse=pca_rmse(job.data.train, job.data.test, code_size),
        parameters=parameters,
        untied_parameters=untied_parameters,
        train_loss_history=tuple(history.train_loss),
        validation_rmse_history=tuple(history.validation_rmse),
        seconds=history.seconds,
        processes=job.group.part.processes,
        sharded=job.group.shard,
    )
