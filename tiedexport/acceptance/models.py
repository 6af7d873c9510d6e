"""Models to accept a GPU with, untrained: how fast and how exact they are does not depend on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from tiedexport.environment import installed_version
from tiedexport.errors import MissingRuntimeError
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tiedexport.bundle import Bundle

SMALL_WIDTHS = (784, 784, 392, 196)
"""The reference model's."""

LARGE_WIDTHS = (8192, 8192)
"""One layer of 2^26 weights, 128 MiB in fp16: more than all else that a process has on a device."""

_SAMPLES = 32
_BIAS_DEVIATION = 0.1
_WEIGHT, _DECODER_WEIGHT = ".weight", ".decoder_weight"


def large_bytes() -> int:
    """|W| of the large model in fp16."""
    return Precision.FP16.itemsize * math.prod(LARGE_WIDTHS)


def write(path: Path, widths: Sequence[int]) -> Path:
    """An untrained checkpoint of an autoencoder, and random inputs.

    Raises:
        MissingRuntimeError: torch is not installed.
    """
    require_torch()
    import torch

    from tiedexport.checkpoint import Checkpoint, save_checkpoint
    from tiedexport.families import config_from, family_named

    family = family_named("autoencoder")
    config = config_from(family, {"widths": list(widths)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = family.module(config).state_dict()
        for name, tensor in state.items():
            if name.endswith("bias"):
                tensor.normal_(0.0, _BIAS_DEVIATION)
        samples = torch.rand(_SAMPLES, widths[0])
    save_checkpoint(path, Checkpoint("autoencoder", config, state, (widths[0],), samples))
    return path


def write_untied(path: Path, bundle: Bundle) -> Path:
    """The untied twin of a bundle's model: the same numbers, each tied weight stored twice.

    Raises:
        MissingRuntimeError: torch is not installed, the bundle lacks fp32, or the family of its
            model has no untied twin.
    """
    require_torch()
    import torch

    from tiedexport.checkpoint import Checkpoint, save_checkpoint
    from tiedexport.families import StackConfig, family_named

    manifest = bundle.manifest
    family = family_named(manifest.family)
    config = msgspec.convert(manifest.config, type=family.config_type)
    if not isinstance(config, StackConfig) or Precision.FP32 not in manifest.precisions:
        raise MissingRuntimeError(
            "no untied twin can be made of this model",
            where=bundle.path,
            got=f"family {manifest.family} in {', '.join(manifest.precisions)}",
            expected="a stack of tied layers, in fp32 too",
        )
    weights = bundle.weights(Precision.FP32)
    state = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    for name in weights:
        if config.tied and name.endswith(_WEIGHT):
            state[name.removesuffix(_WEIGHT) + _DECODER_WEIGHT] = state[name].clone()
    samples = torch.from_numpy(bundle.golden[manifest.stages[0].inputs[0].name])
    twin = msgspec.structs.replace(config, tied=False)
    save_checkpoint(path, Checkpoint(manifest.family, twin, state, manifest.sample_shape, samples))
    return path


def require_torch() -> None:
    """Refuse to go on without torch.

    Raises:
        MissingRuntimeError: it is not installed.
    """
    if installed_version("torch") is None:
        raise MissingRuntimeError(
            "torch is not installed, so no model can be made here",
            hint="pip install 'tiedexport[train]', or give a bundle: "
            "tiedexport bench --acceptance NAME.tied",
        )
