"""Family `autoencoder`: tied dense layers of any widths."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor
from torch.nn import functional

from tiedexport.errors import RecipeError
from tiedexport.families import StackConfig, TiedLayer, TiedStack


class Config(StackConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stack of dense layers.

    Attributes:
        widths: from the input to the code, e.g. [784, 784, 392, 196].
    """

    widths: tuple[int, ...]


class TiedLinear(TiedLayer):
    """z = W x + b and x̂ = Wᵀ z + c with one W of shape [width_out, width_in]."""

    def encode(self, x: Tensor) -> Tensor:
        """[n, width_in] → [n, width_out]."""
        return functional.linear(x, self.weight, self.encoder_bias)

    def decode(self, z: Tensor) -> Tensor:
        """[n, width_out] → [n, width_in]."""
        return functional.linear(z, self.weight_of_decoder.t(), self.decoder_bias)


class _Autoencoder:
    name = "autoencoder"
    config_type = Config

    def module(self, config: Config) -> TiedStack:
        if len(config.widths) < 2 or min(config.widths) < 1:
            raise RecipeError(
                "not a stack of layers",
                where="model.widths",
                got=list(config.widths),
                expected="at least two positive widths, from the input to the code",
            )
        layers = [
            TiedLinear((width_out, width_in), tied=config.tied, init=config.init)
            for width_in, width_out in pairwise(config.widths)
        ]
        return TiedStack(layers, config, (config.widths[0],))


FAMILY = _Autoencoder()
