"""What each process of a torchrun does for the tests of training in parallel.

    torchrun … many_processes.py FOLDER

trains every recipe of a folder by itself and with the others, whole and sharded, and goes on from
every resume file that it finds there. The first process writes how far the results are apart.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from tiedexport import data
from tiedexport.recipe import load_recipe
from tiedexport.spec import DataRecord
from tiedexport.training.group import ALONE, Group, joined
from tiedexport.training.parallel import whole
from tiedexport.training.resume import History, load_resume, save_resume
from tiedexport.training.samples import SamplesInMemory
from tiedexport.training.stream import StreamedSamples
from tiedexport.training.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 20
INTERRUPTED_AFTER = 3
RECORD = DataRecord("images.npz", {}, (4, 4), 90, 0, 0, "")


class Far(msgspec.Struct):
    """How far a training in parallel ends from one in a process alone, in float64.

    Attributes:
        weights: the largest difference of a tensor's elements over its largest element.
        loss, rmse: relative differences.
        parameters: how many tensors the optimizer has.
    """

    weights: float
    loss: float
    rmse: float
    parameters: int


def trainer_of(
    recipe: Path, group: Group, dtype: torch.dtype = torch.float32
) -> tuple[Trainer, Tensor]:
    """A trainer in this process, and samples that it trains on."""
    loaded = load_recipe(recipe)
    if Path(loaded.data.source).is_dir():
        found = data.load(loaded.data.source)
        assert found.stream is not None
        streamed = StreamedSamples(found.stream, loaded.training, (16,), group.part)
        samples = torch.from_numpy(found.train).reshape(-1, 16)
        return Trainer(loaded, streamed, group, (4, 4), dtype=dtype), samples
    images = np.load(recipe.parent / "images.npz")["images"]
    samples = torch.from_numpy(images.astype(np.float32))
    samples = samples.reshape(len(images), *((1, 4, 4) if loaded.family == "conv" else (16,)))
    parts = SamplesInMemory(samples, loaded.training, group.part)
    return Trainer(loaded, parts, group, (4, 4), dtype=dtype), samples


def interrupted(trainer: Trainer) -> None:
    """Take some steps of the first epoch."""

    def stop() -> None:
        if trainer.steps_done == INTERRUPTED_AFTER:
            raise InterruptedError

    try:
        trainer.train_epoch(0, stop)
    except InterruptedError:
        return
    raise AssertionError("the epoch is shorter than this")


def whole_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """All that a resume file has of the weights and the optimizer."""
    return {
        name: whole(tensor, trainer.group) for name, tensor in trainer.state()["tensors"].items()
    }


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest relative difference over all tensors, relative to each one's largest element."""
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp(1e-300))
        for name in theirs
    )


def compared(recipe: Path, group: Group) -> Far:
    """Train for some steps alone and in parallel."""
    trainers = []
    for with_whom in (ALONE, group):
        trainer, samples = trainer_of(recipe, with_whom, torch.float64)
        epochs, rest = divmod(STEPS, trainer.steps_per_epoch)
        assert not rest
        losses = torch.tensor([trainer.train_epoch(i) for i in range(epochs)], dtype=torch.float64)
        trainers.append((trainer.weights(), losses, trainer.rmse(samples)))
    (theirs, their_losses, their_rmse), (ours, our_losses, our_rmse) = trainers
    return Far(
        furthest(ours, theirs),
        float(((our_losses - their_losses) / their_losses).abs().max()),
        abs(our_rmse - their_rmse) / their_rmse,
        sum(len(settings["params"]) for settings in trainer.optimizer.param_groups),
    )


def gone_on(recipe: Path, resume_file: Path, group: Group) -> dict[str, float]:
    """How far a training that goes on from a file is from the one that left it, and at the end."""
    trainer, _ = trainer_of(recipe, group)
    load_resume(resume_file, trainer, RECORD)
    left = torch.load(resume_file.with_suffix(".whole"), weights_only=True)
    apart = furthest(whole_tensors(trainer), left)
    trainer.train_epoch(0)
    undisturbed, _ = trainer_of(recipe, ALONE)
    undisturbed.train_epoch(0)
    return {"at once": apart, "in the end": furthest(trainer.weights(), undisturbed.weights())}


def leave(recipe: Path, resume_file: Path, group: Group) -> None:
    """Save the state of an epoch that is not over, and what it holds as whole tensors."""
    trainer, _ = trainer_of(recipe, group)
    interrupted(trainer)
    save_resume(resume_file, trainer, RECORD, History())
    tensors = whole_tensors(trainer)
    if group.leads:
        torch.save(tensors, resume_file.with_suffix(".whole"))
    group.wait()


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with joined("cpu") as together:
        processes = together.part.processes
        found: dict[str, object] = {}
        assert together.any(together.leads)
        assert not together.any(False)
        for shard in (False, True):
            group = dataclasses.replace(together, shard=shard)
            kind = "FSDP2" if shard else "DDP"
            for recipe in sorted(folder.glob("*.toml")):
                found[f"{recipe.stem} {kind}"] = compared(recipe, group)
            for resume_file in sorted(folder.glob("*.resume")):
                name = f"from {resume_file.stem} {kind}"
                found[name] = gone_on(folder / "tied.toml", resume_file, group)
        leave(folder / "tied.toml", folder / f"sharded by {processes}.resume", group)
        if together.leads:
            (folder / f"{processes}.json").write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
