"""`model.pt` on disk: written whole or not at all, read without running anything it contains."""

from __future__ import annotations

import math
import pickle
import pickletools
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from tiedexport.atomic import replacing
from tiedexport.errors import CheckpointError, RecipeError, UsageError
from tiedexport.families import StagedModule, config_from, family_named
from tiedexport.spec import TrainingRecord

FORMAT = "tiedexport"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A trained model.

    Attributes:
        family: name of its family; `config` is that family's configuration.
        state: parameter name → tensor; a tied weight is there once.
        sample_shape: shape of one item of the data it was trained on, e.g. (28, 28).
        samples: a few inputs from its test set, [n, *input_shape] float32.
        training: how it was trained; None where that is not known.
    """

    family: str
    config: msgspec.Struct
    state: dict[str, Tensor]
    sample_shape: tuple[int, ...]
    samples: Tensor
    training: TrainingRecord | None = None

    def module(self) -> StagedModule:
        """The model in evaluation mode, holding this checkpoint's tensors without a copy.

        Raises:
            CheckpointError: names or shapes do not fit the configuration.
        """
        with torch.device("meta"):
            module = family_named(self.family).module(self.config)
        try:
            module.load_state_dict(self.state, assign=True)
        except RuntimeError as error:
            raise CheckpointError(
                "the weights do not fit the model", where=f"family {self.family}", got=str(error)
            ) from error
        return module.eval().requires_grad_(False)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    training = checkpoint.training
    save_atomically(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            "family": checkpoint.family,
            "config": msgspec.to_builtins(checkpoint.config),
            "state": checkpoint.state,
            "sample_shape": list(checkpoint.sample_shape),
            "samples": checkpoint.samples,
            "training": None if training is None else msgspec.to_builtins(training),
        },
    )


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read and check a checkpoint; nothing in it is executed.

    Raises:
        CheckpointError: missing, damaged, unsafe, of another program or of a newer version, or
            its weights or samples are not finite, not float32, or do not fit its configuration.
    """
    payload = load_safely(path)
    if payload.get("format") != FORMAT:
        raise CheckpointError(
            "not a checkpoint of tiedexport",
            where=path,
            got=f"keys {', '.join(map(str, list(payload)[:6])) or 'none'}",
            hint="train one: tiedexport train models/digits.toml -o model.pt; or, where these are "
            "the weights of an autoencoder: tiedexport build FILE --family autoencoder",
        )
    if payload.get("version") != VERSION:
        raise CheckpointError(
            "a checkpoint of another version",
            where=path,
            got=payload.get("version"),
            expected=VERSION,
            hint="pip install --upgrade tiedexport",
        )
    try:
        checkpoint = _checkpoint_from(payload)
        input_shape = checkpoint.module().input_shape
    except (KeyError, TypeError, UsageError, RecipeError, msgspec.ValidationError) as error:
        raise CheckpointError("an invalid checkpoint", where=path, got=repr(error)) from error
    for name, tensor in {**checkpoint.state, "samples": checkpoint.samples}.items():
        refuse_unusable(tensor, f"{path}: {name}")
    shape, sample_shape = checkpoint.samples.shape, checkpoint.sample_shape
    if shape[1:] != input_shape or shape[0] < 1 or math.prod(sample_shape) != math.prod(shape[1:]):
        raise CheckpointError(
            "the samples do not fit the model",
            where=path,
            got=f"{list(shape)} of {list(sample_shape)}",
            expected=f"at least one of {list(input_shape)}",
        )
    return checkpoint


def refuse_unusable(tensor: Tensor, where: str) -> None:
    """Refuse what is no dense float32 tensor of finite numbers in the CPU's memory.

    Raises:
        CheckpointError: it is none.
    """
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32:
        got = getattr(tensor, "dtype", type(tensor).__name__)
        raise CheckpointError("not a float32 tensor", where=where, got=got, expected=torch.float32)
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        got = f"{tensor.layout} on {tensor.device}"
        raise CheckpointError("not a dense tensor", where=where, got=got, expected=torch.strided)
    if tensor.numel() and not all(torch.isfinite(end) for end in torch.aminmax(tensor)):
        raise CheckpointError("numbers that are not finite", where=where)


def _checkpoint_from(payload: dict[str, Any]) -> Checkpoint:
    training = payload["training"]
    return Checkpoint(
        family=payload["family"],
        config=config_from(family_named(payload["family"]), payload["config"]),
        state=payload["state"],
        sample_shape=tuple(payload["sample_shape"]),
        samples=payload["samples"],
        training=None if training is None else msgspec.convert(training, type=TrainingRecord),
    )


def save_atomically(path: Path, payload: dict[str, Any]) -> None:
    """`torch.save` that replaces the file whole and synced, or not at all."""
    with replacing(path) as file:
        torch.save(payload, file)


def load_safely(path: str | Path) -> dict[str, Any]:
    """`torch.load` of plain tensors and values only, memory-mapped where its format allows.

    Raises:
        CheckpointError: missing, damaged, or a pickle with anything else in it.
    """
    try:
        mmap = zipfile.is_zipfile(path)  # which a bare pickle is not
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except FileNotFoundError as error:
        raise CheckpointError(
            "no such checkpoint",
            where=path,
            hint="train one: tiedexport train models/digits.toml -o model.pt",
        ) from error
    except pickle.UnpicklingError as error:
        if mmap or _is_pickle(Path(path)):
            raise _refused(path, str(error)) from error
        raise _unreadable(path) from error
    except Exception as error:  # what damaged bytes raise in an unpickler is theirs to choose
        if "TorchScript" in str(error):
            raise _refused(path, str(error)) from error
        raise _unreadable(path, repr(error)) from error
    if not isinstance(payload, dict):
        raise CheckpointError(
            "not a checkpoint", where=path, got=type(payload).__name__, expected="a dict"
        )
    return payload


def _is_pickle(path: Path) -> bool:
    """Whether a file begins with a whole pickle, which is read through and not run."""
    try:
        with path.open("rb") as file:
            for _ in pickletools.genops(file):
                pass
    except Exception:  # what is none raises whatever its bytes happen to say
        return False
    return True


def _refused(path: str | Path, words: str) -> CheckpointError:
    """What torch found, in few of its words: the others advise to run the file."""
    named = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)|(TorchScript archive)", words)
    return CheckpointError(
        "refused: the file holds more than tensors and plain values",
        where=path,
        got=named[1] or named[2] if named else "instructions to call something",
        expected="a state dict; nothing of the file was executed",
        hint="save the state dict alone: torch.save(module.state_dict(), path)",
    )


def _unreadable(path: str | Path, got: str | None = None) -> CheckpointError:
    return CheckpointError(
        "unreadable: not a checkpoint, or damaged",
        where=path,
        got=got,
        expected="what torch.save writes of a state dict",
        hint="download or copy the file again, or torch.save(module.state_dict(), path)",
    )
