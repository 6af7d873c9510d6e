"""Live modules and `torch.export` programs → checkpoints of the family `module`."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tiedexport.checkpoint import Checkpoint, refuse_unusable
from tiedexport.errors import BadInputError, GraphError, UsageError
from tiedexport.families.module import Config
from tiedexport.foreign.brought import Asked, Brought
from tiedexport.foreign.chains import SplitChain, chain_from_program
from tiedexport.foreign.float64 import outputs_in_float64
from tiedexport.foreign.programs import input_shape_of, load_program
from tiedexport.foreign.samples import samples_for
from tiedexport.trace import BothStages, program_from_module

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_CHECKED = 2
"""Samples that are compared: as few as do not hide a batch axis."""


def from_module(module: nn.Module, name: str, asked: Asked) -> Brought:
    """Export a module, by its `encode` and `decode` where it has them, else by its `forward`.

    Args:
        module: left as it is, but for its mode while it is exported.
        name: for errors.
        asked: its `input_shape` may be left to an attribute of that name of the module.

    Raises:
        UsageError: the input shape is not known.
        CheckpointError: its parameters are not finite float32 numbers in the CPU's memory.
        BadInputError: it raised, or it is no chain of layers with a code.
    """
    shape = asked.input_shape or _own_input_shape(module, name)
    parameters = dict(module.named_parameters())
    _refuse_unusable(parameters, name)
    samples, note = samples_for(shape, asked.samples)
    with _evaluation_mode(module):
        staged = _has_stages(module, samples[:_CHECKED], name)
        subject = BothStages(module) if staged else module
        expected = outputs_in_float64(subject, samples[:_CHECKED], name)
        program = program_from_module(subject, shape)
    chain = chain_from_program(program, parameters, wrapped=staged)
    return _brought(chain, parameters, samples, expected, name, note)


def from_program(path: Path, asked: Asked) -> Brought:
    """Read a `.pt2` that `torch.export.save` wrote, with a batch of any size.

    Raises:
        CheckpointError: unreadable, or its parameters are not finite float32 numbers.
        BadInputError: it takes other inputs, a batch of one size only, or is no chain of layers
            with a code.
    """
    program = load_program(path)
    shape = input_shape_of(program, path)
    parameters: dict[str, Tensor] = dict(program.named_parameters())
    _refuse_unusable(parameters, str(path))
    samples, note = samples_for(shape, asked.samples)
    expected = outputs_in_float64(program.module(), samples[:_CHECKED], str(path))
    chain = chain_from_program(program, parameters, wrapped=False)
    return _brought(chain, parameters, samples, expected, str(path), note)


def _brought(
    chain: SplitChain,
    parameters: Mapping[str, Tensor],
    samples: Tensor,
    expected: tuple[Tensor, ...],
    where: str,
    note: str,
) -> Brought:
    """The chain as a checkpoint, once it computes what the model computes."""
    config = Config(
        layers=chain.layers,
        encoder_layers=chain.encoder_layers,
        shapes={name: tuple(tensor.shape) for name, tensor in chain.parameters.items()},
        input_shape=tuple(samples.shape[1:]),
    )
    checkpoint = Checkpoint(
        "module", config, chain.parameters, config.input_shape, samples.contiguous()
    )
    both = BothStages(checkpoint.module())
    computed = outputs_in_float64(both, samples[:_CHECKED], where)
    for value in expected:
        if not any(_close(value, mine) for mine in computed):
            raise GraphError("the layers that were read do not compute the model", where=where)
    if math.prod(computed[1].shape[1:]) != math.prod(config.input_shape):
        raise GraphError(
            "not an autoencoder",
            where=where,
            got=f"outputs of shape {list(computed[1].shape[1:])}",
            expected=f"reconstructions of the inputs, {list(config.input_shape)}",
        )
    ties = checkpoint.module().ties
    lines = [
        f"tied: {', '.join(tie.weight for tie in ties)}" if ties else "no weight is tied",
        *(f"tied again: {name} is {other}" for name, other in chain.merged.items()),
        *([f"code: {chain.code}"] if chain.code else []),
        *_left_out(chain, parameters),
        note,
    ]
    return Brought(checkpoint, tuple(lines))


def _left_out(chain: SplitChain, parameters: Mapping[str, Tensor]) -> list[str]:
    used = {tensor.data_ptr() for tensor in chain.parameters.values()}
    unused = [
        name
        for name, tensor in parameters.items()
        if tensor.numel() and tensor.data_ptr() not in used and name not in chain.merged
    ]
    return [f"left out, as nothing uses them: {', '.join(unused)}"] if unused else []


def _own_input_shape(module: nn.Module, name: str) -> tuple[int, ...]:
    shape = getattr(module, "input_shape", None)
    if not isinstance(shape, tuple | list) or not all(isinstance(n, int) for n in shape):
        raise UsageError(
            "the shape of the module's inputs is not known",
            where=name,
            hint="--input-shape 784, or 1,28,28: of one item, without the batch",
        )
    return tuple(shape)


def _refuse_unusable(parameters: Mapping[str, Tensor], where: str) -> None:
    if not parameters:
        raise BadInputError("the module has no parameters", where=where)
    for name, tensor in parameters.items():
        refuse_unusable(tensor.detach(), f"{where}: {name}")


def _has_stages(module: nn.Module, x: Tensor, name: str) -> bool:
    """Whether `encode` and `decode` make the model: as methods they do, as layers they may."""
    stages = [getattr(module, stage, None) for stage in ("encode", "decode")]
    if not all(map(callable, stages)):
        return False
    are_layers = any(isinstance(stage, nn.Module) for stage in stages)
    try:
        outputs = outputs_in_float64(module, x, name)
    except BadInputError:  # no forward, or one that takes more: it is not used
        return True
    _, reconstruction = outputs_in_float64(BothStages(module), x, name)
    agree = any(_close(reconstruction, output) for output in outputs)
    if not agree and not are_layers:  # a bundle would silently leave out what forward adds
        raise GraphError(
            "forward computes something else than decode(encode(x))",
            where=name,
            hint="let them agree, or rename encode and decode: forward is then what is built",
        )
    return agree


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    scale = float(one.abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=1e-9, atol=1e-9 * scale)


@contextlib.contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
