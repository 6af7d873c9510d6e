"""What the names and shapes of a bare state dict say of a dense autoencoder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from tiedexport.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

_SIDE = re.compile(r"(?:^|[._])(enc|dec)", re.IGNORECASE)
_PARAMETRIZED = re.compile(r"\.parametrizations\.(\w+)\.original\d*$")


@dataclass
class Dense:
    """A dense layer: `weight` [out, in] as nn.Linear has it.

    A decoder's weight is as the encoder's where `adjoint`: the layer multiplies by its transpose.
    """

    name: str
    weight: Tensor
    bias: Tensor | None = None
    adjoint: bool = False

    @property
    def side(self) -> str:
        """What the name says last: "enc", "dec" or nothing."""
        return _side(self.name)


@dataclass(frozen=True)
class Autoencoder:
    """Encoder layers, outermost first, and the decoder layer that mirrors each.

    Attributes:
        decoder: in the order of the encoder, each `adjoint`.
        tied: whether every decoder weight is the encoder's.
    """

    encoder: tuple[Dense, ...]
    decoder: tuple[Dense, ...]
    tied: bool


def autoencoder_from(tensors: Mapping[str, Tensor], *, ordered: bool) -> Autoencoder:
    """Put the layers in order and in pairs.

    Args:
        tensors: by name; several names of one tensor count once.
        ordered: whether their order is that in which the module registered them.

    Raises:
        CheckpointError: names and shapes leave more than one reading, or none.
    """
    layers, vectors, others = _dense_layers(tensors)
    try:
        if others or not layers:
            raise _UnclearError(f"not of dense layers: {', '.join(others) or 'no matrix'}")
        encoder, decoder = _sides(layers, ordered)
        for one, next_one in pairwise(encoder):
            if one.weight.shape[0] != next_one.weight.shape[1]:
                raise _UnclearError(f"{next_one.name} does not follow {one.name}")
        decoder = [_as_adjoint(*pair) for pair in zip(encoder, decoder, strict=True)]
        ties = [_equal(*pair) for pair in zip(encoder, decoder, strict=True)]
        if any(ties) != all(ties):
            raise _UnclearError("some decoder weights are the encoder's, and some are not")
        _give_biases(encoder, decoder, vectors)
    except _UnclearError as error:
        raise CheckpointError(
            f"the state dict is not clear: {error}",
            got="; ".join(_listing(layers, vectors)) or "no dense layer",
            expected="dense layers to the code and back, as encoder.0.weight [392, 784], …, "
            "decoder.0.weight [784, 392], or the encoder's alone where the model is tied",
            hint="rename its tensors so, or build the module that they belong to: "
            "tiedexport build package.module:factory --input-shape N",
        ) from error
    return Autoencoder(tuple(encoder), tuple(decoder), all(ties))


class _UnclearError(Exception):
    """Why there is no reading."""


def _side(name: str) -> str:
    told = _SIDE.findall(name)
    return told[-1].lower() if told else ""


def _dense_layers(
    tensors: Mapping[str, Tensor],
) -> tuple[list[Dense], dict[str, Tensor], list[str]]:
    """Layers with the biases that stand beside them, other vectors, and names of anything else."""
    places: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        places.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), name)
    kept = {_PARAMETRIZED.sub(r".\1", name): tensors[name] for name in places.values()}
    vectors = {name: tensor for name, tensor in kept.items() if tensor.ndim == 1}
    layers = []
    for name, tensor in kept.items():
        if tensor.ndim == 2:
            stem, _, leaf = name.rpartition(".")
            beside = f"{stem}.bias" if stem else "bias"
            fits = leaf == "weight" and len(vectors.get(beside, ())) == len(tensor)
            layers.append(Dense(stem if leaf == "weight" and stem else name, tensor))
            layers[-1].bias = vectors.pop(beside) if fits else None
            layers[-1].adjoint = leaf == "decoder_weight"
    others = [
        f"{name} {list(tensor.shape)}" for name, tensor in kept.items() if tensor.ndim not in (1, 2)
    ]
    return layers, vectors, others


def _sides(layers: Sequence[Dense], ordered: bool) -> tuple[list[Dense], list[Dense]]:
    """The encoder's layers, outermost first, and the decoder's in the same order."""
    told = {
        side: _in_order([layer for layer in layers if layer.side == side], ordered)
        for side in ("enc", "dec", "")
    }
    encoder, decoder, unnamed = told["enc"], told["dec"], told[""]
    if unnamed and encoder and decoder:
        names = ", ".join(layer.name for layer in unnamed)
        raise _UnclearError(f"no name says whether {names} encodes or decodes")
    half = len(unnamed) // 2
    if encoder or decoder:
        encoder, decoder = encoder or unnamed, decoder or unnamed
    elif len(unnamed) == 2 * half and _mirrors(unnamed[:half], unnamed[half:][::-1]):
        encoder, decoder = unnamed[:half], unnamed[half:]
    else:
        encoder = unnamed
    if not encoder or not decoder:  # the weights of one side serve both
        encoder = encoder or decoder
        return encoder, [Dense(layer.name, layer.weight, adjoint=True) for layer in encoder]
    in_pairs = all(layer.adjoint for layer in decoder)  # numbered as the encoder's are
    orders = (decoder,) if in_pairs else (decoder[::-1], decoder)
    readings = [order for order in orders if _mirrors(encoder, order)]
    if not readings:
        raise _UnclearError("the decoder's layers do not mirror the encoder's")
    if len(readings) == 2 and len(encoder) > 1:
        readings = [order for order in readings if _all_tied(encoder, order)]
        if len(readings) != 1:
            raise _UnclearError("the decoder's layers fit in either order")
    return encoder, readings[0]


def _in_order(layers: list[Dense], ordered: bool) -> list[Dense]:
    """By the numbers in their names where these are all that differs, else as they came."""
    if len({re.sub(r"\d+", "#", layer.name) for layer in layers}) < 2:
        return sorted(layers, key=lambda layer: _numbers(layer.name))
    if not ordered:
        names = ", ".join(layer.name for layer in layers)
        raise _UnclearError(f"the names {names} have no order, and this file keeps none")
    return layers


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def _mirrors(encoder: Sequence[Dense], decoder: Sequence[Dense]) -> bool:
    return len(encoder) == len(decoder) and all(
        other.weight.shape in (one.weight.shape[::-1], one.weight.shape)
        for one, other in zip(encoder, decoder, strict=True)
    )


def _as_adjoint(one: Dense, other: Dense) -> Dense:
    """The decoder's layer with its weight laid out as the encoder's."""
    rows, columns = one.weight.shape
    if other.adjoint or (rows != columns and other.weight.shape == one.weight.shape):
        return Dense(other.name, other.weight, other.bias, adjoint=True)
    turned = Dense(other.name, other.weight.t(), other.bias, adjoint=True)
    if rows == columns and torch.equal(other.weight, one.weight) and not _equal(one, turned):
        raise _UnclearError(
            f"{other.name} equals {one.name}, and both are square: does it decode as it is, or "
            "transposed?"
        )
    return turned


def _equal(one: Dense, other: Dense) -> bool:
    return torch.equal(one.weight, other.weight)


def _all_tied(encoder: Sequence[Dense], decoder: Sequence[Dense]) -> bool:
    pairs = zip(encoder, decoder, strict=True)
    return all(_equal(one, _as_adjoint(one, other)) for one, other in pairs)


def _give_biases(
    encoder: Sequence[Dense], decoder: Sequence[Dense], vectors: Mapping[str, Tensor]
) -> None:
    """Find the one layer that lacks each vector: by size, by side, and if need be by number."""
    free = {
        **{
            ("enc", i): layer.weight.shape[0]
            for i, layer in enumerate(encoder)
            if layer.bias is None
        },
        **{
            ("dec", i): encoder[i].weight.shape[1]
            for i, layer in enumerate(decoder)
            if layer.bias is None
        },
    }
    waiting = dict(vectors)
    while waiting:
        choices = {name: _choices(name, vector, free, encoder) for name, vector in waiting.items()}
        name = min(choices, key=lambda name: len(choices[name]))
        if len(choices[name]) != 1:
            raise _UnclearError(
                f"{name} [{len(waiting[name])}] may be the bias of "
                f"{len(choices[name]) or 'no'} layers"
            )
        side, i = choices[name][0]
        (encoder if side == "enc" else decoder)[i].bias = waiting.pop(name)
        del free[side, i]


def _choices(
    name: str, vector: Tensor, free: Mapping[tuple[str, int], int], encoder: Sequence[Dense]
) -> list[tuple[str, int]]:
    fitting = [
        slot for slot, size in free.items() if size == len(vector) and _side(name) in ("", slot[0])
    ]
    numbered = [slot for slot in fitting if _numbers(encoder[slot[1]].name) == _numbers(name)]
    return numbered if len(fitting) > 1 and numbered else fitting


def _listing(layers: Iterable[Dense], vectors: Mapping[str, Tensor]) -> Iterable[str]:
    for layer in layers:
        rows, columns = layer.weight.shape
        yield f"{layer.name} {columns} → {rows}{'' if layer.bias is None else ' with bias'}"
    for name, vector in vectors.items():
        yield f"{name} [{len(vector)}]"
