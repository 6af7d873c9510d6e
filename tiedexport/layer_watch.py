"""The output of every layer of a torch module, seen from outside as it is computed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from torch.overrides import TorchFunctionMode

from tiedexport.spec import ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tiedexport.spec import Layer

_KINDS = (
    {"dense": "linear", "conv": "conv2d", "conv_transpose": "conv_transpose2d"},
    {op: op for op in ACTIVATIONS},
    {"reshape": "reshape"},
)
"""Layers and what torch calls them. A call of the same kind is taken for the layer, so one that
computes something else shows at its place."""


class LayerWatch(TorchFunctionMode):
    """A context that keeps the result of each layer's call; the last of several to be entered.

    Attributes:
        awaited: the layers that were not computed yet, in order.
        outputs: by `Layer.output`, in the type that each was computed in.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.awaited = deque(layers)
        self.outputs: dict[str, Tensor] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        called = function.__name__.removesuffix("_")
        for kind in _KINDS:
            if self.awaited and self.awaited[0].op in kind and called in kind.values():
                # A copy: the next layer may work in place.
                self.outputs[self.awaited.popleft().output] = result.clone()
                break
        return result
