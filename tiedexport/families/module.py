"""Family `module`: a chain of layers that was read off a model made elsewhere."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.nn import functional

from tiedexport.errors import RecipeError
from tiedexport.families import ACTIVATIONS, StagedModule
from tiedexport.spec import WEIGHTED_OPS, Layer, Tie

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model computes; a weight that two layers name is stored once.

    Attributes:
        layers: from the input to the reconstruction.
        encoder_layers: how many of them come before the code.
        shapes: of every parameter, by its name in the foreign model.
        input_shape: of one item.
    """

    layers: tuple[Layer, ...]
    encoder_layers: int
    shapes: dict[str, tuple[int, ...]]
    input_shape: tuple[int, ...]


class Chain(StagedModule):
    """Runs the layers one after the other, each on the Parameter that it names."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        for name, shape in config.shapes.items():
            _register(self, name, nn.Parameter(torch.zeros(shape)))
        self.input_shape = config.input_shape
        self._encoder = _split(config.layers[: config.encoder_layers])
        self._decoder = _split(config.layers[config.encoder_layers :])

    def encode_to_logits(self, x: Tensor) -> Tensor:
        """Inputs [n, *input_shape] → the output of the encoder's last weighted layer."""
        return self._run(self._encoder[0], x)

    def activate_code(self, logits: Tensor) -> Tensor:
        """What follows it."""
        return self._run(self._encoder[1], logits)

    def decode_to_logits(self, code: Tensor) -> Tensor:
        """Codes → the output of the decoder's last weighted layer."""
        return self._run(self._decoder[0], code)

    def activate_output(self, logits: Tensor) -> Tensor:
        """What follows it."""
        return self._run(self._decoder[1], logits)

    @property
    def ties(self) -> tuple[Tie, ...]:
        """Each weight that more than one layer uses."""
        uses = [*_uses("encoder", self._encoder), *_uses("decoder", self._decoder)]
        count = Counter(name for name, _ in uses)
        return tuple(
            Tie(weight, tuple(use for name, use in uses if name == weight))
            for weight in count
            if count[weight] > 1
        )

    def _run(self, layers: Sequence[Layer], x: Tensor) -> Tensor:
        for layer in layers:
            x = self._apply_layer(layer, x)
        return x

    def _apply_layer(self, layer: Layer, x: Tensor) -> Tensor:
        if layer.op == "reshape":
            return x.reshape(x.shape[0], *layer.shape)
        if layer.op not in WEIGHTED_OPS:
            return ACTIVATIONS[layer.op](x)
        weight = self.get_parameter(str(layer.weight))
        bias = None if layer.bias is None else self.get_parameter(layer.bias)
        if layer.op == "dense":
            return functional.linear(x, weight.t() if layer.transposed else weight, bias)
        strides, pads = list(layer.strides or (1, 1)), list(layer.pads or (0, 0))
        if layer.op == "conv":
            return functional.conv2d(x, weight, bias, strides, pads)
        extra = list(layer.output_padding or (0, 0))
        return functional.conv_transpose2d(x, weight, bias, strides, pads, extra)


def _register(root: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Under a dotted name, in modules that are there for the name only."""
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.register_parameter(leaf, parameter)


def _split(layers: tuple[Layer, ...]) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """Up to and with the last weighted layer, and the rest."""
    last = max((i for i, layer in enumerate(layers) if layer.op in WEIGHTED_OPS), default=-1)
    return layers[: last + 1], layers[last + 1 :]


def _uses(stage: str, parts: tuple[tuple[Layer, ...], ...]) -> Iterator[tuple[str, str]]:
    """Weight → a layer that uses it, in words."""
    weighted = [layer for part in parts for layer in part if layer.op in WEIGHTED_OPS]
    for i, layer in enumerate(weighted):
        adjoint = layer.transposed or layer.op == "conv_transpose"
        yield str(layer.weight), f"{stage} layer {i}" + (" (transposed)" if adjoint else "")


class _Module:
    name = "module"
    config_type = Config

    def module(self, config: Config) -> Chain:
        named = {n for layer in config.layers for n in (layer.weight, layer.bias) if n is not None}
        weightless = any(layer.op in WEIGHTED_OPS and not layer.weight for layer in config.layers)
        if named != set(config.shapes) or weightless:
            raise RecipeError(
                "layers and parameters disagree",
                where="family module",
                got=", ".join(sorted(named)),
                expected=", ".join(sorted(config.shapes)),
            )
        try:
            return Chain(config)
        except (KeyError, RuntimeError) as error:
            raise RecipeError(
                "no parameters of a module", where="family module", got=error
            ) from error


FAMILY = _Module()
