"""What a foreign model computes in float64, whatever its code looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from tiedexport.chain import ANY_NETWORK
from tiedexport.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable


def outputs_in_float64(
    function: Callable[[Tensor], Any], x: Tensor, where: str
) -> tuple[Tensor, ...]:
    """Call a module on inputs [n, *input_shape] float32; its one or more outputs, float64.

    Raises:
        BadInputError: it raised, in its own words, or returned no tensors.
    """
    try:
        with torch.no_grad(), _Widened():  # type: ignore[no-untyped-call]
            outputs = function(x)
    except Exception as error:  # what somebody else's code raises is theirs to choose
        raise BadInputError(
            "the model failed on a batch of inputs",
            where=where,
            got=f"{type(error).__name__}: {error}",
            expected=f"it takes {list(x.shape)} of float32, and batches of any other size",
            hint=f"--input-shape gives the shape of one item; {ANY_NETWORK}",
        ) from error
    outputs = outputs if isinstance(outputs, tuple | list) else (outputs,)
    if not all(isinstance(value, Tensor) and value.ndim for value in outputs):
        kinds = ", ".join(type(value).__name__ for value in outputs)
        raise BadInputError("the model returns no tensors", where=where, got=kinds)
    return tuple(value.double() for value in outputs)


class _Widened(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Widens every float32 operand: computing in float64 needs no float64 copy of the module."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        args, kwargs = tree_map_only(Tensor, _widened, (args, kwargs or {}))
        return func(*args, **kwargs)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.dtype is torch.float32 else tensor
