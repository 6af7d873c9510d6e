"""What a finished training leaves to look at: two PNGs and TensorBoard events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tiedexport.report.images import as_images, mosaic
from tiedexport.report.pictures import reconstruction_grid, training_curves

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tiedexport.checkpoint import Checkpoint
    from tiedexport.spec import TrainingRecord

SHOWN = 10
"""How many samples the pictures show."""

CURVES, RECONSTRUCTIONS = "curves.png", "reconstructions.png"


def draw(
    folder: Path,
    checkpoint: Checkpoint,
    record: TrainingRecord,
    learning_rate: Callable[[int], float],
) -> tuple[Path, Path]:
    """Write the pictures and events of a training into a folder, over those of an earlier one.

    Args:
        folder: made if it is not there.
        checkpoint: the best weights, and the samples to show.
        record: the histories to show.
        learning_rate: epoch, from 0 → the learning rate at its start.

    Returns:
        The two PNGs: training curves, and originals above their reconstructions.

    Raises:
        MissingRuntimeError: what draws is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples = checkpoint.samples[:SHOWN]
    with torch.no_grad():
        reconstructed = checkpoint.module()(samples)
    rows = {
        "originals": as_images(samples.numpy(), checkpoint.sample_shape),
        "reconstructions": as_images(reconstructed.numpy(), checkpoint.sample_shape),
    }
    curves, grid = folder / CURVES, folder / RECONSTRUCTIONS
    training_curves(curves, record.train_loss_history, record.validation_rmse_history)
    reconstruction_grid(grid, rows)
    _write_events(folder, record, learning_rate, np.concatenate([*map(mosaic, rows.values())]))
    return curves, grid


def _write_events(
    folder: Path,
    record: TrainingRecord,
    learning_rate: Callable[[int], float],
    grid: np.ndarray,
) -> None:
    """One event file; TensorBoard would mix the curves of two into one."""
    from torch.utils.tensorboard import SummaryWriter

    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    with SummaryWriter(str(folder)) as writer:
        histories = zip(record.train_loss_history, record.validation_rmse_history, strict=True)
        for epoch, (loss, validation_rmse) in enumerate(histories):
            writer.add_scalar("loss/train", loss, epoch + 1)
            writer.add_scalar("rmse/validation", validation_rmse, epoch + 1)
            writer.add_scalar("learning_rate", learning_rate(epoch), epoch + 1)
        writer.add_scalar("rmse/test", record.test_rmse, record.best_epoch)
        writer.add_image(
            "originals and reconstructions",
            np.nan_to_num(grid, nan=1.0),
            record.best_epoch,
            dataformats="HW" if grid.ndim == 2 else "HWC",
        )
