"""What would only fail hours later, or destroy something, found before a training starts."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tiedexport.checkpoint import FORMAT, load_safely
from tiedexport.errors import CheckpointError, RecipeError, UsageError

if TYPE_CHECKING:
    from tiedexport.families import StagedModule

FLOAT32S_PER_PARAMETER = 4
"""The parameter, its gradient, and the two moments of Adam."""


def refuse_output(output: Path, folder: Path) -> None:
    """Check where a training is to write: a checkpoint is replaced, any other file is not.

    Args:
        output: the checkpoint.
        folder: where the pictures go.

    Raises:
        UsageError: the output is a folder or some other file, or cannot be written.
    """
    if output.is_dir() or not output.name:
        raise UsageError(
            "the checkpoint is to be a file",
            got=f"the folder {output}",
            hint=f"-o {output / 'model.pt'}",
        )
    if output.exists() and not _is_checkpoint(output):
        raise UsageError(
            "the output is there already and is no checkpoint of tiedexport",
            where=output,
            expected="a new name, or a checkpoint to replace",
            hint="write elsewhere: -o PATH",
        )
    if folder == output or (folder.exists() and not folder.is_dir()):
        raise UsageError(
            "the pictures are to go into a folder of this name",
            where=folder,
            got="a file",
            hint=f"-o {output.with_name('model.pt')}",
        )
    _refuse_unwritable(output)


def refuse_model_without_memory(module: StagedModule, device: torch.device, where: str) -> None:
    """Check that a model can be trained at all; the batches need memory on top of that.

    Args:
        module: the model, on the meta device.
        device: where it is to be trained.
        where: the recipe's table, for the error.

    Raises:
        RecipeError: parameters, gradients and Adam's moments exceed the free memory.
    """
    parameters = sum(parameter.numel() for parameter in module.parameters())
    needed_bytes = parameters * FLOAT32S_PER_PARAMETER * torch.float32.itemsize
    available_bytes = _available_bytes(device)
    if needed_bytes > available_bytes:
        raise RecipeError(
            "the model is too large to be trained here",
            where=where,
            got=f"{parameters:,} parameters; with gradients and optimizer {needed_bytes:,} bytes",
            expected=f"at most {available_bytes:,} bytes, which are available on {device.type}",
            hint="take a smaller model, or a machine with more memory",
        )


def _refuse_unwritable(output: Path) -> None:
    parent = next(parent for parent in output.resolve().parents if parent.exists())
    try:
        # What the mode says is not the whole truth: for root, on NFS, on a read-only file system.
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise UsageError(
            "the checkpoint cannot be written there",
            where=output,
            got=f"{parent}: {error.strerror}",
            hint="-o PATH in a folder of yours",
        ) from error


def _is_checkpoint(path: Path) -> bool:
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        return load_safely(path).get("format") == FORMAT
    except CheckpointError:
        return False


def _available_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        fields = dict(line.split(":") for line in lines)
        return int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError):  # no Linux: all there is, as nothing tells what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
