"""Family `conv`: convolutions whose kernel also serves the transposed convolution."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor
from torch.nn import functional

from tiedexport.errors import RecipeError
from tiedexport.families import StackConfig, TiedLayer, TiedStack


class Config(StackConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stack of convolutions over images.

    Attributes:
        image: height and width of the input.
        channels: from the input to the code, e.g. [1, 16, 32].
        kernel, stride, padding: the same in every layer and in both directions of the image.
    """

    image: tuple[int, int]
    channels: tuple[int, ...]
    kernel: int = 3
    stride: int = 2
    padding: int = 1


class TiedConv2d(TiedLayer):
    """Conv2d and ConvTranspose2d with one kernel of shape [channels_out, channels_in, k, k].

    The transposed convolution is the exact adjoint of the convolution. A stride loses the
    remainder of (size + 2 padding - kernel) / stride; `output_padding` gives it back, so that
    decoding restores the size of the input.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], config: Config, image: tuple[int, int]
    ) -> None:
        super().__init__(shape, tied=config.tied, init=config.init)
        self._stride, self._padding = config.stride, config.padding
        free = [size + 2 * config.padding - config.kernel for size in image]
        self._output_padding = [size % config.stride for size in free]
        self.image_out = (free[0] // config.stride + 1, free[1] // config.stride + 1)

    def encode(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] → [n, channels_out, *image_out]."""
        return functional.conv2d(
            x, self.weight, self.encoder_bias, stride=self._stride, padding=self._padding
        )

    def decode(self, z: Tensor) -> Tensor:
        """[n, channels_out, *image_out] → [n, channels_in, h, w]."""
        return functional.conv_transpose2d(
            z,
            self.weight_of_decoder,
            self.decoder_bias,
            stride=self._stride,
            padding=self._padding,
            output_padding=self._output_padding,
        )


class _Conv:
    name = "conv"
    config_type = Config

    def module(self, config: Config) -> TiedStack:
        _refuse_impossible(config)
        layers: list[TiedLayer] = []
        image = config.image
        for channels_in, channels_out in pairwise(config.channels):
            if min(image) + 2 * config.padding < config.kernel:
                raise RecipeError(
                    "the image is smaller than the kernel",
                    where=f"layer {len(layers)}",
                    got=f"{image[0]}×{image[1]}",
                    expected=f"at least {config.kernel - 2 * config.padding} either way",
                    hint="take fewer layers, a smaller stride or a smaller kernel",
                )
            shape = (channels_out, channels_in, config.kernel, config.kernel)
            layer = TiedConv2d(shape, config, image)
            layers.append(layer)
            image = layer.image_out
        return TiedStack(layers, config, (config.channels[0], *config.image))


def _refuse_impossible(config: Config) -> None:
    if len(config.channels) < 2 or min(*config.channels, *config.image) < 1:
        raise RecipeError(
            "not a stack of convolutions",
            where="model.channels, model.image",
            got=f"{list(config.channels)}, {list(config.image)}",
            expected="at least two positive channel counts and a positive image size",
        )
    if config.kernel < 1 or config.stride < 1 or not 0 <= config.padding < config.kernel:
        raise RecipeError(
            "not a convolution",
            where="model.kernel, model.stride, model.padding",
            got=f"{config.kernel}, {config.stride}, {config.padding}",
            expected="kernel ≥ 1, stride ≥ 1, 0 ≤ padding < kernel",
        )


FAMILY = _Conv()
