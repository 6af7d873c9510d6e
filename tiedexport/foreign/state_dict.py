"""Bare state dicts → checkpoints of the family `autoencoder`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tiedexport.checkpoint import Checkpoint, load_safely, refuse_unusable
from tiedexport.errors import CheckpointError, UsageError
from tiedexport.families import StackConfig, config_from, family_named
from tiedexport.foreign.brought import Asked, Brought
from tiedexport.foreign.dense_names import Autoencoder, Dense, autoencoder_from
from tiedexport.foreign.samples import samples_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FAMILY = "autoencoder"
_NESTED = ("state_dict", "model_state_dict", "model", "module", "network", "weights")
_TOLD_BY_SHAPES = frozenset({"widths", "tied"})
_WITHOUT_EFFECT = frozenset({"init"})


def from_file(path: Path, asked: Asked) -> Brought:
    """Read widths and ties off names, shapes and values.

    Raises:
        UsageError: no family is given, or one that a state dict cannot be read as, or a setting
            that is none of the family's.
        CheckpointError: unreadable, not of finite float32 numbers, or of more than one reading.
    """
    if asked.family != _FAMILY:
        raise UsageError(
            "a state dict does not tell which model it is of",
            where=path,
            got=asked.family or "no --family",
            expected=f"--family {_FAMILY}",
            hint="for any other model build the module itself: "
            "tiedexport build package.module:factory --input-shape N",
        )
    config = _config(asked.settings)
    tensors = _tensors(path)
    for name, tensor in tensors.items():
        refuse_unusable(tensor, f"{path}: {name}")
    try:
        found = autoencoder_from(tensors, ordered=path.suffix != ".safetensors")
    except CheckpointError as error:
        raise CheckpointError(
            error.what, where=path, got=error.got, expected=error.expected, hint=error.hint
        ) from error
    widths = [found.encoder[0].weight.shape[1], *(layer.weight.shape[0] for layer in found.encoder)]
    config = msgspec.structs.replace(config, widths=tuple(widths), tied=found.tied)
    samples, note = samples_for((widths[0],), asked.samples)
    checkpoint = Checkpoint(_FAMILY, config, _state(found), (widths[0],), samples)
    return Brought(checkpoint, (*_notes(found, widths, asked.settings, config), note))


def _config(settings: Mapping[str, str]) -> StackConfig:
    family = family_named(_FAMILY)
    fields = {field.name: field for field in msgspec.structs.fields(family.config_type)}
    known = fields.keys() - _TOLD_BY_SHAPES - _WITHOUT_EFFECT
    if unknown := settings.keys() - known:
        raise UsageError(
            "no setting of this family",
            where="--set",
            got=", ".join(sorted(unknown)),
            expected=", ".join(sorted(known)),
            hint="widths and ties are read off the weights" if unknown & _TOLD_BY_SHAPES else None,
        )
    try:
        config = config_from(family, {"widths": (1, 1), **settings})
    except msgspec.ValidationError as error:
        choices = {
            name: ", ".join(getattr(msgspec.inspect.type_info(fields[name].type), "values", ()))
            for name in settings
        }
        raise UsageError(
            "a value that the setting does not have",
            where="--set",
            got=", ".join(f"{name}={value}" for name, value in settings.items()),
            expected="; ".join(f"{name}: {values}" for name, values in choices.items()),
        ) from error
    assert isinstance(config, StackConfig)  # the autoencoder's is one
    return config


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except FileNotFoundError as error:
            raise CheckpointError("no such file", where=path) from error
        except (SafetensorError, OSError) as error:
            raise CheckpointError("unreadable weights", where=path, got=error) from error
        return tensors
    content: dict[str, Any] = load_safely(path)
    nested = [content[key] for key in _NESTED if isinstance(content.get(key), dict)]
    if nested and not any(isinstance(value, Tensor) for value in content.values()):
        content = nested[0]
    strangers = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers or not content:
        raise CheckpointError(
            "not a state dict",
            where=path,
            got=", ".join(strangers[:6]) or "an empty dict",
            expected="tensors by name",
            hint="torch.save(module.state_dict(), path)",
        )
    return content


def _state(found: Autoencoder) -> dict[str, Tensor]:
    state = {}
    for i, (one, other) in enumerate(zip(found.encoder, found.decoder, strict=True)):
        rows, columns = one.weight.shape
        state[f"layers.{i}.weight"] = one.weight
        if not found.tied:
            state[f"layers.{i}.decoder_weight"] = other.weight
        state[f"layers.{i}.encoder_bias"] = _or_zeros(one, rows)
        state[f"layers.{i}.decoder_bias"] = _or_zeros(other, columns)
    return state


def _or_zeros(layer: Dense, width: int) -> Tensor:
    return torch.zeros(width) if layer.bias is None else layer.bias


def _notes(
    found: Autoencoder, widths: list[int], settings: Mapping[str, str], config: StackConfig
) -> list[str]:
    layers = list(zip(found.encoder, found.decoder, strict=True))
    pairs = ", ".join(f"{one.name} and {other.name}" for one, other in layers)
    if all(one.name == other.name for one, other in layers):
        names = ", ".join(one.name for one, _ in layers)
        serve = "serves" if len(layers) == 1 else "serve"
        ties = f"tied: no decoder weights are here, so {names} {serve} both ways"
    elif found.tied:
        ties = f"tied: {pairs}"
    else:
        ties = f"not tied: decoder weights differ ({pairs}); built as the untied twin"
    lines = [f"read as an autoencoder {' → '.join(map(str, widths))}", ties]
    if any(layer.bias is None for layer in (*found.encoder, *found.decoder)):
        lines.append("where a bias is missing, zeros stand for it")
    told = ("activation", "code", "output")
    assumed = ", ".join(f"{name}={getattr(config, name)}" for name in told if name not in settings)
    if assumed:
        lines.append(f"a state dict cannot tell, so assumed: {assumed}; change one with --set")
    return lines
