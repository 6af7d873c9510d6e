"""Model families: what can be trained and exported, and which weights each of them ties.

Every file in this package is a family; it names itself in `FAMILY`. Other packages add theirs
through the entry-point group `tiedexport.families`. A recipe describes those whose configuration is
a `StackConfig`; `module` holds what was made elsewhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import abstractmethod
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import msgspec
import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.nn import functional

from tiedexport.errors import UsageError
from tiedexport.spec import Tie

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class StackConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all stacks of tied layers have in common.

    Attributes:
        activation: after every hidden layer, on both sides.
        code: whether the innermost encoder layer is followed by the activation.
        output: "sigmoid" for data in [0, 1], or "linear".
        tied: False makes the untied twin, with a decoder weight of its own in every layer.
        init: "he" (normal, variance 2 / fan-in) or "orthogonal".
    """

    activation: Literal["relu", "gelu", "tanh", "sigmoid"] = "relu"
    code: Literal["activated", "linear"] = "activated"
    output: Literal["sigmoid", "linear"] = "sigmoid"
    tied: bool = True
    init: Literal["he", "orthogonal"] = "he"


class TiedLayer(nn.Module):
    """One weight for both directions, a bias for each.

    Attributes:
        weight: used by `encode` as it is and by `decode` as its transpose (adjoint). The tie is
            functional: there is one Parameter, and nothing that a copy or a cast could separate.
        decoder_weight: None where tied; the untied twin's own weight of the same shape.
    """

    def __init__(self, shape: Sequence[int], *, tied: bool, init: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(_initial(shape, init))
        self.decoder_weight = None if tied else nn.Parameter(_initial(shape, init))
        self.encoder_bias = nn.Parameter(torch.zeros(shape[0]))
        self.decoder_bias = nn.Parameter(torch.zeros(shape[1]))

    @property
    def weight_of_decoder(self) -> Tensor:
        """The Parameter that `decode` multiplies by."""
        return self.weight if self.decoder_weight is None else self.decoder_weight

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The layer forwards."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The layer backwards: the adjoint of `encode`, with the decoder's bias."""


def _initial(shape: Sequence[int], init: str) -> Tensor:
    weight = torch.empty(*shape)
    if init == "orthogonal":
        return nn.init.orthogonal_(weight)
    return nn.init.kaiming_normal_(weight, nonlinearity="relu")


class StagedModule(nn.Module):
    """A model that can be exported: `encode` and `decode`, and the weights that both use.

    `encode` maps [n, *input_shape] to codes, `decode` maps codes back, calling the module does
    both. Each ends in a part that works element by element, which runtimes compute in float32.
    """

    input_shape: tuple[int, ...]

    @abstractmethod
    def encode_to_logits(self, x: Tensor) -> Tensor:
        """Inputs [n, *input_shape] → what goes into the code's activation."""

    @abstractmethod
    def activate_code(self, logits: Tensor) -> Tensor:
        """The end of the encoder, element by element."""

    @abstractmethod
    def decode_to_logits(self, code: Tensor) -> Tensor:
        """Codes → what goes into the output function, [n, *input_shape]."""

    @abstractmethod
    def activate_output(self, logits: Tensor) -> Tensor:
        """The end of the decoder, element by element."""

    @property
    @abstractmethod
    def ties(self) -> tuple[Tie, ...]:
        """Each weight that is used more than once."""

    def encode(self, x: Tensor) -> Tensor:
        """Inputs [n, *input_shape] → codes."""
        return self.activate_code(self.encode_to_logits(x))

    def decode(self, code: Tensor) -> Tensor:
        """Codes → reconstructions [n, *input_shape]."""
        return self.activate_output(self.decode_to_logits(code))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [n, *input_shape] → reconstructions of the same shape."""
        return self.decode(self.encode(x))


class TiedStack(StagedModule):
    """Tied layers, outermost first.

    With two layers z = σ(W₂ σ(W₁ x + b₁) + b₂) and x̂ = g(W₁ᵀ σ(W₂ᵀ z + c₂) + c₁).
    """

    def __init__(
        self, layers: Sequence[TiedLayer], config: StackConfig, input_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.input_shape = input_shape
        self._activation = ACTIVATIONS[config.activation]
        self._code_activated = config.code == "activated"
        self._output_sigmoid = config.output == "sigmoid"

    def encode_to_logits(self, x: Tensor) -> Tensor:
        """Inputs [n, *input_shape] → what goes into the code's activation."""
        *outer, innermost = self._tied_layers
        for layer in outer:
            x = self._activation(layer.encode(x))
        return innermost.encode(x)

    def activate_code(self, logits: Tensor) -> Tensor:
        """The end of the encoder, element by element."""
        return self._activation(logits) if self._code_activated else logits

    def decode_to_logits(self, code: Tensor) -> Tensor:
        """Codes → what goes into the output function, [n, *input_shape]."""
        outermost, *inner = self._tied_layers
        for layer in reversed(inner):
            code = self._activation(layer.decode(code))
        return outermost.decode(code)

    def activate_output(self, logits: Tensor) -> Tensor:
        """The end of the decoder, element by element."""
        return torch.sigmoid(logits) if self._output_sigmoid else logits

    @property
    def ties(self) -> tuple[Tie, ...]:
        """Each weight that both directions use; none in the untied twin."""
        return tuple(
            Tie(f"layers.{i}.weight", (f"encoder layer {i}", f"decoder layer {i} (transposed)"))
            for i, layer in enumerate(self._tied_layers)
            if layer.decoder_weight is None
        )

    @property
    def _tied_layers(self) -> list[TiedLayer]:
        return cast("list[TiedLayer]", list(self.layers))


class Family(Protocol):
    """What a file in this package defines as `FAMILY`."""

    name: str
    config_type: type[Struct]

    def module(self, config: Any) -> StagedModule:
        """A freshly initialised model; draws from torch's global generator.

        Raises:
            RecipeError: the configuration describes no possible model.
        """
        ...


@cache
def all_families() -> dict[str, Family]:
    """Every family by name."""
    names = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
    names += [entry.value for entry in entry_points(group="tiedexport.families")]
    families = [importlib.import_module(name).FAMILY for name in names]
    return {family.name: family for family in families}


def family_named(name: str, *, trained: bool = False) -> Family:
    """The family of that name.

    Args:
        name: as a file of this package or an entry point gives it.
        trained: consider only families that a recipe can describe.

    Raises:
        UsageError: there is none.
    """
    families = trained_families() if trained else all_families()
    if name not in families:
        raise UsageError("unknown family", got=repr(name), expected=", ".join(sorted(families)))
    return families[name]


def trained_families() -> dict[str, Family]:
    """Every family that a recipe can describe, by name."""
    return {
        name: family
        for name, family in all_families().items()
        if issubclass(family.config_type, StackConfig)
    }


def config_from(family: Family, fields: dict[str, Any]) -> Struct:
    """A family's configuration from plain values, as a recipe or a checkpoint holds them.

    Raises:
        msgspec.ValidationError: a field is missing, unknown, or of the wrong type or value.
    """
    return msgspec.convert(fields, type=family.config_type)
