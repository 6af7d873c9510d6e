"""Layers that torch quantised: each packs a weight of its own, tied or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tiedexport.results.ties import Finding
from tiedexport.ties.held import faithful_copy, walk

if TYPE_CHECKING:
    from tiedexport.ties.weights import Weight

KIND = "tie lost by quantisation"
INSTEAD = "tiedexport build MODEL --precision fp16  # half the bytes, and one copy"


def layers(module: nn.Module) -> dict[str, Tensor]:
    """Path → weight of every quantised layer: its `weight` is a method that unpacks it."""
    found: dict[str, Tensor] = {}
    for path, one in walk(module):
        if "_packed_params" in one._modules and callable(unpack := getattr(one, "weight", None)):
            found[path] = unpack()
    return found


def findings(
    module: nn.Module,
    packed: dict[str, Tensor],
    weights: list[Weight],
    arguments: tuple[Any, ...] | None,
) -> list[Finding]:
    """Packed weights that repeat a Parameter or each other to within their rounding.

    And a forward pass that fails, for want of a weight that it can read.
    """
    others = [(one.first.name, one.first.tensor.detach()) for one in weights]
    found = []
    for path, quantised in packed.items():
        for name, values in others if quantised.is_quantized else ():
            if _near(quantised, values):
                consequence = (
                    "the layer packs a weight of its own: two copies in memory and in every file"
                )
                found.append(Finding(KIND, f"{name} and {path}", consequence, INSTEAD))
                break
        others.append((path, quantised.dequantize()))
    if arguments is not None and (error := _failure(module, arguments)):
        consequence = f"the forward pass fails, it reads a weight that is packed now: {error}"
        found.append(Finding(KIND, ", ".join(packed), consequence, INSTEAD))
    return found


def _failure(module: nn.Module, arguments: tuple[Any, ...]) -> str:
    """What a forward pass of a copy raises; "" where it succeeds."""
    try:
        with torch.no_grad(), torch.random.fork_rng():
            faithful_copy(module)(*arguments)
    except (AttributeError, TypeError) as error:
        return str(error)
    except Exception:
        return ""  # for another reason: the inputs may be at fault
    return ""


def _near(quantised: Tensor, values: Tensor) -> bool:
    """Whether the values, or their transpose, round to what was packed: within one step."""
    packed = quantised.dequantize()
    per_channel = quantised.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
    scales = quantised.q_per_channel_scales() if per_channel else torch.tensor(quantised.q_scale())
    step = float(scales.max())
    if packed.std() <= step:
        return False
    turned = (values, values.t()) if values.ndim == 2 else (values,)
    return any(
        one.shape == packed.shape and bool(((one - packed).abs() <= step).all()) for one in turned
    )
